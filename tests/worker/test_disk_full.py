"""A worker whose disk is full: results wait, nothing new is taken, and it goes on by itself when there is room."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import textwrap
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from hecaton.core.model import Body, Kind, Reason
from hecaton.wire.channel import Draining, Released, Started
from hecaton.worker.app import serve
from hecaton.worker.brain.settings import WorkerSettings
from hecaton.worker.memory import disk as memory_disk
from hecaton.worker.runtimes.process import ProcessRuntime
from tests.worker.brain import assignment, ref
from tests.worker.scripted_server import PATIENCE, WORKER, ScriptedServer

A, B, C = ref("a"), ref("b"), ref("c")

HANDLER = """
    import os, time
    from hecaton.serverless import start

    def handler(data):
        while not os.path.exists(data.input["gate"]):
            time.sleep(0.01)
        if "raises" in data.input:
            raise OSError(data.input["raises"], os.strerror(data.input["raises"]))
        return "r" * data.input["bytes"]

    start(handler)
"""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 20 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
async def server(tmp_path: Path, disk: Path) -> AsyncIterator[ScriptedServer]:
    """With a worker whose folder is on that disk."""
    handler = tmp_path / "handler.py"
    handler.write_text(textwrap.dedent(HANDLER))
    async with ScriptedServer() as server:
        server.max_result = 8 << 20
        runtime = ProcessRuntime(WORKER, {"python:3.9-slim": handler})
        config = server.config(disk / "state")
        worker = asyncio.create_task(serve(config, runtime, (), WorkerSettings(grace=1.0)))
        await server.connected()
        yield server
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(0)
        assert await asyncio.wait_for(worker, PATIENCE) == 0


def fill(disk: Path) -> Path:
    path = disk / "filling"
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                continue
    return path


async def test_results_wait_and_new_work_is_refused_until_there_is_room(
    server: ScriptedServer, disk: Path, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    text = f'{{"gate": "{gate}", "bytes": 300000}}'
    job = {name: assignment(name, payload=Body.inline(Kind.JSON, text.encode())) for name in "abc"}
    await server.assign(job["a"], job["b"])
    await server.message(Started)
    filling = await asyncio.to_thread(fill, disk)
    gate.touch()
    assert await server.message(Draining) == Draining(active=True)
    assert (await server.message(Released)).refs == (B,)
    await server.assign(job["c"])
    assert (await server.message(Released, 2)).refs == (C,)
    assert A not in server.outcomes()
    filling.unlink()
    outcome = await server.outcome(A)
    assert outcome.reason is Reason.OK
    assert outcome.body is not None
    assert len(server.blobs[str(outcome.body.blob)]) == 300_002
    assert await server.message(Draining, 2) == Draining(active=False)
    await server.assign(job["c"])
    assert (await server.outcome(C)).reason is Reason.OK


async def test_a_payload_larger_than_the_disk_keeps_no_other_job_back_and_is_said(
    server: ScriptedServer, tmp_path: Path
) -> None:
    (tmp_path / "gate").touch()
    text = f'{{"gate": "{tmp_path / "gate"}", "bytes": 1}}'
    large = text.ljust(25 << 20).encode()
    await server.assign(assignment("a", payload=Body(Kind.JSON, b"", server.keep(large), len(large))))
    outcome = await server.outcome(A)
    assert (outcome.reason, outcome.failure and outcome.failure.type) == (Reason.RELEASED, Reason.NO_ROOM)
    assert outcome.failure is not None
    assert outcome.failure.message.startswith(f"the payload has {len(large)} bytes, the disk of this machine has room")
    assert server.fetched == []  # which would have filled the disk that others use
    await server.assign(assignment("b", payload=Body.inline(Kind.JSON, text.encode())))
    assert (await server.outcome(B)).reason is Reason.OK
    assert server.all(Draining) == []


async def test_a_payload_that_finds_no_room_is_handed_back_until_there_is(
    server: ScriptedServer, disk: Path, tmp_path: Path
) -> None:
    (tmp_path / "gate").touch()
    said = f'{{"gate": "{tmp_path / "gate"}", "bytes": 1}}'.ljust(3_000_000).encode()
    job = assignment("a", payload=Body(Kind.JSON, b"", server.keep(said), len(said)))
    filling = await asyncio.to_thread(fill, disk)
    await server.assign(job)
    assert await server.message(Draining) == Draining(active=True)
    assert (await server.message(Released)).refs == (A,)
    filling.unlink()
    assert await server.message(Draining, 2) == Draining(active=False)
    await server.assign(job)
    assert (await server.outcome(A)).reason is Reason.OK
    assert len(server.outcomes()) == 1


async def test_a_handler_s_result_that_finds_no_room_is_charged_to_the_machine_which_takes_nothing_new(
    server: ScriptedServer, disk: Path, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    text = f'{{"gate": "{gate}", "bytes": 3000000}}'
    await server.assign(assignment("a", payload=Body.inline(Kind.JSON, text.encode())))
    await server.message(Started)
    filling = await asyncio.to_thread(fill, disk)
    gate.touch()
    outcome = await server.outcome(A)
    assert outcome.reason is Reason.WORKER_ERROR
    assert outcome.failure is not None
    assert "worker's disk was full" in str(outcome.failure.hint)
    assert await server.message(Draining) == Draining(active=True)
    filling.unlink()
    assert await server.message(Draining, 2) == Draining(active=False)


async def test_who_says_that_a_disk_is_full_which_is_not_has_failed(server: ScriptedServer, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    text = f'{{"gate": "{gate}", "bytes": 1, "raises": 28}}'
    await server.assign(assignment("a", payload=Body.inline(Kind.JSON, text.encode())))
    assert (await server.outcome(A)).reason is Reason.HANDLER_ERROR


async def test_a_disk_has_room_again_when_what_found_none_would_find_some(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_disk, "INTERVAL", 0.01)
    said: asyncio.Queue[bool] = asyncio.Queue()
    filling = disk / "filling"
    await asyncio.to_thread(filling.write_bytes, bytes(10 << 20))
    watched = memory_disk.Disk(disk, said.put_nowait)
    watched.refused(16 << 20)
    assert await said.get() is True
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await said.get()
    filling.unlink()
    assert await said.get() is False
    await asyncio.to_thread(filling.write_bytes, bytes(10 << 20))
    watched.refused()
    assert (await said.get(), await said.get()) == (True, False)
