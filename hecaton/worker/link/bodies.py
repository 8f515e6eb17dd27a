"""Payloads, handler files and results over 64 KiB: by HTTP beside the channel, streamed, tried until it works."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import aiohttp
import structlog

from hecaton.core.errors import HecatonError
from hecaton.core.model import JobId
from hecaton.wire.errors import from_reply

_CHUNK = 1024 * 1024
_LONGEST_DELAY = 5.0
_TRY_AGAIN = frozenset({408, 425, 429})
_random = random.Random()

_log = structlog.get_logger("hecaton.worker.link.bodies")

T = TypeVar("T")


class BodyRefused(Exception):
    """The server will not give or take this body: another try would end the same way. `error`: what it said."""

    def __init__(self, error: HecatonError) -> None:
        super().__init__(str(error))
        self.error = error


class Bodies:
    """Raises BodyRefused, and OSError when this machine's disk is at fault. Cancelling is safe."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._url = url.rstrip("/")
        self._session = session
        self._parts = itertools.count(1)

    async def fetch(self, job: JobId, sha256: str, target: Path, *, lasting: bool = False) -> None:
        """`target` is complete or absent; with `lasting` also after a power cut. Several may fetch the same."""
        part = target.with_name(f"{target.name}.{next(self._parts)}.part")

        async def attempt() -> None:
            try:
                await self._download(job, sha256, part)
                if lasting:
                    await asyncio.to_thread(_sync, part)
                os.replace(part, target)
            finally:
                part.unlink(missing_ok=True)

        await _until_it_works("fetch a body", attempt)

    async def store(self, job: JobId, sha256: str, source: Path) -> None:
        size = {"Content-Length": str((await asyncio.to_thread(source.stat)).st_size)}

        async def attempt() -> None:
            async with self._session.put(self._address(job, sha256), data=_read(source), headers=size) as reply:
                await _check(reply)

        await _until_it_works("store a result", attempt)

    async def _download(self, job: JobId, sha256: str, part: Path) -> None:
        digest = hashlib.sha256()
        async with self._session.get(self._address(job, sha256)) as reply:
            await _check(reply)
            with part.open("wb") as file:

                def keep(chunk: bytes) -> None:
                    digest.update(chunk)
                    file.write(chunk)

                async for chunk in reply.content.iter_chunked(_CHUNK):
                    await asyncio.to_thread(keep, chunk)
        if digest.hexdigest() != sha256:
            raise aiohttp.ClientPayloadError("the body arrived damaged: its hash is another one")

    def _address(self, job: JobId, sha256: str) -> str:
        return f"{self._url}/v1/worker/jobs/{job}/blobs/{sha256}"


async def _until_it_works(what: str, attempt: Callable[[], Awaitable[T]]) -> T:
    delay = 0.2
    while True:
        try:
            return await attempt()
        except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:  # any other OSError is the disk's
            pause = _random.uniform(delay / 2, delay)
            _log.warning(f"Could not {what}: trying again in {pause:.1f} s", error=str(error) or type(error).__name__)
        await asyncio.sleep(pause)
        delay = min(delay * 2, _LONGEST_DELAY)


async def _check(reply: aiohttp.ClientResponse) -> None:
    if reply.status < 400:
        return
    if reply.status >= 500 or reply.status in _TRY_AGAIN:
        raise aiohttp.ClientError(f"the server answered with status {reply.status}")
    raise BodyRefused(from_reply(reply.status, await reply.read()))


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


async def _read(source: Path) -> AsyncIterator[bytes]:
    with source.open("rb") as file:
        while chunk := await asyncio.to_thread(file.read, _CHUNK):
            yield chunk
