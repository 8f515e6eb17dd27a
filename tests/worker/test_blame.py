"""Whose fault it is that a container does not start: what the engine says, and what the image that ran last shows. The
engine is one of our own that speaks Docker's API and refuses as it is told."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiodocker import DockerError
from aiohttp import web

from hecaton.core.model import Reason
from hecaton.worker.runtimes import starting
from hecaton.worker.runtimes.docker import DockerRuntime
from hecaton.worker.runtimes.docker_faults import start_fault
from hecaton.worker.runtimes.port import ContainerSpec, MachineBroken, Prepared, RuntimeFault
from tests.contracts.runtime_contract import WORKER, reference

HOOK = "OCI runtime create failed: runc create failed: error running prestart hook #0: exit status 1, stderr: "
MACHINES = {
    f"{HOOK}nvidia-container-cli: initialization error: nvml error: driver/library version mismatch": "reboot it",
    f'{HOOK}exec: "nvidia-container-cli": executable file not found in $PATH': "nvidia-smi",
    'could not select device driver "" with capabilities: [[gpu]]': "NVIDIA Container Toolkit",
    "OCI runtime create failed: Failed to initialize NVML: Unable to initialize NVML": "nvidia-smi",
    "unknown or invalid runtime name: nvidia": "/etc/docker/daemon.json",
    'OCI runtime create failed: error mounting "/usr/bin/docker-init" to rootfs at "/sbin/docker-init"': "tini",
    "mkdir /var/lib/docker/overlay2/x-init: no space left on device": "docker system prune",
    "OCI runtime create failed: cgroups: cgroup mountpoint does not exist: unknown": "restart Docker",
    "OCI runtime create failed: fork/exec /proc/self/exe: resource temporarily unavailable": "ulimit",
    'invalid mount config for type "bind": bind source path does not exist: /var/lib/x': "-v /var/lib/hecaton",
}
IMAGES = [
    'OCI runtime create failed: container_linux.go:380: caused: exec: "serve": executable file not found in $PATH',
    'OCI runtime create failed: exec: "/app": stat /app: no such file or directory: unknown',
    'OCI runtime create failed: exec: "/app/run.sh": permission denied: unknown',
    "unable to find user app: no matching entries in passwd file",
    'OCI runtime create failed: chdir to cwd ("/gone") set in config.json failed: no such file or directory',
    "no command specified",
]


@pytest.mark.parametrize("status", [400, 500])
@pytest.mark.parametrize("text", MACHINES)
def test_known_faults_of_machines_are_theirs_and_have_a_hint(text: str, status: int) -> None:
    fault = start_fault("app:1", DockerError(status, text))
    assert fault is not None
    assert fault.reason is Reason.WORKER_ERROR
    assert MACHINES[text] in (fault.hint or "")


@pytest.mark.parametrize("text", IMAGES)
def test_what_is_not_in_the_image_is_the_images_fault(text: str) -> None:
    fault = start_fault("app:1", DockerError(400, text))
    assert fault is not None
    assert fault.reason is Reason.STARTUP_EXIT


@pytest.mark.parametrize("status", [400, 409, 500])
def test_what_nobody_knows_decides_nothing(status: int) -> None:
    assert start_fault("app:1", DockerError(status, "OCI runtime create failed: something new")) is None


def test_a_card_that_is_too_old_for_an_image_is_no_reason_to_fail_elsewhere() -> None:
    fault = start_fault("app:1", DockerError(500, f"{HOOK}requirement error: unsatisfied condition: cuda>=12.4"))
    assert fault is not None
    assert fault.reason is Reason.IMAGE_DENIED


class Engine:
    """`refusals`: what it says to starts of an image, one after the other; the last one for good. `made`: what it was
    asked to make."""

    def __init__(self) -> None:
        self.refusals: dict[str, list[str | None]] = {}
        self.made: list[dict[str, Any]] = []
        self.unseen = False
        self.version = "1.41"
        self.paths: list[str] = []
        self.pull: list[dict[str, Any]] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        _, version, *path = request.path.split("/")
        if version == "version" or path == ["version"]:
            return web.json_response({"ApiVersion": self.version, "MinAPIVersion": "1.24"})
        self.paths.append(request.path)
        if path == ["info"]:
            return web.json_response({"ServerVersion": "20.10", "Driver": "overlay2"})
        if path == ["containers", "create"]:
            return self._create(await request.json())
        if path == ["images", "create"]:
            return web.Response(body=b"".join(json.dumps(message).encode() + b"\n" for message in self.pull))
        if path[0] == "containers" and path[-1] == "start":
            image = self.made[int(path[1])]["Image"]
            told = self.refusals.get(image, [None])
            refusal = told.pop(0) if len(told) > 1 else told[0]
            return web.Response(status=204) if refusal is None else _refuse(500, refusal)
        if request.method == "DELETE":
            return web.Response(status=204)
        return _refuse(404, f"No such thing: {request.path}")

    def _create(self, config: dict[str, Any]) -> web.Response:
        if config["Image"].startswith("hecaton.invalid/"):
            source = config["HostConfig"]["Mounts"][0]["Source"]
            assert Path(source).exists()
            if self.unseen:
                return _refuse(400, f'invalid mount config for type "bind": bind source path does not exist: {source}')
            return _refuse(404, "No such image: hecaton.invalid/nothing:none")
        self.made.append(config)
        return web.json_response({"Id": str(len(self.made) - 1), "Warnings": []}, status=201)


def _refuse(status: int, text: str) -> web.Response:
    body = json.dumps({"message": text}).encode()
    return web.Response(body=body, status=status, headers={"Content-Type": "application/json"})  # as the engine says it


@pytest.fixture
async def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Engine]:
    engine = Engine()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", engine.handle)
    runner = web.AppRunner(application)
    await runner.setup()
    socket = f"{tmp_path}/engine.sock"
    await web.UnixSite(runner, socket).start()
    monkeypatch.setenv("DOCKER_HOST", f"unix://{socket}")
    yield engine
    await runner.cleanup()


@pytest.fixture
async def runtime(engine: Engine) -> AsyncIterator[DockerRuntime]:
    runtime = DockerRuntime(WORKER)
    yield runtime
    await runtime.close()


def spec(image: str, gpu: str | None = None) -> ContainerSpec:
    return ContainerSpec(
        id="c-1", name="hecaton-c-1", image=Prepared(image, {}), image_name=image, env={"TOKEN": "of the job"},
        labels={}, folder="/folder", python="/python", gpus=(gpu,) if gpu else (),
    )  # fmt: skip


async def refused(runtime: DockerRuntime, image: str) -> RuntimeFault:
    with pytest.raises(RuntimeFault) as fault:
        await runtime.start(spec(image, "GPU-1"))
    return fault.value


NEW = "OCI runtime create failed: something new"


async def test_a_machine_that_starts_not_even_what_ran_last_is_broken(runtime: DockerRuntime, engine: Engine) -> None:
    await runtime.start(spec("good"))
    engine.refusals = {"good": [NEW], "app": [NEW]}
    fault = await refused(runtime, "app")
    assert (type(fault), fault.reason) == (MachineBroken, Reason.WORKER_ERROR)
    assert NEW in fault.message


async def test_an_image_that_does_not_start_where_another_does_is_to_blame(
    runtime: DockerRuntime, engine: Engine
) -> None:
    await runtime.start(spec("good"))
    for text in (NEW, *MACHINES):  # also where it says what a machine's fault would be: its command may hold any words
        engine.refusals = {"app": [text]}
        fault = await refused(runtime, "app")
        assert (type(fault), fault.reason) == (RuntimeFault, Reason.STARTUP_EXIT)


async def test_a_moments_trouble_costs_nobody_anything(runtime: DockerRuntime, engine: Engine) -> None:
    await runtime.start(spec("good"))
    engine.refusals = {"app": [NEW, None]}
    assert await runtime.start(spec("app"))


async def test_where_nothing_has_run_yet_no_image_condemns_the_machine(runtime: DockerRuntime, engine: Engine) -> None:
    engine.refusals = {"app": [NEW]}
    fault = await refused(runtime, "app")
    assert (type(fault), fault.reason) == (RuntimeFault, Reason.WORKER_ERROR)


async def test_the_probe_has_the_card_and_nothing_of_the_job(runtime: DockerRuntime, engine: Engine) -> None:
    await runtime.start(spec("good"))
    engine.refusals = {"app": [NEW]}
    await refused(runtime, "app")
    probe = engine.made[2]
    assert (probe["Image"], probe["Entrypoint"], probe["Cmd"]) == ("good", ["/sbin/docker-init", "--version"], [])
    assert "of the job" not in json.dumps(probe)
    assert probe["HostConfig"]["DeviceRequests"] == [
        {"Driver": "nvidia", "DeviceIDs": ["GPU-1"], "Capabilities": [["gpu"]]}
    ]


async def test_known_faults_of_images_need_no_probe(runtime: DockerRuntime, engine: Engine) -> None:
    await runtime.start(spec("good"))
    engine.refusals = {"good": [NEW], "app": [IMAGES[0]]}
    assert (await refused(runtime, "app")).reason is Reason.STARTUP_EXIT
    assert len(engine.made) == 2


# -- what a worker says at its start, and other words of engines -----------------------------------


async def test_a_folder_that_the_engine_does_not_see_is_said_at_the_start(
    runtime: DockerRuntime, engine: Engine, tmp_path: Path
) -> None:
    assert await runtime.check(tmp_path) == "Docker 20.10, overlay2"
    engine.unseen = True
    with pytest.raises(RuntimeFault, match=f"does not see the worker's folder {tmp_path}") as fault:
        await runtime.check(tmp_path)
    assert "the same path on both sides" in (fault.value.hint or "")
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".seen-")]


@pytest.mark.parametrize(("engines", "spoken"), [("1.41", "v1.41"), ("1.44", "v1.44"), ("1.52", "v1.44")])
async def test_no_newer_version_of_the_api_is_spoken_than_has_been_tried(
    runtime: DockerRuntime, engine: Engine, tmp_path: Path, engines: str, spoken: str
) -> None:
    engine.version = engines
    await runtime.check(tmp_path)
    assert {path.split("/")[1] for path in engine.paths} == {spoken}


async def test_a_failed_pull_is_seen_in_the_field_that_newer_engines_fill(
    runtime: DockerRuntime, engine: Engine
) -> None:
    engine.pull = [{"status": "Pulling from app"}, {"errorDetail": {"message": "manifest unknown"}}]
    with pytest.raises(RuntimeFault, match="manifest unknown") as fault:
        await runtime.prepare(reference("app:1"), lambda text: None)
    assert fault.value.reason is Reason.IMAGE_DENIED


async def test_a_worker_in_a_container_without_an_engine_is_told_which_mount_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    monkeypatch.setattr(starting, "CONTAINER_MARKS", (str(tmp_path),))
    runtime = DockerRuntime(WORKER)
    with pytest.raises(RuntimeFault) as fault:
        await runtime.check(tmp_path)
    assert "-v /var/run/docker.sock:/var/run/docker.sock" in (fault.value.hint or "")
    await runtime.close()
