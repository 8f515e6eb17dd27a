"""The Docker runtime on a real engine: the contract, and what only containers have."""

from __future__ import annotations

import ast
import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from hecaton.core.model import Reason
from hecaton.core.options import Options
from hecaton.wire.channel import ImageRef
from hecaton.worker.doors.channel_folder import LAUNCHED_NAME
from hecaton.worker.runtimes import docker as docker_runtime
from hecaton.worker.runtimes import python_mount
from hecaton.worker.runtimes.docker import DockerRuntime
from hecaton.worker.runtimes.docker_config import configuration
from hecaton.worker.runtimes.port import (
    CHANNEL_TARGET,
    GROUP_VARIABLE,
    PYTHON_TARGET,
    Bind,
    CommandLine,
    ContainerSpec,
    Exit,
    MachineBroken,
    Prepared,
    RuntimeFault,
)
from hecaton.worker.runtimes.python_mount import SHELL_LAUNCHER
from hecaton.worker.runtimes.starting import is_init
from tests.contracts.runtime_contract import ACTOR, SLEEP, WORKER, RuntimeContract, Start, reference, spec_for, until
from tests.engine.daemon import docker
from tests.engine.images import build_image
from tests.engine.registry import Registry

ACTOR_DOCKERFILE = 'FROM python:3.9-slim\nCOPY actor.py /app/actor.py\nCMD ["python", "/app/actor.py"]\n'


@pytest_asyncio.fixture
async def runtime(engine: str) -> AsyncIterator[DockerRuntime]:
    runtime = DockerRuntime(WORKER, shm_size=32 << 20)
    yield runtime
    for found in await runtime.found():
        await runtime.stop(found.handle, 0)
    await runtime.close()


@pytest.fixture(scope="module")
def actor(python39_image: str) -> ImageRef:
    build_image("hecaton-test/actor:1", ACTOR_DOCKERFILE, {"actor.py": ACTOR})
    return reference("hecaton-test/actor:1")


def inspect(handle: str) -> dict[str, Any]:
    (container,) = json.loads(docker("inspect", handle))
    assert isinstance(container, dict)
    return container


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Path]:
    """A folder with a file, and with another file system mounted below it."""
    folder = tmp_path / "data"
    (folder / "below").mkdir(parents=True)
    (folder / "file").write_text("given")
    subprocess.run(["mount", "-t", "tmpfs", "none", folder / "below"], check=True)
    (folder / "below/secret").touch()
    yield folder
    subprocess.run(["umount", folder / "below"], check=True)


async def run(runtime: DockerRuntime, spec: ContainerSpec) -> tuple[Exit, str]:
    """How it ended and everything it said, on the engine's log and on its own."""
    handle = await runtime.start(spec)
    exit = await runtime.wait(handle)
    output = await runtime.output(handle, 100_000) + (Path(spec.folder) / "log").read_bytes()
    await runtime.stop(handle, 0)
    return exit, output.decode()


