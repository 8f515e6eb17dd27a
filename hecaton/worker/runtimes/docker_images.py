"""Has images at hand for the Docker runtime: finds them in the engine by digest or tag, pulls what is missing."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
from aiodocker import DockerError

from hecaton.core.model import Reason
from hecaton.wire.channel import ImageRef
from hecaton.worker.runtimes.docker_engine import NOT_FOUND, Engine
from hecaton.worker.runtimes.port import Prepared, RuntimeFault

STALL_SECONDS = 60.0
"""A pull that makes no progress for so long is given up."""

_PULL_HINT = (
    "Can the worker reach the registry, and has its disk room? An image that was never pushed has to be built or loaded"
    " on the worker itself."
)
_INSPECT_SECONDS = 20.0
_HUB_PREFIXES = ("index.docker.io/", "docker.io/")
_HUB_CREDENTIALS = "https://index.docker.io/v1/"

# The engine tells these apart by text only. The first list wins: "lookup ...: no such host ... not found" will pass.
_WILL_PASS = (
    "dial tcp", "lookup ", "timeout", "connection re", "toomanyrequests", "no space left", "handshake", "x509", "eof",
    "service unavailable", "bad gateway", "server error",
)  # fmt: skip
_WILL_NOT_PASS = (
    "not found", "manifest unknown", "does not exist", "denied", "unauthorized", "authentication required", "forbidden",
    "no matching manifest", "invalid reference", "name unknown", "not implemented", "unsupported",
)  # fmt: skip


class Images:
    """One pull at a time per image, shared by all who wait for it; given up when nobody waits any more."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._pulls: dict[str, _Pull] = {}

    async def prepare(self, image: ImageRef, note: Callable[[str], None]) -> Prepared:
        """Not remembered between calls: asking the engine costs 1.5 ms and sees images that were removed by hand."""
        found = await self._local(image)
        if found is None:
            await self._pull(image, note)
            found = await self._local(image)
        if found is None:
            raise RuntimeFault(
                Reason.IMAGE_PULL, f"{image.name} was pulled, but the engine does not have it: the pull was cut off"
            )
        return _prepared(found)

    async def _local(self, image: ImageRef) -> dict[str, Any] | None:
        if image.digest is None:
            return await self._inspect(image.name)
        if found := await self._inspect(f"{repository(image.name)}@{image.digest}"):
            return found
        found = await self._inspect(image.name)
        if found is not None and image.digest in {found["Id"], *_digests(found)}:
            return found
        return None

    async def _inspect(self, name: str) -> dict[str, Any] | None:
        try:
            return await self._engine.call(
                "inspect an image", self._engine.client.images.inspect(name), _INSPECT_SECONDS
            )
        except DockerError as error:
            if error.status == NOT_FOUND:
                return None
            raise _fault(name, error) from error

    async def _pull(self, image: ImageRef, note: Callable[[str], None]) -> None:
        key = f"{image.name}@{image.digest}"
        pull = self._pulls.get(key)
        if pull is None:
            pull = self._pulls[key] = _Pull(self._engine, image)
        try:
            await pull.wait(note)
        finally:
            if pull.over and self._pulls.get(key) is pull:
                del self._pulls[key]


class _Pull:
    def __init__(self, engine: Engine, image: ImageRef) -> None:
        self._engine = engine
        self._image = image
        self._hearers: list[Callable[[str], None]] = []
        self._text = f"pulling {image.name}"
        self._task = asyncio.create_task(self._run())

    @property
    def over(self) -> bool:
        """Whether nobody may join it any more."""
        return self._task.done() or not self._hearers

    async def wait(self, note: Callable[[str], None]) -> None:
        self._hearers.append(note)
        note(self._text)
        try:
            await asyncio.shield(self._task)
        finally:
            self._hearers.remove(note)
            if not self._hearers:
                self._task.cancel()

    async def _run(self) -> None:
        name = self._image.name
        repo = repository(name)
        source = f"{repo}@{self._image.digest}" if self._image.digest else _with_tag(name)
        layers: dict[str, tuple[int, int]] = {}
        try:
            async for message in _stalling(self._messages(source)):
                self._hear(message, layers)
        except TimeoutError:
            raise RuntimeFault(
                Reason.IMAGE_PULL, f"pulling {name} made no progress for {STALL_SECONDS:g} s", _PULL_HINT
            ) from None
        except DockerError as error:
            raise _fault(name, error) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise RuntimeFault(Reason.IMAGE_PULL, f"pulling {name} broke off: {error}", _PULL_HINT) from error
        if self._image.digest:
            await self._tag(source, name)

    async def _messages(self, source: str) -> AsyncIterator[dict[str, Any]]:
        headers = {"X-Registry-Auth": header} if (header := credentials(source)) else {}
        params = {"fromImage": source}
        async with self._engine.client._query("images/create", "POST", params=params, headers=headers) as response:
            try:
                async for line in response.content:
                    message = json.loads(line)
                    if error := message.get("error"):
                        raise DockerError(500, str(error))
                    yield message
            finally:
                response.close()  # the engine stops a pull whose reader has gone

    def _hear(self, message: dict[str, Any], layers: dict[str, tuple[int, int]]) -> None:
        detail = message.get("progressDetail") or {}
        layer, status = message.get("id", ""), message.get("status", "")
        if status == "Downloading" and detail.get("total"):
            layers[layer] = (detail.get("current", 0), detail["total"])
        elif status in ("Download complete", "Extracting", "Pull complete") and layer in layers:
            layers[layer] = (layers[layer][1], layers[layer][1])
        else:
            return
        done, total = (sum(column) for column in zip(*layers.values(), strict=True))
        text = f"pulling {self._image.name}: {100 * done // total} %, {_megabytes(done)} of {_megabytes(total)} MB"
        if text != self._text:
            self._text = text
            for hear in self._hearers:
                hear(text)

    async def _tag(self, source: str, name: str) -> None:
        """So that people see which image it is. A tag that is there belongs to its owner and stays where it points."""
        images = self._engine.client.images
        try:
            await self._engine.call("inspect an image", images.inspect(name), _INSPECT_SECONDS)
        except DockerError:
            target = _with_tag(name).rpartition(":")
            with suppress(DockerError):
                tagged = images.tag(source, target[0], tag=target[2])
                await self._engine.call("tag an image", tagged, _INSPECT_SECONDS)


