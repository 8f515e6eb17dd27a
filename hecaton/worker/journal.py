"""What the worker must remember over a crash: which attempt runs in which container, and results not accepted yet.

One append-only file. A record waits a moment in memory: what the server accepts meanwhile never needs the disk, and
what it does not is written together and synced once. Read back at start; a torn last record is what a crash leaves.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import structlog

from hecaton.core.model import AttemptRef
from hecaton.wire.channel import Outcome

LINGER = 0.02
"""Seconds that a record waits before it is written. The server's answer to a result usually comes sooner."""

RETRY = 1.0
"""Seconds until the next try after the disk refused."""

COMPACT_SIZE = 4 * 1024 * 1024
"""Bytes of file over which it is written anew with what still holds, if that is less than half of it."""

_FRAME = struct.Struct("!II")  # length and CRC-32 of the record

_log = structlog.get_logger("hecaton.worker.journal")


class Given(msgspec.Struct, frozen=True, array_like=True, tag="given"):
    ref: AttemptRef
    container: str


class Ended(msgspec.Struct, frozen=True, array_like=True, tag="ended"):
    """`at`: seconds since the epoch, since the record outlives the monotonic clock. Log: where it lies, in bytes."""

    outcome: Outcome
    at: float
    slot: int = 0
    container: str | None = None
    log_start: int = 0
    log_end: int = 0


class Forgotten(msgspec.Struct, frozen=True, array_like=True, tag="forgotten"):
    ref: AttemptRef


Record = Given | Ended | Forgotten

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Record)


class Journal:
    """`on_safe` hears which results are on disk. The methods are called on the event loop and never block it."""

    def __init__(self, path: Path, on_safe: Callable[[tuple[AttemptRef, ...]], None]) -> None:
        """Reads the file: `given` and `ended` are what an earlier process left. Raises OSError."""
        self._path = path
        self._on_safe = on_safe
        self.given: dict[AttemptRef, Given] = {}
        self.ended: dict[AttemptRef, Ended] = {}
        self._waiting: dict[tuple[type, AttemptRef], Record] = {}
        self._written: set[AttemptRef] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Future[None] | None = None
        self._closed = False
        self._thread = ThreadPoolExecutor(1, "journal")
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._size = self._read()
        os.ftruncate(self._fd, self._size)

    def give(self, ref: AttemptRef, container: str) -> None:
        self._note(Given(ref, container), ref)

    def end(self, record: Ended) -> None:
        self._waiting.pop((Given, record.outcome.ref), None)
        self._note(record, record.outcome.ref)

    def forget(self, ref: AttemptRef) -> None:
        self._waiting.pop((Given, ref), None)
        self._waiting.pop((Ended, ref), None)
        if ref in self._written:
            self._note(Forgotten(ref), ref)
        else:
            self._apply(Forgotten(ref))

    async def flush(self) -> None:
        """Write what waits, now."""
        if self._writing is not None:
            await asyncio.wait([self._writing])
        if self._waiting:
            self._begin()
            if self._writing is not None:
                await asyncio.wait([self._writing])

    async def close(self) -> None:
        await self.flush()
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._thread.shutdown()
        os.close(self._fd)

    # -- memory --------------------------------------------------------------------------------------

    def _note(self, record: Record, ref: AttemptRef) -> None:
        self._apply(record)
        self._waiting[type(record), ref] = record
        if self._timer is None and self._writing is None:
            self._timer = asyncio.get_running_loop().call_later(LINGER, self._begin)

    def _apply(self, record: Record) -> None:
        if isinstance(record, Given):
            self.given[record.ref] = record
        elif isinstance(record, Ended):
            self.given.pop(record.outcome.ref, None)
            self.ended[record.outcome.ref] = record
        else:
            self.given.pop(record.ref, None)
            self.ended.pop(record.ref, None)

    # -- disk ----------------------------------------------------------------------------------------

    def _begin(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._closed or self._writing is not None or not self._waiting:
            return
        batch, self._waiting = self._waiting, {}
        live: list[Record] = [*self.given.values(), *self.ended.values()]
        loop = asyncio.get_running_loop()
        self._writing = loop.run_in_executor(self._thread, self._write, list(batch.values()), live)
        self._writing.add_done_callback(lambda done: self._end_write(batch, done))

    def _end_write(self, batch: dict[tuple[type, AttemptRef], Record], done: asyncio.Future[None]) -> None:
        self._writing = None
        delay = LINGER
        error = None if done.cancelled() else done.exception()
        if error is not None:
            self._waiting = {**batch, **self._waiting}
            delay = RETRY
        else:
            for kind, ref in batch:  # in the order in which they were written
                if kind is Forgotten:
                    self._written.discard(ref)
                    continue
                self._written.add(ref)
                if ref not in self.given and ref not in self.ended:  # the server was faster than the disk
                    self._waiting.setdefault((Forgotten, ref), Forgotten(ref))
            safe = tuple(ref for kind, ref in batch if kind is Ended)
            if safe:
                self._on_safe(safe)
        if self._waiting and not self._closed and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(delay, self._begin)
        if error is not None:  # last: the log may be on the same full disk
            _log.error("Cannot write the journal: results are kept in memory until it works", error=str(error))

    def _write(self, batch: list[Record], live: list[Record]) -> None:
        """In the thread. After a failed write the file is cut back to its last whole record."""
        data = b"".join(map(_frame, batch))
        try:
            _write_at(self._fd, data, self._size)
            if any(isinstance(record, Ended) for record in batch):
                os.fdatasync(self._fd)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._size)
            raise
        self._size += len(data)
        if self._size > COMPACT_SIZE:
            self._compact(live)

    def _compact(self, live: Iterable[Record]) -> None:
        data = b"".join(map(_frame, live))
        if len(data) * 2 > self._size:
            return
        new = self._path.with_suffix(".new")
        fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            with open(fd, "wb", closefd=False) as file:
                file.write(data)
            os.fsync(fd)
            os.rename(new, self._path)
            _sync_folder(self._path.parent)
        except OSError:
            os.close(fd)
            return  # the old file still holds; the next batch tries again
        os.close(self._fd)
        self._fd, self._size = fd, len(data)

    def _read(self) -> int:
        """Take over what the file says; its size up to the last whole record."""
        with open(self._path, "rb") as file:
            data = file.read()
        offset = 0
        while len(data) - offset >= _FRAME.size:
            length, checksum = _FRAME.unpack_from(data, offset)
            body = data[offset + _FRAME.size : offset + _FRAME.size + length]
            if len(body) < length or zlib.crc32(body) != checksum:
                break
            try:
                self._apply(_decoder.decode(body))
            except msgspec.DecodeError:
                break  # written by another version: what stands before it still holds
            offset += _FRAME.size + length
        if offset < len(data):
            _log.warning("The journal has a torn end: cut off", bytes=len(data) - offset)
        self._written.update(self.given, self.ended)
        return offset


def _frame(record: Record) -> bytes:
    body = _encoder.encode(record)
    return _FRAME.pack(len(body), zlib.crc32(body)) + body


def _write_at(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written


def _sync_folder(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
