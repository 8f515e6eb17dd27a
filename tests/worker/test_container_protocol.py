"""Everything that a container may say, at its edges and beyond, costs that container alone: an honest job beside it on
the same worker goes on, and the worker stays small. What is said: `talkative`."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from hecaton.core.model import Body, Kind, Reason
from tests.worker import killable, talkative
from tests.worker.brain import assignment
from tests.worker.killable import SETTINGS
from tests.worker.scripted_server import ScriptedServer

GROWTH = 100 << 20
"""Bytes that the worker may need at most beyond what it needs at work."""

CASES = [(kind, field) for kind in talkative.FROM_CONTAINERS for field in talkative.fields(kind)]


class Bench:
    """Slot 0 is for the hostile container, slot 1 for the honest one."""

    def __init__(self, server: ScriptedServer, worker: asyncio.subprocess.Process) -> None:
        self.server, self.worker = server, worker
        self.before = 0
        self._made = 0

    async def run(self, kind: str, field: str = "", slot: int = 0) -> Reason:
        self._made += 1
        payload = Body.inline(Kind.JSON, json.dumps({"type": kind, "field": field}).encode())
        job = assignment(f"{kind}-{self._made}", image="echo", slot=slot, warm_key=f"w{slot}", payload=payload)
        await self.server.assign(job)
        return (await self.server.outcome(job.ref)).reason

    async def is_honest_until(self, over: asyncio.Event) -> int:
        """How many jobs of another container went well meanwhile."""
        for done in range(1, 1_000_000):
            assert await self.run("good", slot=1) is Reason.OK
            if over.is_set():
                return done
        raise AssertionError

    def memory(self, what: str) -> int:
        found = re.search(rf"{what}:\s+(\d+) kB", Path(f"/proc/{self.worker.pid}/status").read_text())
        assert found is not None
        return int(found[1]) * 1024


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    folder = tmp_path_factory.mktemp("talk")
    async with ScriptedServer() as server:
        worker = await killable.start(server, folder / "state", "process", Path(talkative.__file__))
        await server.connected()
        bench = Bench(server, worker)
        assert [await bench.run("good", slot=slot) for slot in (0, 1)] == [Reason.OK] * 2
        bench.before = bench.memory("VmRSS")
        yield bench
        print(f"memory of the worker: {bench.before >> 20} MiB, at most {bench.memory('VmHWM') >> 20} MiB")
        worker.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(worker.wait(), SETTINGS.drain_timeout + 10) == 0


def test_every_field_of_the_table_is_tried() -> None:
    assert dict.fromkeys(field for _, field in CASES).keys() >= {
        "type", "job", "attempt", "protocol", "nonce", "pid", "pending", "running", "ahead", "log", "turn", "kind",
        "file", "status", "error", "log_end", "next_log", "value", "yielded",
    }  # fmt: skip


@pytest.mark.sample(5)
@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("kind", "field"), CASES)
async def test_no_word_of_a_container_costs_another_or_the_worker(bench: Bench, kind: str, field: str) -> None:
    over = asyncio.Event()
    honest = asyncio.create_task(bench.is_honest_until(over))
    try:
        await bench.run(kind, field)
        assert await bench.run("good") is Reason.OK
    finally:
        over.set()
        done = await honest
    assert done > 0
    assert bench.memory("VmHWM") - bench.before < GROWTH
    assert bench.worker.returncode is None