class TestContract(RuntimeContract):
    @pytest_asyncio.fixture
    async def reborn(self, engine: str) -> AsyncIterator[DockerRuntime]:
        runtime = DockerRuntime(WORKER)
        yield runtime
        await runtime.close()

    @pytest_asyncio.fixture
    async def stranger(self, engine: str) -> AsyncIterator[DockerRuntime]:
        runtime = DockerRuntime("another-worker")
        yield runtime
        await runtime.close()

    @pytest.fixture
    def missing(self, registry: Registry) -> str:
        return f"{registry.address}/no/such:image"

    async def test_containers_are_confined(
        self, runtime: DockerRuntime, start: Start, channel: Path, tmp_path: Path
    ) -> None:
        host = inspect(await start(SLEEP))["HostConfig"]
        assert sorted(host["SecurityOpt"]) == ["label=disable", "no-new-privileges"]
        assert host["CapDrop"] == ["NET_RAW"]
        assert (host["PidsLimit"], host["Init"], host["Privileged"]) == (4096, True, False)
        assert host["LogConfig"] == {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "2"}}
        assert host["ShmSize"] == 32 << 20
        assert host["RestartPolicy"]["Name"] == "no"
        assert not host["ReadonlyRootfs"]
        mounts = {mount["Target"]: (mount["Source"], mount.get("ReadOnly", False)) for mount in host["Mounts"]}
        assert mounts == {
            CHANNEL_TARGET: (str(channel), True),
            f"{CHANNEL_TARGET}/log": (str(channel / "log"), False),
            f"{CHANNEL_TARGET}/out": (str(channel / "out"), False),
            PYTHON_TARGET: (str(python_mount.build(tmp_path / "state")), True),
        }

    async def test_of_its_channel_folder_it_may_change_what_is_its_own(
        self, runtime: DockerRuntime, start: Start, channel: Path
    ) -> None:
        """It is root in there."""
        program = (
            "import os, shutil\nd = os.environ['HECATON_DIR']\nsaid = {}\n"
            "for name, do in {\n"
            "    'new': lambda: open(d + '/new', 'w'),\n"
            "    'in': lambda: shutil.rmtree(d + '/in'),\n"
            "    'in/new': lambda: open(d + '/in/new', 'w'),\n"
            "    'log gone': lambda: os.unlink(d + '/log'),\n"
            "    'out moved': lambda: os.rename(d + '/out', d + '/old'),\n"
            "    'out moved within': lambda: os.rename(d + '/out', d + '/out/out'),\n"
            "    'mode': lambda: os.chmod(d, 0),\n"
            "    'log': lambda: open(d + '/log', 'a').write('printed'),\n"
            "    'out/new': lambda: open(d + '/out/new', 'w').write('written'),\n"
            "}.items():\n"
            "    try:\n        do()\n"
            "    except OSError as error:\n        said[name] = error.errno\n"
            "open(d + '/out/said', 'w').write(repr(said))"
        )
        await runtime.wait(await start(program))
        refused = {"new", "in", "in/new", "log gone", "out moved", "out moved within", "mode"}
        assert ast.literal_eval((channel / "out/said").read_text()).keys() == refused
        assert (channel / "log").read_text() == "printed"
        assert sorted(os.listdir(channel)) == ["in", "log", "out", "python"]

    async def test_of_a_folder_that_it_may_read_it_changes_nothing_and_sees_no_mount_below(
        self, runtime: DockerRuntime, start: Start, data: Path
    ) -> None:
        program = (
            "assert open('/mnt/data/file').read() == 'given' and os.listdir('/mnt/data/below') == []\n"
            "for path in ('/mnt/data/file', '/mnt/data/new', '/mnt/data/below/new'):\n"
            "    try:\n        open(path, 'w')\n"
            "    except OSError as error:\n        assert error.errno == 30\n"
            "    else:\n        raise SystemExit(3)"
        )
        handle = await start(program, binds=(Bind(str(data), "/mnt/data", True),))
        assert await runtime.wait(handle) == Exit(0), await runtime.output(handle, 5000)

    async def test_a_slot_without_a_card_sees_none(self, runtime: DockerRuntime, start: Start) -> None:
        container = inspect(await start(SLEEP, env={"NVIDIA_VISIBLE_DEVICES": "all"}))
        assert not container["HostConfig"]["DeviceRequests"]
        assert "NVIDIA_VISIBLE_DEVICES=void" in container["Config"]["Env"]
        assert "NVIDIA_VISIBLE_DEVICES=all" not in container["Config"]["Env"]

    async def test_an_image_with_a_user_of_its_own_works(
        self, runtime: DockerRuntime, actor: ImageRef, tmp_path: Path
    ) -> None:
        build_image("hecaton-test/nobody:1", f"FROM {actor.name}\nUSER 65534:65534")
        program = (
            "import hecaton.serverless; d = os.environ['HECATON_DIR']; open(d + '/out/x', 'w').write(str(os.getuid()));"
            " open(d + '/log', 'a').write('logged')"
        )
        spec = await spec_for(runtime, reference("hecaton-test/nobody:1"), tmp_path, env={"PROGRAM": program})
        assert await run(runtime, spec) == (Exit(0), "logged")
        assert (Path(spec.folder) / "out/x").read_text() == "65534"


