"""What every runtime does, whatever it runs on.

Subclass with fixtures `runtime`; `reborn` (the same worker's, after a restart); `stranger` (another worker's);
`actor`, an image whose command executes the Python program in its environment variable PROGRAM; `missing`, a name that
it cannot run.
"""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from hecaton.core.model import Reason
from hecaton.wire.channel import ImageRef
from hecaton.worker.runtimes import python_mount
from hecaton.worker.runtimes.port import (
    LABEL_CONTAINER,
    LABEL_SLOT,
    LABEL_WORKER,
    SCRATCH,
    WORKDIR,
    Bind,
    ContainerSpec,
    Exit,
    Runtime,
    RuntimeFault,
)

ACTOR = b"import os\nexec(os.environ['PROGRAM'])\n"
WORKER = f"worker-under-test-{os.getpid()}"

SLEEP = "import time; open(os.environ['HECATON_DIR'] + '/out/up', 'w').close(); time.sleep(600)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEP

Start = Callable[..., Awaitable[str]]


async def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.02)


def reference(name: str, digest: str | None = None) -> ImageRef:
    return ImageRef(name, digest, {}, 1)


def channel_folder(path: Path) -> Path:
    """What the worker's handler door makes for a container."""
    (path / "in").mkdir(parents=True)
    (path / "out").mkdir()
    (path / "out").chmod(0o1777)
    (path / "python").mkdir()
    (path / "log").touch()
    (path / "log").chmod(0o666)
    path.chmod(0o755)
    return path


async def spec_for(runtime: Runtime, image: ImageRef, tmp_path: Path, **changes: object) -> ContainerSpec:
    container = uuid.uuid4().hex[:12]
    fields: dict[str, object] = {
        "id": container,
        "name": f"hecaton-test-{container}",
        "image": await runtime.prepare(image, lambda text: None),
        "image_name": image.name,
        "env": {},
        "labels": {LABEL_SLOT: "0"},
        "folder": str(channel_folder(tmp_path / container)),
        "python": str(python_mount.build(tmp_path / "state")),
    }
    return ContainerSpec(**(fields | changes))  # type: ignore[arg-type]


