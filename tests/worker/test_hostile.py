"""Handlers that do harm: each job ends with the right reason, the next one runs, and the worker stays small.

One worker for all of them, in a process of its own. What the handlers do: `hostile`.
"""

from __future__ import annotations

import asyncio
import json
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from hecaton.core.lifecycle import charge
from hecaton.core.model import Body, Charged, Kind, Reason
from tests.worker import hostile, killable
from tests.worker.brain import assignment
from tests.worker.killable import SETTINGS
from tests.worker.scripted_server import ScriptedServer

TIMEOUT = 1.0
MEMORY = 400 << 20
"""More than a log of 100 MiB that waits for a busy server takes, and far less than what some of them send."""
"""Bytes that the worker may need at most."""

NEVER_ENDS = [
    "sleeps_for_ever",
    "hangs_in_c_with_the_gil",
    "ignores_sigterm",
    "deadlocks",
    "cuts_itself_off",
    "forges_results_and_never_reads",
    "floods_with_frames",
    "dials_for_ever",
]
FAILS = {
    "exits_with_0": Reason.NO_RESULT,
    "exits_with_7": Reason.HANDLER_EXIT,
    "raises_system_exit": Reason.HANDLER_ERROR,
    "segfaults": Reason.HANDLER_EXIT,
    "aborts": Reason.HANDLER_EXIT,
    "kills_itself": Reason.HANDLER_EXIT,
    "stops_itself_politely": Reason.HANDLER_EXIT,
    "forks_and_exits": Reason.NO_RESULT,
    "dies_within_a_frame": Reason.NO_RESULT,
    "raises": Reason.HANDLER_ERROR,
    "raises_half_a_character": Reason.HANDLER_ERROR,
    "raises_what_cannot_be_shown": Reason.HANDLER_ERROR,
    "raises_the_end_of_everything": Reason.HANDLER_ERROR,
    "runs_out_of_memory": Reason.HANDLER_ERROR,
    "says_more_than_a_failure_may": Reason.HANDLER_ERROR,
    "returns_nan": Reason.RESULT_INVALID,
    "returns_a_circle": Reason.RESULT_INVALID,
    "returns_a_set": Reason.RESULT_INVALID,
    "returns_an_abyss": Reason.RESULT_INVALID,
    "returns_a_number_of_5000_digits": Reason.RESULT_INVALID,
    "returns_half_a_character": Reason.RESULT_INVALID,
    "returns_too_much": Reason.RESULT_TOO_LARGE,
    "yields_for_ever": Reason.RESULT_TOO_LARGE,
    "says_what_is_not_json": Reason.RESULT_INVALID,
    "returns_an_endless_device": Reason.RESULT_INVALID,
    "returns_a_link": Reason.RESULT_INVALID,
    "returns_a_pipe": Reason.RESULT_INVALID,
    "returns_a_folder": Reason.RESULT_INVALID,
    "returns_a_file_of_the_workers": Reason.RESULT_INVALID,
    "returns_a_name_that_is_none": Reason.RESULT_INVALID,
    "returns_a_file_that_is_too_large": Reason.RESULT_TOO_LARGE,
    "replaces_out_by_a_link": Reason.RESULT_INVALID,
    "fills_its_folder_with_files": Reason.RESULT_TOO_LARGE,
}
NOISY = [
    "prints_fake_frames",
    "prints_binary_without_end_of_line",
    "storms_the_log",
    "writes_to_everything_that_is_open",
    "closes_everything",
    "reports_progress_thousands_of_times",
    "reports_progress_that_no_message_can_carry",
    "answers_for_others",
    "sends_a_header_of_two_megabytes",
    "sends_junk",
    "says_hello_again_and_again",
    "sends_strangers",
    "leaves_a_thread_that_talks",
    "leaves_children",
    "removes_the_socket",
    "empties_its_folder",
    "replaces_its_log",
    "nests_folders",
    "says_two_results",
]
CASES = [
    *((name, Reason.TIMEOUT) for name in NEVER_ENDS),
    *FAILS.items(),
    *((name, Reason.OK) for name in NOISY),
]


class Bench:
    def __init__(self, server: ScriptedServer, worker: asyncio.subprocess.Process) -> None:
        self.server, self.worker = server, worker
        self._made = 0

    async def run(self, name: str, warm: str, timeout: float | None = None, size: int = 0) -> tuple[Reason, object]:
        """How the job ended, and its result. Jobs with the same `warm` share a container while it lives. `size`: bytes
        of its payload, at least."""
        self._made += 1
        said = json.dumps(name.ljust(size)).encode()
        payload = Body.inline(Kind.JSON, said)
        if size:
            payload = Body(Kind.JSON, b"", self.server.keep(said), len(said))
        job = assignment(f"job-{self._made}", image="echo", warm_key=warm, payload=payload, timeout=timeout)
        await self.server.assign(job)
        outcome = await self.server.outcome(job.ref)
        self.server.heard.clear()
        body = outcome.body if outcome.reason is Reason.OK else None  # what was refused is kept, and is no result
        return outcome.reason, json.loads(body.data) if body is not None and body.blob is None else None

    def memory(self) -> int:
        """Bytes that the worker has needed at most so far."""
        status = Path(f"/proc/{self.worker.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) * 1024


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    folder = tmp_path_factory.mktemp("hostile")
    async with ScriptedServer() as server:
        server.max_result = 8 << 20
        worker = await killable.start(server, folder / "state", "process", Path(hostile.__file__))
        await server.connected()
        yield Bench(server, worker)
        worker.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(worker.wait(), SETTINGS.drain_timeout + 10) == 0
    runtime = killable.runtime_of("process", None)
    assert await runtime.found() == []
    assert list((folder / "state/c").iterdir()) == []


def test_there_are_forty_of_them() -> None:
    assert len({name for name, _ in CASES}) == len(CASES) >= 40


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("name", "reason"), CASES)
async def test_harm_ends_with_its_job(bench: Bench, name: str, reason: Reason) -> None:
    timeout = TIMEOUT if reason is Reason.TIMEOUT else None
    assert await bench.run(name, name, timeout) == (reason, "true" if reason is Reason.OK else None)
    assert await bench.run("good", name) == (Reason.OK, "good")
    assert bench.memory() < MEMORY
    assert bench.worker.returncode is None


@pytest.mark.asyncio(loop_scope="module")
async def test_who_damages_his_folder_pays_for_it_and_not_the_machine(bench: Bench) -> None:
    for _ in range(30):  # three in a row would be quarantine
        assert await bench.run("removes_what_is_the_workers", "damage") == (Reason.OK, "true")
        assert await bench.run("good", "damage", size=2 << 20) == (Reason.HANDLER_ERROR, None)
    assert charge(Reason.HANDLER_ERROR) is Charged.USER
    assert await bench.run("good", "damage", size=2 << 20) == (Reason.OK, "good")
