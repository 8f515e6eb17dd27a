"""An engine that goes away, comes back or does not answer: the real one behind a socket that the test can cut."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
import pytest_asyncio

from hecaton.core.model import Reason
from hecaton.worker.runtimes import docker as docker_runtime
from hecaton.worker.runtimes.docker import DockerRuntime
from hecaton.worker.runtimes.docker_engine import DEFAULT_HOST, Engine
from hecaton.worker.runtimes.port import ContainerSpec, Exit, RuntimeFault
from tests.contracts.runtime_contract import WORKER, reference, spec_for, until
from tests.engine.daemon import docker
from tests.engine.images import build_image

COMMAND = "while [ ! -e /run/hecaton/in/go ]; do sleep 0.02; done; exit 5"


class Line:
    """A Unix socket that leads to the real engine."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.mute = False
        self.asked = bytearray()  # what went to the engine since the line is up
        self._engine = (os.environ.get("DOCKER_HOST") or DEFAULT_HOST).removeprefix("unix://")
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def waiting(self) -> bool:
        """Whether somebody waits for a container to end."""
        return b"/wait" in self.asked

    async def up(self) -> None:
        self.asked.clear()
        self._server = await asyncio.start_unix_server(self._connect, self.path)

    def shut_door(self) -> None:
        """As when the engine begins to shut down: who is connected still gets answers, nobody else does."""
        assert self._server is not None
        self._server.close()
        self.path.unlink(missing_ok=True)

    async def down(self) -> None:
        """As when the engine's process is killed."""
        self.shut_door()
        for writer in list(self._writers):
            writer.transport.abort()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._writers.add(writer)
        try:
            if self.mute:
                await asyncio.Event().wait()
            there, engine = await asyncio.open_unix_connection(self._engine)
            self._writers.add(engine)
            await asyncio.gather(_copy(reader, engine, self.asked), _copy(there, writer, bytearray()))
            self._writers.discard(engine)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._writers.discard(writer)
            writer.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: bytearray) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            seen += data
            writer.write(data)
            await writer.drain()
    writer.close()


@pytest_asyncio.fixture
async def line(engine: str, tmp_path: Path) -> AsyncIterator[Line]:
    line = Line(tmp_path / "engine.sock")
    await line.up()
    yield line
    await line.down()


@pytest_asyncio.fixture
async def runtime(line: Line) -> AsyncIterator[DockerRuntime]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", f"unix://{line.path}")
        runtime = DockerRuntime(WORKER)
    yield runtime
    line.mute = False
    if not line.path.exists():
        await line.up()
    for found in await runtime.found():
        await runtime.stop(found.handle, 0)
    await runtime.close()


@pytest_asyncio.fixture
async def spec(runtime: DockerRuntime, base_image: str, tmp_path: Path) -> ContainerSpec:
    build_image("hecaton-test/waits:1", f'FROM {base_image}\nCMD ["sh", "-c", "{COMMAND}"]')
    return await spec_for(runtime, reference("hecaton-test/waits:1"), tmp_path)


def let_it_end(spec: ContainerSpec) -> None:
    (Path(spec.folder) / "in/go").touch()


async def test_an_engine_that_keeps_containers_alive_may_restart(
    runtime: DockerRuntime, line: Line, spec: ContainerSpec
) -> None:
    handle = await runtime.start(spec)
    waiting = asyncio.create_task(runtime.wait(handle))
    await until(lambda: line.waiting)
    await line.down()
    await line.up()
    await until(lambda: line.waiting)
    assert not waiting.done()
    let_it_end(spec)
    assert await asyncio.wait_for(waiting, 20) == Exit(5)


async def test_a_container_that_ended_with_its_engine_is_never_a_success(
    runtime: DockerRuntime, line: Line, spec: ContainerSpec
) -> None:
    """A restart of the engine ends containers, some of them with exit code 0."""
    handle = await runtime.start(spec)
    waiting = asyncio.create_task(runtime.wait(handle))
    await until(lambda: line.waiting)
    await line.down()
    let_it_end(spec)
    await asyncio.to_thread(docker, "wait", handle)
    await line.up()
    assert "engine went away" in (await asyncio.wait_for(waiting, 20)).error


async def test_a_container_that_ends_while_its_engine_shuts_down_is_not_to_blame(
    runtime: DockerRuntime, line: Line, spec: ContainerSpec
) -> None:
    """An engine that is stopped in good order stops the containers itself, and tells so."""
    handle = await runtime.start(spec)
    waiting = asyncio.create_task(runtime.wait(handle))
    await until(lambda: line.waiting)
    line.shut_door()
    let_it_end(spec)
    assert "engine went away" in (await asyncio.wait_for(waiting, 20)).error


async def test_a_stop_waits_for_the_engine_to_come_back(
    runtime: DockerRuntime, line: Line, spec: ContainerSpec
) -> None:
    handle = await runtime.start(spec)
    await line.down()
    stopping = asyncio.create_task(runtime.stop(handle, 5))
    await asyncio.wait([stopping], timeout=0.3)
    assert not stopping.done()
    await line.up()
    await asyncio.wait_for(stopping, 20)
    assert await runtime.found() == []


async def test_calls_without_an_engine_fail_at_once_and_work_when_it_is_back(
    runtime: DockerRuntime, line: Line, spec: ContainerSpec
) -> None:
    await line.down()
    for call in (runtime.start(spec), runtime.found(), runtime.check(Path(spec.folder)), runtime.output("x", 10)):
        with pytest.raises(RuntimeFault, match=r"cannot be reached|did not") as fault:
            await call
        assert fault.value.reason == Reason.WORKER_ERROR
    await line.up()
    handle = await runtime.start(spec)
    let_it_end(spec)
    assert await runtime.wait(handle) == Exit(5)


async def test_an_engine_that_hangs_costs_a_deadline(
    runtime: DockerRuntime, line: Line, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(docker_runtime, "_SHORT_SECONDS", 0.3)
    line.mute = True
    with pytest.raises(RuntimeFault, match=r"did not tell its version within 0\.3 s"):
        await runtime.check(tmp_path)


async def test_a_worker_knows_whether_it_could_end_the_containers_of_its_engine_itself(
    engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Engine().unreachable() is None
    monkeypatch.setenv("DOCKER_HOST", "tcp://gpu.example.com:2375")
    assert "another machine" in str(Engine().unreachable())
    monkeypatch.setenv("DOCKER_HOST", "unix:///no/such.sock")
    assert "cannot be looked at" in str(Engine().unreachable())
    said = (
        "import os; from hecaton.worker.runtimes.docker_engine import DEFAULT_HOST, Engine\n"
        "os.setgroups([os.stat(DEFAULT_HOST.removeprefix('unix://')).st_gid]); os.setuid(65534)\n"
        "print(Engine().unreachable())"
    )
    monkeypatch.delenv("DOCKER_HOST")
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", said, stdout=asyncio.subprocess.PIPE)
    assert b"containers are root's" in (await process.communicate())[0]
