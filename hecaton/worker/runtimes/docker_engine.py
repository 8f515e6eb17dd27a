"""The Docker runtime's connection to its engine: every call has a deadline; faults come in two kinds.

DockerError: the engine said no. EngineAway (worker_error): it did not answer, or not in time.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from typing import Any, TypeVar

import aiohttp
from aiodocker import Docker, DockerError

from hecaton.core.model import Reason
from hecaton.worker.runtimes.port import EngineAway, RuntimeFault
from hecaton.worker.runtimes.starting import in_container

DEFAULT_HOST = "unix:///var/run/docker.sock"
NOT_FOUND = 404
CONFLICT = 409
_UNREACHABLE = 900  # what aiodocker calls an engine that it cannot connect to
_DOOR_SECONDS = 2.0
NEWEST_API = (1, 44)
"""Of the versions that remove what is used here, the last one before: Podman's newest, and the oldest of Docker 29."""

DISCOVERS_API = (1, 50)
"""The first version that tells by which names devices can be had."""

_CONTAINER_HINT = (
    "This worker runs in a container: it needs the engine of its machine, -v /var/run/docker.sock:/var/run/docker.sock"
)
_START_HINT = "Is Docker installed and running on this machine, and may this user use it? (systemctl status docker)"

_CREDENTIALS = struct.Struct("3i")
_FRAME = struct.Struct("!4xI")

T = TypeVar("T")


class _CappedDocker(Docker):
    """Speaks the engine's version of the API, but no newer one than has been tried here."""

    newest: tuple[int, ...] = ()
    """Of the versions that the engine speaks; empty: it has not been asked yet."""

    async def _check_version(self) -> None:
        await super()._check_version()
        self.newest = self.newest or _version(self.api_version)
        if _version(self.api_version) > NEWEST_API:
            self.api_version = "v{}.{}".format(*NEWEST_API)


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.removeprefix("v").split(".") if part.isdigit())