class TestPython:
    """`hecaton.serverless` in an image: its own when it has one, else the worker's."""

    WHERE = "import hecaton.serverless as s; print(s.__file__)"

    async def where(self, runtime: DockerRuntime, tmp_path: Path, dockerfile: str) -> str:
        build_image("hecaton-test/where:1", f"{dockerfile}\nCMD []")
        commands = (CommandLine(("python", "-c", self.WHERE)),)
        spec = await spec_for(runtime, reference("hecaton-test/where:1"), tmp_path, commands=commands)
        exit, output = await run(runtime, spec)
        assert exit == Exit(0), output
        return output.strip()

    async def test_is_mounted_where_there_is_none(
        self, runtime: DockerRuntime, tmp_path: Path, python39_image: str
    ) -> None:
        assert await self.where(runtime, tmp_path, f"FROM {python39_image}") == (
            f"{PYTHON_TARGET}/hecaton/serverless/__init__.py"
        )

    async def test_is_the_images_own_where_it_was_installed(
        self, runtime: DockerRuntime, tmp_path: Path, python39_image: str
    ) -> None:
        where = await self.where(runtime, tmp_path, f"FROM {python39_image}\nRUN pip install hecaton")
        assert where == "/usr/local/lib/python3.9/site-packages/hecaton/serverless/__init__.py"

    async def test_comes_after_the_images_own_python_path(
        self, runtime: DockerRuntime, tmp_path: Path, python39_image: str
    ) -> None:
        own = (
            f"FROM {python39_image}\nENV PYTHONPATH=/own\nRUN mkdir -p /own/hecaton && touch /own/hecaton/serverless.py"
        )
        own += " /own/hecaton/__init__.py"
        assert await self.where(runtime, tmp_path, own) == "/own/hecaton/serverless.py"