async def _stalling(messages: AsyncIterator[dict[str, Any]]) -> AsyncIterator[dict[str, Any]]:
    """The messages; TimeoutError when none says anything new for STALL_SECONDS."""
    loop = asyncio.get_running_loop()
    last: dict[str, Any] = {}
    changed = loop.time()
    while True:
        async with asyncio.timeout_at(changed + STALL_SECONDS):
            try:
                message = await anext(messages)
            except StopAsyncIteration:
                return
        if message != last:
            last, changed = message, loop.time()
        yield message


def repository(name: str) -> str:
    """`localhost:5000/team/app:1` -> `localhost:5000/team/app`."""
    name = name.partition("@")[0]
    head, slash, last = name.rpartition("/")
    return head + slash + last.partition(":")[0]


def credentials(source: str) -> str | None:
    """The X-Registry-Auth header for an image of a registry that this host's user has logged in to with `docker login`.

    None where the docker configuration has no user and password in itself (credential helpers are not asked)."""
    registry, slash, _ = source.partition("/")
    if not slash or not ("." in registry or ":" in registry or registry == "localhost"):
        registry = "docker.io"
    keys = [_HUB_CREDENTIALS] if registry in ("docker.io", "index.docker.io") else []
    folder = os.environ.get("DOCKER_CONFIG") or str(Path.home() / ".docker")
    try:
        logins = json.loads((Path(folder) / "config.json").read_bytes()).get("auths", {})
        login = next(logins[key] for key in (*keys, registry, f"https://{registry}") if key in logins)
        user, _, password = base64.b64decode(login["auth"]).decode().partition(":")
    except (OSError, ValueError, LookupError, StopIteration, AttributeError, binascii.Error):
        return None
    header = {"username": user, "password": password, "serveraddress": registry}
    if token := login.get("identitytoken"):
        header = {"identitytoken": token}
    return base64.urlsafe_b64encode(json.dumps(header).encode()).decode()


def _prepared(image: dict[str, Any]) -> Prepared:
    config = image.get("Config") or {}
    pairs = (entry.partition("=") for entry in config.get("Env") or ())
    return Prepared(
        image_id=image["Id"],
        env={key: value for key, _, value in pairs},
        has_command=bool(config.get("Cmd") or config.get("Entrypoint")),
    )


def _digests(image: dict[str, Any]) -> set[str]:
    return {entry.rpartition("@")[2] for entry in image.get("RepoDigests") or ()}


def _with_tag(name: str) -> str:
    """The engine would pull every tag of a name that has none."""
    return name if "@" in name or name != repository(name) else f"{name}:latest"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.0f}" if size >= 10_000_000 else f"{size / 1e6:.1f}"


def _fault(name: str, error: DockerError) -> RuntimeFault:
    text = error.message.lower()
    passing = any(word in text for word in _WILL_PASS)
    if not passing and (error.status == NOT_FOUND or any(word in text for word in _WILL_NOT_PASS)):
        return RuntimeFault(
            Reason.IMAGE_DENIED,
            f"cannot pull {name}: {error.message}",
            "Check the name and the platform; for a private registry run `docker login` on the worker."
            " An image that was never pushed has to be built or loaded on the worker itself.",
        )
    return RuntimeFault(Reason.IMAGE_PULL, f"cannot pull {name}: {error.message}", _PULL_HINT)


__all__ = ["STALL_SECONDS", "Images", "credentials", "repository"]