class Engine:
    """The engine that DOCKER_HOST names, by default the one on this machine's socket. Connects with the first call."""

    def __init__(self) -> None:
        self.host = os.environ.get("DOCKER_HOST") or DEFAULT_HOST
        self._client: _CappedDocker | None = None
        self._connector: aiohttp.BaseConnector | None = None

    @property
    def client(self) -> _CappedDocker:
        if self._client is None:
            if self.host.startswith("unix://"):
                # No limit: each container keeps a connection that waits for its end.
                self._connector = aiohttp.UnixConnector(self.host.removeprefix("unix://"), limit=0)
                self._client = _CappedDocker(url="unix://localhost", connector=self._connector)
            else:
                self._client = _CappedDocker(url=self.host)
        return self._client

    async def call(self, what: str, call: Coroutine[Any, Any, T], seconds: float) -> T:
        """`what` completes the sentence "the engine did not ..."."""
        try:
            async with asyncio.timeout(seconds):
                return await call
        except TimeoutError:
            raise self.silent(f"did not {what} within {seconds:g} s") from None
        except DockerError as error:
            if error.status == _UNREACHABLE:
                raise self.silent("cannot be reached") from error
            raise
        except (aiohttp.ClientError, OSError, ValueError) as error:  # ValueError: an answer that was cut off
            raise self.silent(f"did not {what}: {error or type(error).__name__}") from error

    def silent(self, what: str) -> EngineAway:
        hint = f"{_START_HINT} {_CONTAINER_HINT}" if in_container() else _START_HINT
        return EngineAway(Reason.WORKER_ERROR, f"the Docker engine at {self.host} {what}", hint)

    async def read(self, path: str, params: Mapping[str, str]) -> bytes:
        """A raw answer that aiodocker would decode or keep whole as text."""
        async with self.client._query(path, params=dict(params)) as response:
            return await response.read()

    async def stream(self, path: str, params: Mapping[str, str]) -> AsyncIterator[bytes]:
        """A raw answer, piece by piece, however long it takes."""
        async with self.client._query(path, params=dict(params), timeout=aiohttp.ClientTimeout()) as response:
            async for piece in response.content.iter_any():
                yield piece

    async def given_by_name(self) -> frozenset[str]:
        """Names of the devices that the engine gives to containers by CDI; none: it has none, or is too old to tell."""
        client = self.client
        await client.version()  # it is asked for its versions with the first request
        if client.newest < DISCOVERS_API:
            return frozenset()
        url = client._canonicalize_url("v{}.{}/info".format(*DISCOVERS_API), versioned_api=False)
        async with client.session.get(url) as response:
            info = await response.json()
        found = info.get("DiscoveredDevices") or ()
        return frozenset(str(device["ID"]) for device in found if device.get("Source") == "cdi")

    async def is_podman(self) -> bool:
        """It speaks Docker's language, and leaves out what it does not understand of it."""
        parts = (await self.client.version()).get("Components") or ()
        return any("podman" in str(part.get("Name")).lower() for part in parts)

    async def exists(self, container: str, path: str) -> bool:
        """Whether a file is in a container, running or not."""
        # Past aiodocker, which trips over a refusal without a body. It knows the version since it made the container.
        url = self.client._canonicalize_url(f"containers/{container}/archive")
        async with self.client.session.head(url, params={"path": path}) as response:
            if response.status >= 500:
                raise DockerError(response.status, f"it cannot look for {path} in the container")
            return response.status == 200

    async def takes_connections(self) -> bool:
        """An engine that shuts down first closes its door, and then stops its containers, while it still answers
        whoever is connected. Asked anew, therefore; an address of another kind than a Unix socket is taken at its word.
        """
        if not self.host.startswith("unix://"):
            return True
        try:
            async with asyncio.timeout(_DOOR_SECONDS):
                reader, writer = await asyncio.open_unix_connection(self.host.removeprefix("unix://"))
                try:
                    writer.write(b"GET /_ping HTTP/1.0\r\n\r\n")
                    return bool(await reader.read(1))
                finally:
                    writer.close()
        except OSError:
            return False

    def unreachable(self) -> str | None:
        """Why this process could not end the containers' itself, as a sentence; None: it can. Judged by the process
        that has opened the engine's socket: the engine, or what starts it."""
        elsewhere = "its engine runs on another machine, or this worker in a container without --pid=host"
        if not self.host.startswith("unix://"):
            return elsewhere
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door:
                door.settimeout(_DOOR_SECONDS)
                door.connect(self.host.removeprefix("unix://"))
                pid, _, _ = _CREDENTIALS.unpack(
                    door.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
                )
        except OSError as error:
            return f"its engine cannot be looked at: {error}"
        try:
            if pid:
                os.kill(pid, 0)
        except OSError:
            return "its containers are root's and this worker is not"
        return None if pid else elsewhere

    async def network_of(self, container: str, seconds: float) -> int:
        """A descriptor of the network namespace of a running container. Raises RuntimeFault, OSError."""
        if (why := self.unreachable()) is not None:  # the numbers that it says are not those of this machine
            raise RuntimeFault(Reason.WORKER_ERROR, why)
        first = await self._process_of(container, seconds)
        namespace = os.open(f"/proc/{first}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            if await self._process_of(container, seconds) != first:  # another process may have its number by now
                raise RuntimeFault(Reason.WORKER_ERROR, "the container ended a moment ago")
        except BaseException:
            os.close(namespace)
            raise
        return namespace

    async def _process_of(self, container: str, seconds: float) -> int:
        try:
            shown = await self.call("inspect a container", self.client.containers.container(container).show(), seconds)
        except DockerError as error:
            raise RuntimeFault(Reason.WORKER_ERROR, f"the container cannot be looked at: {error.message}") from error
        if not shown["State"]["Running"]:
            raise RuntimeFault(Reason.WORKER_ERROR, "the container has ended")
        return int(shown["State"]["Pid"])

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()
        if self._connector is not None:
            await self._connector.close()
        self._client = self._connector = None


class Streams:
    """Frames of (stream, 0, 0, 0, length as 4 bytes) as the engine sends them for containers without a terminal."""

    def __init__(self) -> None:
        self._raw = bytearray()

    def feed(self, raw: bytes) -> Iterator[bytes]:
        """What is in the frames that are complete with it."""
        self._raw += raw
        while len(self._raw) >= _FRAME.size:
            end = _FRAME.size + _FRAME.unpack_from(self._raw)[0]
            if len(self._raw) < end:
                return
            yield bytes(self._raw[_FRAME.size : end])
            del self._raw[:end]


__all__ = ["CONFLICT", "NOT_FOUND", "Engine", "Streams"]
