"""Payloads, handler files and results over 64 KiB: by HTTP beside the channel, streamed, tried until it works."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import TypeVar

import aiohttp
import msgspec
import structlog

from hecaton.core.errors import HecatonError
from hecaton.core.model import JobId
from hecaton.wire.api import CheckpointFiles, NewCheckpoint, NewFiles, Wanted
from hecaton.wire.errors import from_reply, said_by_a_server

_CHUNK = 1024 * 1024
_LONGEST_DELAY = 5.0
_LONGEST_ERROR = 64 * 1024
_GIVEN, _STORED, _DONE = 200, 201, 204
_TRY_AGAIN = frozenset({401, 403, 408, 425, 429})
"""Besides 5xx: a server that says so may say otherwise later. The connection hears of a token that does not hold."""

_random = random.Random()

_log = structlog.get_logger("hecaton.worker.link.bodies")

T = TypeVar("T")


Say = Callable[[str], None]
"""Hears, once, what somebody between this worker and its server does to a body."""


Feed = Callable[[aiohttp.StreamReader], Awaitable[None]]
"""Takes what comes, until its end."""


class BodyRefused(Exception):
    """The server will not give or take this body: another try would end the same way. `error`: what it said."""

    def __init__(self, error: HecatonError) -> None:
        super().__init__(str(error))
        self.error = error


class _InBetween(aiohttp.ClientError):
    """Another program than the server answered."""


class Bodies:
    """Raises BodyRefused, and OSError when this machine's disk is at fault. Cancelling is safe. On the loop, with reads
    and writes of files in threads.

    What another program says in place of the server, such as a proxy that takes no bodies of this size, refuses
    nothing: it is said, and tried again until the server itself has answered."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._url = url.rstrip("/")
        self._session = session
        self._parts = itertools.count(1)

    async def fetch(
        self,
        job: JobId,
        sha256: str,
        target: Path,
        *,
        lasting: bool = False,
        say: Say | None = None,
        of: str = "blobs",
    ) -> None:
        """`target` is complete or absent; with `lasting` also after a power cut. Several may fetch the same. `of`: of
        which content of the job, as it stands in the address."""
        part = target.with_name(f"{target.name}.{next(self._parts)}.part")

        async def attempt() -> None:
            try:
                await self._download(f"{self._of(job)}/{of}/{sha256}", sha256, part)
                if lasting:
                    await asyncio.to_thread(_sync, part)
                os.replace(part, target)
            finally:
                part.unlink(missing_ok=True)

        await _until_it_works("fetch a body", attempt, say)

    async def fetch_bundle(self, job: JobId, wanted: Iterable[str], feed: Feed, say: Say | None = None) -> None:
        """Files of the job's folder in one answer (`wire.bundles`). `wanted`: read anew for each try, after a cut.
        `feed` raises ClientError for what is not what was asked for."""

        async def attempt() -> None:
            body = msgspec.json.encode(Wanted(tuple(wanted)))
            address = f"{self._url}/v1/worker/jobs/{job}/bundle"
            async with self._session.post(address, data=body, allow_redirects=False) as reply:
                await _check(reply, _GIVEN)
                await feed(reply.content)

        await _until_it_works("fetch a folder", attempt, say)

    async def store(self, job: JobId, sha256: str, source: Path, *, say: Say | None = None) -> None:
        size = (await asyncio.to_thread(source.stat)).st_size
        await self.store_pieces(job, sha256, size, lambda: _read(source), say)

    async def store_pieces(
        self, job: JobId, sha256: str, size: int, pieces: Callable[[], AsyncIterator[bytes]], say: Say | None = None
    ) -> None:
        """`pieces`: called for each try."""
        headers = {"Content-Length": str(size)}

        async def attempt() -> None:
            put = self._session.put(self._address(job, sha256), data=pieces(), headers=headers, allow_redirects=False)
            async with put as reply:
                await _check(reply, _STORED)

        await _until_it_works("store a result", attempt, say)

    async def tell_of_files(self, job: JobId, told: NewFiles, *, say: Say | None = None) -> None:
        """After the blobs that they are in."""
        await self._tell("a job's files", f"{self._of(job)}/files", told, say)

    async def tell_of_checkpoint(self, job: JobId, told: NewCheckpoint, *, say: Say | None = None) -> None:
        """After the blobs that it is in."""
        await self._tell("a job's checkpoint", f"{self._of(job)}/checkpoint", told, say)

    async def checkpoint(self, job: JobId) -> CheckpointFiles:
        """What an earlier attempt of the job has left; no files: nothing."""

        async def attempt() -> CheckpointFiles:
            async with self._session.get(f"{self._of(job)}/checkpoint", allow_redirects=False) as reply:
                await _check(reply, _GIVEN)
                return msgspec.json.decode(await reply.read(), type=CheckpointFiles)

        return await _until_it_works("ask for a job's checkpoint", attempt, None)

    async def _tell(self, of: str, address: str, told: object, say: Say | None) -> None:
        body, headers = msgspec.json.encode(told), {"Content-Type": "application/json"}

        async def attempt() -> None:
            async with self._session.post(address, data=body, headers=headers, allow_redirects=False) as reply:
                await _check(reply, _DONE)

        await _until_it_works(f"tell of {of}", attempt, say)

    async def _download(self, address: str, sha256: str, part: Path) -> None:
        digest = hashlib.sha256()
        async with self._session.get(address, allow_redirects=False) as reply:
            await _check(reply, _GIVEN)
            with part.open("wb") as file:

                def keep(chunk: bytes) -> None:
                    digest.update(chunk)
                    file.write(chunk)

                async for chunk in reply.content.iter_chunked(_CHUNK):
                    await asyncio.to_thread(keep, chunk)
        if digest.hexdigest() != sha256:
            raise aiohttp.ClientPayloadError("the body arrived damaged: its hash is another one")

    def _of(self, job: JobId) -> str:
        return f"{self._url}/v1/worker/jobs/{job}"

    def _address(self, job: JobId, sha256: str) -> str:
        return f"{self._of(job)}/blobs/{sha256}"


async def _until_it_works(what: str, attempt: Callable[[], Awaitable[T]], say: Say | None) -> T:
    delay = 0.2
    said = False
    while True:
        try:
            return await attempt()
        except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:  # any other OSError is the disk's
            pause = _random.uniform(delay / 2, delay)
            _log.warning(f"Could not {what}: trying again in {pause:.1f} s", error=str(error) or type(error).__name__)
            if say is not None and not said and isinstance(error, _InBetween):
                said = True
                say(f"could not {what}, trying again: {error}")
        await asyncio.sleep(pause)
        delay = min(delay * 2, _LONGEST_DELAY)


async def _check(reply: aiohttp.ClientResponse, expected: int) -> None:
    if reply.status == expected:
        return
    said = await reply.content.read(_LONGEST_ERROR)
    error = from_reply(reply.status, said, reply.headers.get("Server"))
    if not said_by_a_server(said):
        raise _InBetween(str(error).replace("\n", ". "))
    if reply.status >= 500 or reply.status in _TRY_AGAIN:
        raise aiohttp.ClientError(f"the server answered with status {reply.status}: {error.message}")
    raise BodyRefused(error)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


async def _read(source: Path) -> AsyncIterator[bytes]:
    with source.open("rb") as file:
        while chunk := await asyncio.to_thread(file.read, _CHUNK):
            yield chunk
