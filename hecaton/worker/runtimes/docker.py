"""Runs containers on a Docker engine: the worker's default runtime."""

from __future__ import annotations

import asyncio
import json
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
from aiodocker import DockerError
from aiodocker.containers import DockerContainer

from hecaton.core.model import Mode, Reason
from hecaton.wire.channel import ImageRef
from hecaton.worker.runtimes.docker_config import cdi_name, configuration, probe
from hecaton.worker.runtimes.docker_engine import CONFLICT, NOT_FOUND, Engine, Streams
from hecaton.worker.runtimes.docker_faults import exit_of, folder_unseen, start_fault
from hecaton.worker.runtimes.docker_images import Images
from hecaton.worker.runtimes.docker_names import NameEvents
from hecaton.worker.runtimes.port import (
    CHANNEL_TARGET,
    LABEL_WORKER,
    CommandLine,
    ContainerSpec,
    Exit,
    Found,
    Here,
    MachineBroken,
    Prepared,
    ProcMark,
    RuntimeFault,
)
from hecaton.worker.runtimes.starting import (
    DEFAULT_SHM_SIZE,
    Executables,
)

_SHORT_SECONDS = 20.0
_START_SECONDS = 120.0
_REMOVE_SECONDS = 60.0
_ALREADY_STOPPED = (NOT_FOUND, CONFLICT)
_RUNNING = ("running", "paused", "restarting")
_ENDED = ("exited", "dead")

T = TypeVar("T")