class TestCommands:
    async def test_the_first_one_that_the_image_has_is_run(
        self, runtime: DockerRuntime, actor: ImageRef, tmp_path: Path
    ) -> None:
        for word in ("first", "second"):  # the second time the answer is known; the arguments are the new ones
            commands = tuple(
                CommandLine((python, "-c", f"print('{word}')"))
                for python in ("/no/such/python", "no-such-python", "python3")
            )
            spec = await spec_for(runtime, actor, tmp_path, commands=commands)
            assert await run(runtime, spec) == (Exit(0), f"{word}\n")

    async def test_an_image_without_any_of_them_is_told_so(
        self, runtime: DockerRuntime, base_image: str, tmp_path: Path
    ) -> None:
        commands = (CommandLine(("python3", "x")), CommandLine(("python", "x")))
        spec = await spec_for(runtime, reference(base_image), tmp_path, commands=commands)
        with pytest.raises(RuntimeFault, match="no python3 or python in hecaton-test/base") as fault:
            await runtime.start(spec)
        assert fault.value.reason == Reason.STARTUP_EXIT
        assert await runtime.found() == []

    async def test_the_entrypoint_runs_what_it_is_given_or_is_left_out(
        self, runtime: DockerRuntime, base_image: str, tmp_path: Path
    ) -> None:
        image = reference("hecaton-test/env-entrypoint:1")
        build_image(
            image.name, f'FROM {base_image}\nENTRYPOINT ["env", "MADE=yes"]\nCMD ["sh", "-c", "echo own $MADE"]'
        )
        own, shell, direct = (
            None,
            CommandLine(("sh", "-c", "echo $MADE"), True),
            CommandLine(("sh", "-c", "echo $MADE")),
        )
        for asked, command, said in (
            ("image", own, "own yes"), ("image", shell, "yes"), ("image", direct, ""),
            ("none", own, "own"), ("none", shell, ""),
        ):  # fmt: skip
            commands = None if command is None else (command,)
            options = Options(entrypoint=asked)
            spec = await spec_for(runtime, image, tmp_path, commands=commands, options=options)
            assert await run(runtime, spec) == (Exit(0), f"{said}\n"), (asked, command)

    async def test_a_file_runs_where_the_whole_root_is_read_only(
        self, runtime: DockerRuntime, base_image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As a site may have its engine do: neither the mounts nor the launcher need a place of the image's."""
        made = configuration

        def read_only(*asked: Any) -> dict[str, Any]:
            config = made(*asked)
            config["HostConfig"]["ReadonlyRootfs"] = True
            return config

        monkeypatch.setattr(docker_runtime, "configuration", read_only)
        words = ("/bin/sh", SHELL_LAUNCHER, "-", "bash,sh", f"{CHANNEL_TARGET}/in/job.sh")
        spec = await spec_for(runtime, reference(base_image), tmp_path, commands=(CommandLine(words, True),))
        (Path(spec.folder) / "in/job.sh").write_text("touch /written 2>/dev/null || echo cannot write")
        os.mkfifo(Path(spec.folder) / LAUNCHED_NAME)
        assert await run(runtime, spec) == (Exit(0), "cannot write\n")

    async def test_an_image_without_a_command_gets_a_hint(
        self, runtime: DockerRuntime, engine: str, tmp_path: Path
    ) -> None:
        build_image("hecaton-test/empty:1", "FROM scratch\nCOPY x /x", {"x": b"x"})
        spec = await spec_for(runtime, reference("hecaton-test/empty:1"), tmp_path)
        assert spec.image.command == spec.image.entrypoint == ()
        with pytest.raises(RuntimeFault, match="no command of its own") as fault:
            await runtime.start(spec)
        assert fault.value.reason == Reason.STARTUP_EXIT
        assert "hecaton.serverless.start" in str(fault.value.hint)

    async def test_a_command_that_is_not_in_the_image_is_named(
        self, runtime: DockerRuntime, base_image: str, tmp_path: Path
    ) -> None:
        build_image("hecaton-test/wrong:1", f'FROM {base_image}\nCMD ["/no/such/thing"]')
        exit, output = await run(runtime, await spec_for(runtime, reference("hecaton-test/wrong:1"), tmp_path))
        assert exit.code == 127
        assert "/no/such/thing" in output

    async def test_an_unknown_user_is_the_images_fault(
        self, runtime: DockerRuntime, base_image: str, tmp_path: Path
    ) -> None:
        build_image("hecaton-test/user:1", f"FROM {base_image}\nUSER ghost")
        with pytest.raises(RuntimeFault, match="ghost") as fault:
            await runtime.start(await spec_for(runtime, reference("hecaton-test/user:1"), tmp_path))
        assert fault.value.reason == Reason.STARTUP_EXIT
        assert await runtime.found() == []


@pytest.mark.parametrize(
    ("entrypoint", "command", "init"),
    [
        ((), ("python", "x.py"), True),
        (("/init",), (), False),
        (("/usr/bin/tini", "-g", "--"), ("python", "x.py"), False),
        (("dumb-init", "--"), (), False),
        (("/entrypoint.sh",), ("/init",), True),
        ((), ("/sbin/my_init",), False),
    ],
)
async def test_an_entrypoint_that_is_an_init_process_is_process_1(
    runtime: DockerRuntime, actor: ImageRef, tmp_path: Path, entrypoint: tuple[str, ...], command: tuple[str, ...],
    init: bool,
) -> None:  # fmt: skip
    spec = await spec_for(runtime, actor, tmp_path)
    spec = msgspec.structs.replace(spec, image=Prepared("id", {}, entrypoint, command))
    assert configuration(spec, WORKER, 1 << 20)["HostConfig"]["Init"] is init
    left_out = msgspec.structs.replace(spec, options=Options(entrypoint="none"))
    assert configuration(left_out, WORKER, 1 << 20)["HostConfig"]["Init"] is not is_init(command)


@pytest.mark.parametrize(
    ("entrypoint", "env", "told"),
    [
        (("/usr/bin/dumb-init", "--"), {}, True),
        (("/usr/bin/dumb-init", "-c", "--"), {}, False),
        (("/usr/bin/dumb-init", "--"), {"DUMB_INIT_SETSID": "0"}, False),
        (("/init",), {}, False),
        ((), {"DUMB_INIT_SETSID": "0"}, True),
    ],
)
async def test_a_launcher_waits_for_its_group_where_a_signal_reaches_that(
    runtime: DockerRuntime, actor: ImageRef, tmp_path: Path, entrypoint: tuple[str, ...], env: dict[str, str],
    told: bool,
) -> None:  # fmt: skip
    spec = await spec_for(runtime, actor, tmp_path)
    spec = msgspec.structs.replace(spec, image=Prepared("id", env, entrypoint, ("sh", "-c", "true")))
    assert (f"{GROUP_VARIABLE}=1" in configuration(spec, WORKER, 1 << 20)["Env"]) is told


async def test_a_stop_reaches_what_a_shell_waits_for(runtime: DockerRuntime, actor: ImageRef, tmp_path: Path) -> None:
    """bash waits for its child before it looks at a signal, and most do not forward it."""
    child = "import signal, sys; signal.signal(15, lambda *_: print('saved', flush=True) or sys.exit()); " + SLEEP
    script = 'trap "echo shell told; exit 3" TERM; python -c "$CHILD"; exit 4'
    commands = (CommandLine(("bash", "-c", script)),)
    spec = await spec_for(runtime, actor, tmp_path, commands=commands, env={"CHILD": "import os; " + child})
    handle = await runtime.start(spec)
    await until((Path(spec.folder) / "out/up").exists)
    docker("kill", "--signal", "TERM", handle)
    assert await runtime.wait(handle) == Exit(3)
    assert (await runtime.output(handle, 1000)).split() == [b"saved", b"shell", b"told"]


async def test_a_container_asks_for_its_own_card_only(runtime: DockerRuntime, actor: ImageRef, tmp_path: Path) -> None:
    config = configuration(await spec_for(runtime, actor, tmp_path, gpus=("GPU-0001",)), WORKER, 1 << 20)
    assert config["HostConfig"]["DeviceRequests"] == [
        {"Driver": "nvidia", "DeviceIDs": ["GPU-0001"], "Capabilities": [["gpu"]]}
    ]
    assert "NVIDIA_VISIBLE_DEVICES=GPU-0001" in config["Env"]


async def test_a_card_that_the_engine_cannot_give_is_the_workers_fault(
    runtime: DockerRuntime, actor: ImageRef, tmp_path: Path
) -> None:
    with pytest.raises(RuntimeFault, match=r"GPU|device") as fault:
        await runtime.start(await spec_for(runtime, actor, tmp_path, gpus=("GPU-0001",)))
    assert fault.value.reason == Reason.WORKER_ERROR
    assert await runtime.found() == []


async def test_a_name_that_is_taken_blocks_nothing(runtime: DockerRuntime, actor: ImageRef, tmp_path: Path) -> None:
    env = {"PROGRAM": "pass"}
    first, second = [await spec_for(runtime, actor, tmp_path, name="hecaton-test-twice", env=env) for _ in range(2)]
    handles = [await runtime.start(first), await runtime.start(second)]
    assert [await runtime.wait(handle) for handle in handles] == [Exit(0), Exit(0)]


async def test_a_start_that_is_cancelled_leaves_nothing(
    runtime: DockerRuntime, actor: ImageRef, tmp_path: Path
) -> None:
    spec = await spec_for(runtime, actor, tmp_path, env={"PROGRAM": SLEEP})
    for delay in (0.0, 0.01, 0.1):
        starting = asyncio.create_task(runtime.start(spec))
        await asyncio.sleep(delay)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert await runtime.found() == []


async def test_running_out_of_memory_is_told(runtime: DockerRuntime, actor: ImageRef, tmp_path: Path) -> None:
    program = "import time; go = os.environ['HECATON_DIR'] + '/in/go'\nwhile not os.path.exists(go): time.sleep(0.01)\n"
    spec = await spec_for(runtime, actor, tmp_path, env={"PROGRAM": program + "x = b'x' * (1 << 30)"})
    handle = await runtime.start(spec)
    docker("update", "--memory", "64m", "--memory-swap", "64m", handle)
    (Path(spec.folder) / "in/go").touch()
    assert await runtime.wait(handle) == Exit(137, oom=True)


async def test_removing_a_container_by_hand_ends_the_wait(
    runtime: DockerRuntime, actor: ImageRef, tmp_path: Path
) -> None:
    handle = await runtime.start(await spec_for(runtime, actor, tmp_path, env={"PROGRAM": SLEEP}))
    waiting = asyncio.create_task(runtime.wait(handle))
    await asyncio.to_thread(docker, "rm", "--force", handle)
    assert (await asyncio.wait_for(waiting, 10)).code in (137, -1)  # killed, and then gone
    await runtime.stop(handle, 1)


async def test_check_names_the_engine(runtime: DockerRuntime, engine: str, tmp_path: Path) -> None:
    assert (await runtime.check(tmp_path)).startswith(f"Docker {engine}, ")


async def test_a_machine_without_an_engine_is_told_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nothing.sock")
    runtime = DockerRuntime(WORKER)
    with pytest.raises(RuntimeFault, match=r"nothing\.sock cannot be reached") as fault:
        await runtime.check(tmp_path)
    assert "Is Docker installed and running" in str(fault.value.hint)
    await runtime.close()


async def test_the_probe_runs_on_any_image_and_fails_where_the_machine_does(
    runtime: DockerRuntime, base_image: str, tmp_path: Path
) -> None:
    """An image without Python, and a folder that the engine cannot mount."""
    await runtime.start(await spec_for(runtime, reference(base_image), tmp_path, commands=(CommandLine(("true",)),)))
    spec = await spec_for(runtime, reference(base_image), tmp_path, commands=(CommandLine(("true",)),))
    assert await runtime._starts_what_ran_before(spec) is True
    gone = msgspec.structs.replace(spec, folder=str(tmp_path / "gone"))
    with pytest.raises(MachineBroken, match="bind source path does not exist"):
        await runtime.start(gone)
