"""How a container is given its cards: by the names that the engine knows, and never by an engine that would leave them
out. The engine is a stand-in, which speaks as those do that are not here: Docker 28 and Podman."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web

from hecaton.worker.runtimes.docker import DockerRuntime
from hecaton.worker.runtimes.port import ContainerSpec, Prepared, RuntimeFault

CARD = "GPU-0001"


class Engine:
    """`version`: what it says of itself. `devices`: what it gives by name. `made`: the containers it was asked for."""

    def __init__(self) -> None:
        self.version: dict[str, Any] = {"ApiVersion": "1.50", "Components": [{"Name": "Engine"}]}
        self.devices: list[dict[str, str]] = []
        self.made: list[dict[str, Any]] = []
        self.asked: list[str] = []

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
        if request.path.endswith("/version"):
            return web.json_response(self.version)
        if request.path.endswith("/info"):
            info: dict[str, Any] = {"ServerVersion": "28.2.0", "Driver": "overlay2"}
            return web.json_response(info | {"DiscoveredDevices": self.devices} if "v1.50" in request.path else info)
        if request.path.endswith("/containers/create") and request.query.get("name"):
            self.made.append(await request.json())
            return web.json_response({"Id": "made"}, status=201)
        if request.path.endswith("/containers/create"):
            return web.json_response({"message": "no such image: none"}, status=404)
        return web.Response(status=204)


@pytest_asyncio.fixture
async def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Engine]:
    engine, app = Engine(), web.Application()
    app.router.add_route("*", "/{path:.*}", engine.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.UnixSite(runner, str(tmp_path / "engine.sock")).start()
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path / 'engine.sock'}")
    yield engine
    await runner.cleanup()


@pytest_asyncio.fixture
async def runtime(engine: Engine) -> AsyncIterator[DockerRuntime]:
    runtime = DockerRuntime("w-1")
    yield runtime
    await runtime.close()


@pytest.fixture
def spec(tmp_path: Path) -> Callable[..., ContainerSpec]:
    def of(*gpus: str) -> ContainerSpec:
        image = Prepared("sha256:1", {}, (), ("true",))
        return ContainerSpec("c-1", "name", image, "image", {}, {}, str(tmp_path), str(tmp_path), gpus)

    return of


async def test_a_card_is_given_by_its_name_where_the_engine_knows_it(
    engine: Engine, runtime: DockerRuntime, spec: Callable[..., ContainerSpec]
) -> None:
    engine.devices = [{"Source": "cdi", "ID": f"nvidia.com/gpu={CARD}"}]
    await runtime.start(spec(CARD))
    (made,) = engine.made
    assert made["HostConfig"]["DeviceRequests"] == [{"Driver": "cdi", "DeviceIDs": [f"nvidia.com/gpu={CARD}"]}]
    assert "NVIDIA_VISIBLE_DEVICES=void" in made["Env"]


async def test_of_a_card_that_it_does_not_know_by_name_the_driver_is_said(
    engine: Engine, runtime: DockerRuntime, spec: Callable[..., ContainerSpec]
) -> None:
    engine.devices = [{"Source": "cdi", "ID": f"nvidia.com/gpu={CARD}"}]
    await runtime.start(spec(CARD, "GPU-0002"))
    (made,) = engine.made
    (asked,) = made["HostConfig"]["DeviceRequests"]
    assert asked == {"Driver": "nvidia", "DeviceIDs": [CARD, "GPU-0002"], "Capabilities": [["gpu"]]}
    assert f"NVIDIA_VISIBLE_DEVICES={CARD},GPU-0002" in made["Env"]


async def test_a_name_that_comes_while_the_worker_runs_is_used(
    engine: Engine, runtime: DockerRuntime, spec: Callable[..., ContainerSpec]
) -> None:
    await runtime.start(spec(CARD))
    engine.devices = [{"Source": "cdi", "ID": f"nvidia.com/gpu={CARD}"}]
    await runtime.start(spec(CARD))
    assert [made["HostConfig"]["DeviceRequests"][0]["Driver"] for made in engine.made] == ["nvidia", "cdi"]


async def test_a_container_without_card_asks_for_none(
    engine: Engine, runtime: DockerRuntime, spec: Callable[..., ContainerSpec]
) -> None:
    engine.devices = [{"Source": "cdi", "ID": f"nvidia.com/gpu={CARD}"}]
    await runtime.start(spec())
    (made,) = engine.made
    assert made["HostConfig"]["DeviceRequests"] == []
    assert "NVIDIA_VISIBLE_DEVICES=void" in made["Env"]
    assert not any("info" in path for path in engine.asked)


async def test_an_engine_that_would_leave_the_cards_out_is_refused(
    engine: Engine, runtime: DockerRuntime, tmp_path: Path
) -> None:
    engine.version = {"ApiVersion": "1.41", "Components": [{"Name": "Podman Engine"}]}
    with pytest.raises(RuntimeFault, match="Podman, which starts containers without the cards") as fault:
        await runtime.check(tmp_path, [CARD])
    assert "Install Docker" in str(fault.value.hint)
    assert "28.2.0" in await runtime.check(tmp_path)
