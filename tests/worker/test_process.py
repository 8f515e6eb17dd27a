"""The process runtime: named handler files, nothing else, and no isolation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from hecaton.core.model import Reason
from hecaton.wire.channel import ImageRef
from hecaton.worker.runtimes.port import Bind, CommandLine, RuntimeFault
from hecaton.worker.runtimes.process import ProcessRuntime
from tests.contracts.runtime_contract import ACTOR, WORKER, RuntimeContract, Start, reference, spec_for, until


@pytest.fixture
def handlers(tmp_path: Path) -> dict[str, Path]:
    (tmp_path / "app").mkdir()
    handler = tmp_path / "app/handler.py"
    handler.write_bytes(ACTOR)
    return {"actor:1": handler}


@pytest_asyncio.fixture
async def runtime(handlers: dict[str, Path]) -> AsyncIterator[ProcessRuntime]:
    runtime = ProcessRuntime(WORKER, handlers)
    yield runtime
    for found in await runtime.found():
        await runtime.stop(found.handle, 0)
    await runtime.close()


@pytest.fixture
def actor() -> ImageRef:
    return reference("actor:1")


@pytest.fixture
def adjusted() -> Iterator[None]:
    """This process has another place in the order than usual. (Not below 0, as the service: that takes a privilege.)"""
    place = Path("/proc/self/oom_score_adj")
    before = place.read_text()
    place.write_text("500")
    yield
    place.write_text(before)


class TestContract(RuntimeContract):
    @pytest.fixture
    def reborn(self, handlers: dict[str, Path]) -> ProcessRuntime:
        return ProcessRuntime(WORKER, handlers)

    @pytest.fixture
    def stranger(self, handlers: dict[str, Path]) -> ProcessRuntime:
        return ProcessRuntime("another-worker", handlers)

    @pytest.fixture
    def missing(self) -> str:
        return "python:3.9-slim"

    async def test_runs_beside_the_handler_file(
        self, runtime: ProcessRuntime, start: Start, channel: Path, tmp_path: Path
    ) -> None:
        await runtime.wait(await start("open(os.environ['HECATON_DIR'] + '/out/cwd', 'w').write(os.getcwd())"))
        assert (channel / "out/cwd").read_text() == str(tmp_path / "app")

    async def test_mounts_nothing_and_says_so(self, runtime: ProcessRuntime, start: Start, tmp_path: Path) -> None:
        with pytest.raises(RuntimeFault, match="the process runtime mounts nothing: there would be no /mnt/data"):
            await start("pass", binds=(Bind(str(tmp_path), "/mnt/data"),))

    async def test_sees_its_own_card_only_or_none(self, runtime: ProcessRuntime, start: Start, channel: Path) -> None:
        program = "open(os.environ['HECATON_DIR'] + '/out/cards', 'w').write(os.environ['CUDA_VISIBLE_DEVICES'])"
        await runtime.wait(await start(program, gpus=("GPU-0001",)))
        assert (channel / "out/cards").read_text() == "GPU-0001"
        await runtime.wait(await start(program))
        assert (channel / "out/cards").read_text() == ""

    async def test_finds_and_ends_its_own_also_when_they_show_no_labels(
        self, runtime: ProcessRuntime, start: Start, channel: Path
    ) -> None:
        bare = f"import time; open({str(channel / 'out/up')!r}, 'w').close(); time.sleep(600)"
        handle = await start(f"import sys; os.execve(sys.executable, [sys.executable, '-c', {bare!r}], {{}})")
        await until((channel / "out/up").exists)
        assert [found.handle for found in await runtime.found()] == [handle]
        waiting = asyncio.create_task(runtime.wait(handle))
        await runtime.stop(handle, grace=0)
        assert (await asyncio.wait_for(waiting, 20)).code > 128
        assert await runtime.found() == []

    async def test_does_not_inherit_the_workers_place_in_the_order_of_the_killed_when_memory_runs_out(
        self, runtime: ProcessRuntime, start: Start, channel: Path, adjusted: None
    ) -> None:
        program = "open(os.environ['HECATON_DIR'] + '/out/oom', 'w').write(open('/proc/self/oom_score_adj').read())"
        await runtime.wait(await start(program))
        assert (channel / "out/oom").read_text() == "0\n"

    async def test_keeps_the_workers_credentials_to_itself(
        self, runtime: ProcessRuntime, start: Start, channel: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("HECATON_USERNAME", "HECATON_PASSWORD", "HECATON_TOKEN"):
            monkeypatch.setenv(name, "a secret")
        await runtime.wait(await start("open(os.environ['HECATON_DIR'] + '/out/env', 'w').write(repr(os.environ))"))
        assert "a secret" not in (channel / "out/env").read_text()


def test_serves_the_names_that_it_was_given(runtime: ProcessRuntime) -> None:
    assert runtime.serves == ("actor:1",)


async def test_names_what_it_has_when_asked_for_something_else(runtime: ProcessRuntime) -> None:
    with pytest.raises(RuntimeFault, match=r"no handler for busybox; it has: actor:1"):
        await runtime.prepare(reference("busybox"), lambda text: None)


async def test_runs_no_other_command(runtime: ProcessRuntime, actor: ImageRef, tmp_path: Path) -> None:
    spec = await spec_for(runtime, actor, tmp_path, commands=(CommandLine(("python3", "-c", "print()")),))
    with pytest.raises(RuntimeFault, match="only the handler files it was given") as fault:
        await runtime.start(spec)
    assert fault.value.reason == Reason.IMAGE_DENIED


async def test_says_plainly_that_it_isolates_nothing(runtime: ProcessRuntime, tmp_path: Path) -> None:
    said = "process runtime: handlers run as this user, without isolation: what is the worker's they can change too"
    assert await runtime.check(tmp_path) == said


async def test_a_handler_file_that_does_not_exist_is_named_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(RuntimeFault, match=r"no such handler file: .*/nowhere\.py"):
        await ProcessRuntime(WORKER, {"x": tmp_path / "nowhere.py"}).check(tmp_path)