class DockerRuntime:
    """`shm_size`: bytes of /dev/shm per container. A handle is the engine's container id. On one event loop, that on
    which it was first asked something."""

    name = "docker"
    serves = None
    doors = frozenset(Mode)
    options = frozenset({"cpus", "entrypoint", "env", "memory", "mount", "port", "ready", "shm"})

    def __init__(self, worker_id: str, *, shm_size: int = DEFAULT_SHM_SIZE) -> None:
        self._worker_id = worker_id
        self._shm_size = shm_size
        self._engine = Engine()
        self._images = Images(self._engine)
        self._names = NameEvents(self._engine)
        self._executables = Executables()
        self._ran_last: str | None = None  # id of an image
        self._named: frozenset[str] = frozenset()  # devices that the engine gives by CDI

    async def check(self, folder: Path, cards: Sequence[str] = ()) -> str:
        try:
            podman = await self._ask("tell its version", self._engine.is_podman())
            if podman and cards:
                raise _drops_cards(len(cards))
            info = await self._ask("tell its version", self._engine.client.system.info())
        except DockerError as error:
            raise _refused(error) from error
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".seen-") as file:
            if (fault := await self._unseen(Path(file.name))) is not None:
                raise fault
        return f"Docker {info['ServerVersion']}, {info['Driver']}"

    async def sees(self, path: Path) -> bool:
        return await self._unseen(path) is None

    async def _unseen(self, path: Path) -> RuntimeFault | None:
        """Why the engine does not see this where the worker does. It looks for what is to be mounted before it looks
        for the image, and of that there is none."""
        mounts = [{"Type": "bind", "Source": str(path), "Target": CHANNEL_TARGET, "ReadOnly": True}]
        config: dict[str, Any] = {"Image": "hecaton.invalid/nothing:none", "HostConfig": {"Mounts": mounts}}
        try:
            made = await self._ask("create a container", self._engine.client.containers.create(config))
        except DockerError as error:
            return folder_unseen(path.parent, error)
        await self._discard(made)
        return None

    async def prepare(self, image: ImageRef, note: Callable[[str], None]) -> Prepared:
        return await self._images.prepare(image, note)

    async def here(self, image: ImageRef) -> Here | None:
        return await self._images.here(image)

    async def resolve(self, name: str) -> str:
        return await self._images.resolve(name)

    async def until_names_move(self) -> None:
        await self._names.until_moved()

    async def start(self, spec: ContainerSpec) -> str:
        """Two calls to the engine. A start that is cancelled is brought to its end and removed: no orphan stays."""
        starting = asyncio.create_task(self._start(spec))
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            with suppress(RuntimeFault):
                await self.stop(await starting, 0)
            raise

    async def wait(self, handle: str) -> Exit:
        container = self._engine.client.containers.container(handle)
        interrupted = False
        pause = 0.05
        while True:
            try:
                state = (await self._ask("inspect a container", container.show()))["State"]
                if not state["Running"]:
                    return exit_of(state, interrupted or not await self._engine.takes_connections())
                interrupted, pause = False, 0.05
                await container.wait()
                continue
            except DockerError as error:
                if error.status == NOT_FOUND:
                    return Exit(-1, error="the container was removed by somebody else")
            except (RuntimeFault, aiohttp.ClientError, OSError, ValueError, LookupError):
                pass  # the engine went away; it is asked again when it is back
            interrupted = True
            await asyncio.sleep(pause)
            pause = min(2 * pause, 2.0)

    async def network(self, handle: str) -> int:
        return await self._engine.network_of(handle, _SHORT_SECONDS)

    async def stop(self, handle: str, grace: float) -> None:
        container = self._engine.client.containers.container(handle)
        if grace > 0:
            try:
                await self._ask("signal a container", container.kill(signal="SIGTERM"))
                async with asyncio.timeout(grace):
                    await container.wait()
            except DockerError as error:
                if error.status not in _ALREADY_STOPPED:
                    raise _refused(error) from error
            except (RuntimeFault, aiohttp.ClientError, OSError, ValueError):
                pass  # the engine went away, or the time is over: what follows is the force
        await self._remove(container)

    async def output(self, handle: str, limit: int) -> bytes:
        params = {"stdout": "1", "stderr": "1", "tail": "400"}
        try:
            raw = await self._ask("give a container's log", self._engine.read(f"containers/{handle}/logs", params))
        except DockerError as error:
            if error.status == NOT_FOUND:
                return b""
            raise _refused(error) from error
        return b"".join(Streams().feed(raw))[-limit:] if limit > 0 else b""

    async def follow(self, handle: str, since: float = 0.0) -> AsyncIterator[bytes]:
        params = {"stdout": "1", "stderr": "1", "follow": "1", "since": f"{since:.9f}"}
        streams = Streams()
        with suppress(DockerError, aiohttp.ClientError, OSError, ValueError):  # the engine went away: so does this
            async for raw in self._engine.stream(f"containers/{handle}/logs", params):
                for text in streams.feed(raw):
                    yield text

    def mark(self, container: str) -> ProcMark:
        """Each sees its channel folder, which has the container's name on this host."""
        return ProcMark("mountinfo", f"/{container} {CHANNEL_TARGET} ")

    def unreachable(self) -> str | None:
        return self._engine.unreachable()

    async def found(self) -> list[Found]:
        filters = json.dumps({"label": [f"{LABEL_WORKER}={self._worker_id}"]})
        try:
            listed = await self._ask(
                "list its containers", self._engine.client.containers.list(all="true", filters=filters)
            )
        except DockerError as error:
            raise _refused(error) from error
        return [
            Found(entry.id, entry["Labels"], entry["State"] in _RUNNING, entry["State"] in _ENDED, entry["ImageID"])
            for entry in listed
        ]

    async def close(self) -> None:
        await self._names.close()
        await self._engine.close()

    # -- starting ----------------------------------------------------------------------------------

    async def _start(self, spec: ContainerSpec) -> str:
        """Whose fault is it if that fails? What the engine says decides only where it can mean one thing. Else the
        image that ran here last does, on the same card: if it does not start, it is the machine; if it does, and this
        one still does not, it is this image."""
        try:
            return await self._make(spec)
        except DockerError as error:
            fault = start_fault(spec.image_name, error)
            if fault is not None and fault.reason is not Reason.WORKER_ERROR:
                raise fault from error
            starts = await self._starts_what_ran_before(spec)
            if not starts:
                fault = fault or _refused(error)
                kind = MachineBroken if starts is False else RuntimeFault
                raise kind(fault.reason, fault.message, fault.hint) from error
        try:
            return await self._make(spec)
        except DockerError as error:
            text = f"{spec.image_name} cannot be started, though another image can: {error.message}"
            raise RuntimeFault(Reason.STARTUP_EXIT, text) from error

    async def _make(self, spec: ContainerSpec) -> str:
        known = self._executables.known(spec)
        container = await self._create(spec, known or (spec.commands[0] if spec.commands else None))
        try:
            if spec.commands and known is None:
                command = await self._find_command(container, spec)
                if command != spec.commands[0]:
                    await self._remove(container)
                    container = await self._create(spec, command)
            await self._engine.call("start a container", container.start(), _START_SECONDS)
        except DockerError:
            await self._discard(container)
            raise
        except RuntimeFault as fault:
            await self._discard(container)
            # Not EngineAway: it may have started all the same, and may be at work until it is found and removed.
            raise RuntimeFault(fault.reason, fault.message, fault.hint) from fault
        self._ran_last = spec.image.image_id
        return container.id

    async def _create(self, spec: ContainerSpec, command: CommandLine | None) -> DockerContainer:
        config = configuration(spec, self._worker_id, self._shm_size, command, await self._by_cdi(spec))
        containers = self._engine.client.containers
        try:
            return await self._ask("create a container", containers.create(config, name=spec.name))
        except DockerError as error:
            if error.status != CONFLICT:
                raise
            name = f"{spec.name}-{uuid.uuid4().hex[:8]}"  # the name is for people: a clash must not block a job
            return await self._ask("create a container", containers.create(config, name=name))

    async def _by_cdi(self, spec: ContainerSpec) -> bool:
        """Does the engine know the cards of this container by their CDI names? Those that it did not know a moment ago
        may have come with a new driver."""
        asked = {cdi_name(uuid) for uuid in spec.gpus}
        if not asked <= self._named:
            self._named = await self._ask("list its devices", self._engine.given_by_name())
        return bool(asked) and asked <= self._named

    async def _starts_what_ran_before(self, spec: ContainerSpec) -> bool | None:
        """None: nobody can tell. Nothing has run here yet, or the engine is away."""
        if self._ran_last is None:
            return None
        try:
            config = probe(spec, self._worker_id, self._ran_last, await self._by_cdi(spec))
            name = f"{spec.name}-probe-{uuid.uuid4().hex[:8]}"
            container = await self._ask("create a container", self._engine.client.containers.create(config, name=name))
            try:
                await self._engine.call("start a container", container.start(), _START_SECONDS)
            finally:
                await self._discard(container)
        except DockerError as error:
            return None if error.status in _ALREADY_STOPPED else False  # somebody has removed the image, or the probe
        except RuntimeFault:
            return None
        return True

    async def _find_command(self, container: DockerContainer, spec: ContainerSpec) -> CommandLine:
        """Before the start: with an init process in front, a missing executable is no error of the engine."""

        async def exists(file: str) -> bool:
            return await self._ask("look into a container", self._engine.exists(container.id, file))

        return await self._executables.find(spec, exists)

    # -- ending ------------------------------------------------------------------------------------

    async def _remove(self, container: DockerContainer) -> None:
        """Kill and remove; returns when the engine does not know it any more. Anonymous volumes go with it."""
        deadline = asyncio.get_running_loop().time() + _REMOVE_SECONDS
        while True:
            try:
                await self._ask("remove a container", container.delete(force=True, v=True))
                return
            except DockerError as error:
                if error.status == NOT_FOUND:
                    return
                fault = _refused(error)  # CONFLICT: somebody else is removing it already
            except RuntimeFault as silent:
                fault = silent
            if asyncio.get_running_loop().time() > deadline:
                raise fault
            await asyncio.sleep(0.1)

    async def _discard(self, container: DockerContainer) -> None:
        with suppress(RuntimeFault):
            await self._remove(container)

    async def _ask(self, what: str, call: Coroutine[Any, Any, T]) -> T:
        return await self._engine.call(what, call, _SHORT_SECONDS)


def _drops_cards(count: int) -> RuntimeFault:
    return RuntimeFault(
        Reason.WORKER_ERROR,
        f"this engine is Podman, which starts containers without the cards that are asked for, and says nothing of it;"
        f" this machine has {count}",
        "Install Docker and the NVIDIA container toolkit here, and stop podman.socket or set DOCKER_HOST to Docker's.",
    )


def _refused(error: DockerError) -> RuntimeFault:
    return RuntimeFault(Reason.WORKER_ERROR, f"the Docker engine refused: {error.message}")


__all__ = ["DockerRuntime"]
