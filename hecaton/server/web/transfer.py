"""Bodies too big for a message: uploads into and downloads out of the blob store, streamed, never whole in memory."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator

from hecaton.core.errors import BadRequest, NotFound, TooLarge
from hecaton.core.model import Body, Kind
from hecaton.server.web.http import Call, Stream, content_length
from hecaton.store.port import Blobs, BlobWriter

MIB = 1024 * 1024

PIECE = MIB
"""Bytes gathered before a write: one thread hop per MiB."""

JSON, TEXT, BYTES = "application/json", "text/plain; charset=utf-8", "application/octet-stream"
LINES = "application/x-ndjson"
"""A value of JSON in each line; an empty line keeps the connection alive."""

CONTENT_TYPES = {Kind.JSON: JSON, Kind.TEXT: TEXT, Kind.BYTES: BYTES}
CONTENT = tuple(CONTENT_TYPES.values())
_SHA256 = re.compile(r"[0-9a-f]{64}")


def require_sha256(text: str) -> str:
    if not _SHA256.fullmatch(text):
        raise BadRequest(f"{text[:80]!r} is not a SHA-256 in lower-case hex")
    return text


def announced_size(call: Call, limit: int) -> int:
    """How many bytes the request's body is said to have: the most that it may have, if that is not said."""
    said = content_length(call.scope["headers"])
    return limit if said is None else min(said, limit)


async def receive_blob(call: Call, blobs: Blobs, sha256: str, limit: int) -> int:
    """Store the request's body under its hash; its size. Complete and fsynced, or absent."""
    await call.reserve(2 * PIECE)  # one being written, one that arrives
    writer = blobs.writer()
    try:
        size = await _write(call, writer, limit)
    except BaseException:
        writer.abort()
        raise
    await asyncio.to_thread(writer.commit, sha256)
    return size


async def _write(call: Call, writer: BlobWriter, limit: int) -> int:
    """While a thread hashes and writes some pieces, the next ones arrive."""
    loop = asyncio.get_running_loop()
    size = 0
    writing: asyncio.Future[None] = loop.create_future()
    writing.set_result(None)
    try:
        async for pieces in _gathered(call):
            size += sum(map(len, pieces))
            if size > limit:
                raise TooLarge(
                    f"the upload has more than {limit / MIB:g} MiB, the limit of this server",
                    "hecaton-server --max-payload and --max-result set the limits.",
                )
            await asyncio.shield(writing)
            writing = loop.run_in_executor(None, _write_all, writer, pieces)
    finally:
        await asyncio.wait((writing,))  # whatever happened, the thread is to be done with the writer
    writing.result()
    return size


async def _gathered(call: Call) -> AsyncIterator[list[bytes]]:
    waiting: list[bytes] = []
    size = 0
    async for piece in call.pieces():
        waiting.append(piece)
        size += len(piece)
        if size >= PIECE:
            yield waiting
            waiting, size = [], 0
    if waiting:
        yield waiting


def _write_all(writer: BlobWriter, pieces: list[bytes]) -> None:
    for piece in pieces:
        writer.write(piece)


def send_body(blobs: Blobs, body: Body) -> Stream:
    content_type = CONTENT_TYPES[body.kind]
    if body.blob is None:
        return Stream(_once(body.data), content_type, len(body.data))
    return send_blob(blobs, body.blob, content_type)


def send_blob(blobs: Blobs, sha256: str, content_type: str = BYTES) -> Stream:
    path = blobs.path(sha256)
    if path is None:
        raise NotFound(f"no content with SHA-256 {sha256}")
    return Stream(_read(path), content_type, os.path.getsize(path), endless=True)


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def _read(path: str) -> AsyncIterator[bytes]:
    with open(path, "rb") as file:  # noqa: ASYNC230 - opening is quick; the reads below are in threads
        while data := await asyncio.to_thread(file.read, PIECE):
            yield data