class RuntimeContract:
    @pytest.fixture
    def channel(self, tmp_path: Path) -> Path:
        return channel_folder(tmp_path / "channel")

    @pytest.fixture
    def start(self, runtime: Runtime, actor: ImageRef, tmp_path: Path, channel: Path) -> Start:
        async def start(program: str, **changes: object) -> str:
            env = {"PROGRAM": program} | changes.pop("env", {})  # type: ignore[operator]
            spec = await spec_for(runtime, actor, tmp_path, env=env, folder=str(channel), **changes)
            return await runtime.start(spec)

        return start

    async def test_tells_how_it_ended(self, runtime: Runtime, start: Start) -> None:
        assert await runtime.wait(await start("pass")) == Exit(0)
        assert await runtime.wait(await start("raise SystemExit(7)")) == Exit(7)
        assert (await runtime.wait(await start("os.kill(os.getpid(), 9)"))).code == 137

    async def test_the_end_can_be_asked_for_late_and_twice(self, runtime: Runtime, start: Start) -> None:
        handle = await start("raise SystemExit(3)")
        first, second = await asyncio.gather(runtime.wait(handle), runtime.wait(handle))
        assert first == second == await runtime.wait(handle) == Exit(3)

    async def test_the_environment_and_the_channel_folder_reach_it(
        self, runtime: Runtime, start: Start, channel: Path
    ) -> None:
        program = "open(os.environ['HECATON_DIR'] + '/out/said', 'w').write(os.environ['WORD'])"
        assert await runtime.wait(await start(program, env={"WORD": "a = 'b' ü"})) == Exit(0)
        assert (channel / "out/said").read_text() == "a = 'b' ü"

    async def test_sees_the_folders_of_its_job_and_begins_in_its_working_folder(
        self, runtime: Runtime, start: Start, tmp_path: Path
    ) -> None:
        (tmp_path / "work").mkdir()
        (tmp_path / "work/here").touch()
        (tmp_path / "scratch").mkdir()
        program = (
            "assert os.path.exists('here') and os.path.samefile('.', os.environ['HECATON_WORKDIR']); "
            "open('made', 'w').close(); open(os.environ['HECATON_SCRATCH'] + '/made', 'w').close()"
        )
        binds = (Bind(str(tmp_path / "work"), WORKDIR), Bind(str(tmp_path / "scratch"), SCRATCH))
        handle = await start(program, binds=binds, begins_in=WORKDIR)
        assert await runtime.wait(handle) == Exit(0), await runtime.output(handle, 5000)
        assert (tmp_path / "work/made").exists()
        assert (tmp_path / "scratch/made").exists()

    async def test_brings_hecaton_serverless_along(self, runtime: Runtime, start: Start) -> None:
        handle = await start(
            "from hecaton.serverless import start, ServerLessInput; import hecaton; hecaton.__version__"
        )
        assert await runtime.wait(handle) == Exit(0), await runtime.output(handle, 5000)

    async def test_gives_the_last_of_the_output(self, runtime: Runtime, start: Start) -> None:
        handle = await start("os.write(1, b'to stdout, '); os.write(2, b'to stderr\\n'); import no_such_module")
        assert (await runtime.wait(handle)).code == 1
        output = await runtime.output(handle, 10_000)
        assert b"to stdout" in output
        assert b"to stderr" in output
        assert b"No module named 'no_such_module'\n" in output  # the order of the two streams is not promised
        assert await runtime.output(handle, 15) == output[-15:]

    async def test_gives_the_output_as_it_comes(self, runtime: Runtime, start: Start, channel: Path) -> None:
        program = (
            "import time; os.write(1, b'loading\\n'); go = os.environ['HECATON_DIR'] + '/out/go'\n"
            "while not os.path.exists(go): time.sleep(0.02)\n"
            "os.write(2, b'loaded\\n')"
        )
        following = runtime.follow(handle := await start(program))
        async with asyncio.timeout(20):
            heard = b""
            while heard != b"loading\n":
                heard += await anext(following)
            later = asyncio.ensure_future(anext(runtime.follow(handle, since=time.time())))
            await asyncio.sleep(0)
            (channel / "out/go").touch()
            assert b"".join([text async for text in following]) == b"loaded\n"
            assert await later == b"loaded\n"

    async def test_output_that_nobody_reads_blocks_nothing(self, runtime: Runtime, start: Start) -> None:
        handle = await start("for _ in range(1000): os.write(1, b'x' * 999 + b'\\n')")
        assert await runtime.wait(handle) == Exit(0)
        assert await runtime.output(handle, 3) == b"xx\n"

    async def test_stop_asks_first(self, runtime: Runtime, start: Start, channel: Path) -> None:
        program = (
            "import signal; signal.signal(signal.SIGTERM, lambda *_: open(d + '/out/bye', 'w').close() or exit(0))"
        )
        handle = await start(f"d = os.environ['HECATON_DIR']; {program}; {SLEEP}")
        await until((channel / "out/up").exists)
        began = time.monotonic()
        await runtime.stop(handle, grace=30)
        assert time.monotonic() - began < 25
        assert (channel / "out/bye").exists()
        assert await runtime.found() == []

    async def test_stop_kills_what_does_not_listen(self, runtime: Runtime, start: Start, channel: Path) -> None:
        handle = await start(STUBBORN)
        await until((channel / "out/up").exists)
        began = time.monotonic()
        await runtime.stop(handle, grace=0.5)
        assert 0.5 <= time.monotonic() - began < 8
        assert await runtime.found() == []

    async def test_stop_ends_the_wait(self, runtime: Runtime, start: Start, channel: Path) -> None:
        handle = await start(STUBBORN)
        waiting = asyncio.create_task(runtime.wait(handle))
        await until((channel / "out/up").exists)
        await runtime.stop(handle, grace=0)
        assert (await asyncio.wait_for(waiting, 5)).code in (137, -1)

    async def test_stop_may_be_repeated(self, runtime: Runtime, start: Start) -> None:
        handle = await start("pass")
        await runtime.wait(handle)
        await runtime.stop(handle, grace=1)
        await runtime.stop(handle, grace=1)
        await asyncio.gather(runtime.stop(handle, grace=0), runtime.stop(handle, grace=0))

    async def test_stop_takes_its_children_along(self, runtime: Runtime, start: Start, channel: Path) -> None:
        """Also one in a session of its own: nothing may go on using the card."""
        program = (
            "import subprocess, sys, time; command = [sys.executable, '-c', 'import os; exec(os.environ[\"CHILD\"])'];"
            " subprocess.Popen(command, start_new_session=True); time.sleep(600)"
        )
        handle = await start(program, env={"CHILD": STUBBORN})
        await until((channel / "out/up").exists)
        await runtime.stop(handle, grace=0.1)
        assert await runtime.found() == []

    async def test_finds_what_runs_by_its_labels(self, runtime: Runtime, start: Start, channel: Path) -> None:
        handle = await start(SLEEP, labels={LABEL_SLOT: "3", "hecaton.other": "x"}, id="c0ffee")
        (found,) = await runtime.found()
        assert (found.handle, found.running) == (handle, True)
        assert found.labels[LABEL_WORKER] == WORKER
        assert found.labels[LABEL_CONTAINER] == "c0ffee"
        assert found.labels[LABEL_SLOT] == "3"
        await runtime.stop(handle, grace=0)
        assert await runtime.found() == []

    async def test_leaves_other_workers_alone(self, runtime: Runtime, stranger: Runtime, start: Start) -> None:
        handle = await start(SLEEP)
        assert await stranger.found() == []
        assert [found.handle for found in await runtime.found()] == [handle]
        await runtime.stop(handle, grace=0)

    async def test_the_next_worker_finds_and_ends_what_the_last_one_left(
        self, runtime: Runtime, reborn: Runtime, start: Start, channel: Path
    ) -> None:
        await start(SLEEP)
        await until((channel / "out/up").exists)
        (found,) = await reborn.found()
        waiting = asyncio.create_task(reborn.wait(found.handle))
        await reborn.stop(found.handle, grace=0)
        await asyncio.wait_for(waiting, 5)
        assert await runtime.found() == await reborn.found() == []

    async def test_says_that_it_has_no_such_image(self, runtime: Runtime, missing: str) -> None:
        with pytest.raises(RuntimeFault, match=missing) as fault:
            await runtime.prepare(reference(missing), lambda text: None)
        assert fault.value.reason == Reason.IMAGE_DENIED
        assert fault.value.hint

    async def test_check_says_what_runs(self, runtime: Runtime, tmp_path: Path) -> None:
        assert len((await runtime.check(tmp_path)).splitlines()) == 1
