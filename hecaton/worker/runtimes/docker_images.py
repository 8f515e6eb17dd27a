"""Has images at hand for the Docker runtime: finds them in the engine by digest or tag, pulls what is missing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from datetime import datetime
from typing import Any

import aiohttp
from aiodocker import DockerError

from hecaton.core.model import Reason
from hecaton.wire.channel import ImageRef
from hecaton.worker.runtimes.docker_engine import NOT_FOUND, Engine
from hecaton.worker.runtimes.docker_faults import PULL_HINT, pull_fault
from hecaton.worker.runtimes.docker_logins import RegistryLogin, login_for
from hecaton.worker.runtimes.port import Here, Prepared, RuntimeFault

STALL_SECONDS = 60.0
"""A pull that makes no progress for so long is given up."""

_INSPECT_SECONDS = 20.0
_REGISTRY_SECONDS = 8.0

_SAYS_DIGEST = "Digest: "


class Images:
    """One pull at a time per image, shared by all who wait for it; given up when nobody waits any more."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._pulls: dict[str, _Pull] = {}

    async def prepare(self, image: ImageRef, note: Callable[[str], None]) -> Prepared:
        """Not remembered between calls: asking the engine costs 1.5 ms and sees images that were removed by hand."""
        found, pulled = await self._local(image), None
        if found is None:
            pulled = await self._pull(image, note)
            found = await self._local(image)
        if found is None:
            raise RuntimeFault(
                Reason.IMAGE_PULL, f"{image.name} was pulled, but the engine does not have it: the pull was cut off"
            )
        return _prepared(found, pulled if image.digest is None else None)

    async def here(self, image: ImageRef) -> Here | None:
        """What `prepare` would take without a pull."""
        found = await self._local(image)
        return None if found is None else Here(found["Id"], _made(found))

    async def resolve(self, name: str) -> str:
        """The engine asks, so that its mirrors, proxies and certificates count as they do for a pull."""
        login = await login_for(name)
        try:
            answer = await self._engine.call("ask a registry", self._distribution(name, login), _REGISTRY_SECONDS)
            return str(answer["Descriptor"]["digest"])
        except DockerError as error:
            raise pull_fault(name, error, login) from error
        except LookupError:
            raise RuntimeFault(Reason.IMAGE_PULL, f"the registry of {name} names no digest") from None

    async def _distribution(self, name: str, login: RegistryLogin) -> dict[str, Any]:
        path = f"distribution/{_with_tag(name)}/json"
        async with self._engine.client._query(path, headers=login.headers) as response:
            answer: dict[str, Any] = await response.json()
            return answer

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
            raise pull_fault(name, error) from error

    async def _pull(self, image: ImageRef, note: Callable[[str], None]) -> str | None:
        """The digest, where the registry has named it."""
        key = f"{image.name}@{image.digest}"
        pull = self._pulls.get(key)
        if pull is None:
            pull = self._pulls[key] = _Pull(self._engine, image)
        try:
            await pull.wait(note)
            return pull.digest
        finally:
            if pull.over and self._pulls.get(key) is pull:
                del self._pulls[key]


class _Pull:
    def __init__(self, engine: Engine, image: ImageRef) -> None:
        self._engine = engine
        self._image = image
        self._hearers: list[Callable[[str], None]] = []
        self._text = f"pulling {image.name}"
        self.digest: str | None = None
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
        login = await login_for(source)
        try:
            async for message in _stalling(self._messages(source, login)):
                self._hear(message, layers)
        except TimeoutError:
            raise RuntimeFault(
                Reason.IMAGE_PULL, f"pulling {name} made no progress for {STALL_SECONDS:g} s", PULL_HINT
            ) from None
        except DockerError as error:
            raise pull_fault(name, error, login) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise RuntimeFault(Reason.IMAGE_PULL, f"pulling {name} broke off: {error}", PULL_HINT) from error
        if self._image.digest:
            await self._tag(source, name)

    async def _messages(self, source: str, login: RegistryLogin) -> AsyncIterator[dict[str, Any]]:
        query = self._engine.client._query("images/create", "POST", params={"fromImage": source}, headers=login.headers)
        async with query as response:
            try:
                async for line in response.content:
                    message = json.loads(line)
                    # `error` is the older field; an engine may leave it out.
                    if error := (message.get("errorDetail") or {}).get("message") or message.get("error"):
                        raise DockerError(500, str(error))
                    yield message
            finally:
                response.close()  # the engine stops a pull whose reader has gone

    def _hear(self, message: dict[str, Any], layers: dict[str, tuple[int, int]]) -> None:
        detail = message.get("progressDetail") or {}
        layer, status = message.get("id", ""), message.get("status", "")
        if status.startswith(_SAYS_DIGEST):
            self.digest = status.removeprefix(_SAYS_DIGEST)
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


def _made(image: dict[str, Any]) -> float | None:
    with suppress(ValueError, TypeError):
        return datetime.fromisoformat(image.get("Created")).timestamp()  # type: ignore[arg-type]
    return None


def _prepared(image: dict[str, Any], pulled: str | None) -> Prepared:
    config = image.get("Config") or {}
    pairs = (entry.partition("=") for entry in config.get("Env") or ())
    return Prepared(
        image_id=image["Id"],
        env={key: value for key, _, value in pairs},
        entrypoint=tuple(config.get("Entrypoint") or ()),
        command=tuple(config.get("Cmd") or ()),
        pulled=pulled,
    )


def _digests(image: dict[str, Any]) -> set[str]:
    return {entry.rpartition("@")[2] for entry in image.get("RepoDigests") or ()}


def _with_tag(name: str) -> str:
    """The engine would pull every tag of a name that has none."""
    return name if "@" in name or name != repository(name) else f"{name}:latest"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.0f}" if size >= 10_000_000 else f"{size / 1e6:.1f}"


__all__ = ["STALL_SECONDS", "Images", "repository"]
