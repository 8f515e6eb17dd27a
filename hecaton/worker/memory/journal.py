"""What the worker must remember over a crash: its containers, which attempt runs in which, results not accepted yet.

One append-only file. A record waits a moment in memory: what the server accepts meanwhile never needs the disk, and
what it does not is written together and synced once. Meanwhile it stands in the `tail`, which a killed process leaves
behind as well. Read back at start; a torn last record is what a power cut leaves.

File and tail say their `VERSION`. A release reads its own and the one before, so that an upgrade costs no job; hence
fields of records are only ever appended, with a default that says what an older release meant without them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import zlib
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import structlog

from hecaton.core.errors import Conflict
from hecaton.core.model import AttemptRef
from hecaton.worker.memory.records import Ended, Forgotten, Given, Gone, Placed, Record, ref_of, subject_of
from hecaton.worker.memory.tail import FRAME, Tail

VERSION = 4
"""Goes up with every field or record that is appended. 3 does not say what the place of a job holds, nor as whom it
runs."""

MAGIC = b"HECATON"
"""In front of the first record, and then a byte with the version."""

LINGER = 0.02
"""Seconds that a record waits before it is written. The server's answer to a result usually comes sooner."""

RETRY = 1.0
"""Seconds until the next try after the disk refused."""

COMPACT_SIZE = 4 * 1024 * 1024
"""Bytes of file over which it is written anew with what still holds, if that is less than half of it."""

_log = structlog.get_logger("hecaton.worker.memory.journal")

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Record] = msgspec.msgpack.Decoder(Record)


class NewerJournal(Conflict):
    """A newer release of Hecaton wrote the journal: only a person can go on from here."""


class Journal:
    """`on_safe` hears which results are on disk, `on_refused` that the disk took nothing: it is tried again.

    The methods are called on the event loop and never block it. `_write` runs in the journal's own thread, which has
    the file to itself (`_fd`, `_size`, `_outdated`, `_renamed`) until `close`. A record is in memory as soon as it is
    noted, in `_waiting` until it is being written, and in the tail until it has been."""

    def __init__(
        self,
        path: Path,
        on_safe: Callable[[tuple[AttemptRef, ...]], None],
        on_refused: Callable[[OSError], None] = lambda error: None,
    ) -> None:
        """Reads the file: `placed`, `given` and `ended` are what an earlier process left.

        Raises OSError; NewerJournal, with nothing changed on disk."""
        self._path = path
        self._on_safe = on_safe
        self._on_refused = on_refused
        self.placed: dict[str, Placed] = {}
        self.given: dict[AttemptRef, Given] = {}
        self.ended: dict[AttemptRef, Ended] = {}
        self._waiting: dict[tuple[type, Hashable], Record] = {}
        self._written: set[Hashable] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Future[None] | None = None
        self._closed = False
        self._outdated = False  # the file is of the release before: it is written anew with the first batch
        self._renamed = False  # the file is new, and its name is not on the disk yet
        self._thread = ThreadPoolExecutor(1, "journal")
        self._tail = Tail(path.with_suffix(".tail"), VERSION)
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._size = self._recover()
        except BaseException:
            self._tail.close()
            os.close(self._fd)
            raise

    def place(self, record: Placed) -> None:
        self._note(record)

    def give(self, record: Given) -> None:
        self._note(record)

    def end(self, record: Ended) -> None:
        """Also an answer to a record that was given."""
        self._waiting.pop((Given, record.outcome.ref), None)
        self._note(record)

    def forget(self, ref: AttemptRef) -> None:
        self._waiting.pop((Given, ref), None)
        self._waiting.pop((Ended, ref), None)
        self._strike(Forgotten(ref), ref)

    def gone(self, container: str) -> None:
        self._waiting.pop((Placed, container), None)
        self._strike(Gone(container), container)

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
        self._tail.close()
        os.close(self._fd)

    # -- memory --------------------------------------------------------------------------------------

    def _note(self, record: Record) -> None:
        self._apply(record)
        self._wait(record)
        self._tail.append(_encoder.encode(record))

    def _strike(self, record: Forgotten | Gone, subject: Hashable) -> None:
        """In the tail it need not stand: who hears of an end twice just forgets again."""
        self._apply(record)
        if subject in self._written:
            self._wait(record)
        elif not self._waiting and self._writing is None:
            self._tail.clear()

    def _wait(self, record: Record) -> None:
        self._waiting[type(record), subject_of(record)] = record
        if self._timer is None and self._writing is None:
            self._timer = asyncio.get_running_loop().call_later(LINGER, self._begin)

    def _apply(self, record: Record) -> None:
        if isinstance(record, Given):
            self.given[record.ref] = record
        elif isinstance(record, Ended):
            self.given.pop(record.outcome.ref, None)
            self.ended[record.outcome.ref] = record
        elif isinstance(record, Forgotten):
            self.given.pop(record.ref, None)
            self.ended.pop(record.ref, None)
        elif isinstance(record, Placed):
            self.placed[record.container] = record
        else:
            self.placed.pop(record.container, None)

    def _holds(self, subject: Hashable) -> bool:
        return subject in self.given or subject in self.ended or subject in self.placed

    # -- disk ----------------------------------------------------------------------------------------

    def _begin(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._closed or self._writing is not None:
            return
        if not self._waiting:
            self._tail.clear()
            return
        batch, self._waiting = self._waiting, {}
        self._tail.turn()
        live: list[Record] = [*self.placed.values(), *self.given.values(), *self.ended.values()]
        loop = asyncio.get_running_loop()
        self._writing = loop.run_in_executor(self._thread, self._write, list(batch.values()), live)
        self._writing.add_done_callback(lambda done: self._end_write(batch, done))

    def _end_write(self, batch: dict[tuple[type, Hashable], Record], done: asyncio.Future[None]) -> None:
        self._writing = None
        delay = LINGER
        error = None if done.cancelled() else done.exception()
        if error is not None:
            self._waiting = {**batch, **self._waiting}
            delay = RETRY
        else:
            self._tail.turned()
            self._settle(batch)
        if self._waiting and not self._closed and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(delay, self._begin)
        if isinstance(error, OSError):  # last: the log may be on the same full disk
            self._on_refused(error)
            _log.error("Cannot write the journal: results are kept in memory until it works", error=str(error))

    def _settle(self, batch: dict[tuple[type, Hashable], Record]) -> None:
        safe = []
        for (_, subject), record in batch.items():  # in the order in which they were written
            if isinstance(record, Forgotten | Gone):
                self._written.discard(subject)
                continue
            self._written.add(subject)
            if not self._holds(subject):  # the end was faster than the disk
                end = Gone(record.container) if isinstance(record, Placed) else Forgotten(ref_of(record))
                self._waiting.setdefault((type(end), subject), end)
            if isinstance(record, Ended):
                safe.append(record.outcome.ref)
        if safe:
            self._on_safe(tuple(safe))

    def _write(self, batch: list[Record], live: list[Record]) -> None:
        """In the thread. After a failed write the file is cut back to its last whole record."""
        self._sync_name()
        data = (b"" if self._size else _head()) + b"".join(map(_frame, batch))
        try:
            _write_at(self._fd, data, self._size)
            if any(isinstance(record, Ended) for record in batch):
                os.fdatasync(self._fd)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._size)
            raise
        self._size += len(data)
        if self._size > COMPACT_SIZE or self._outdated:
            self._compact(live)

    def _compact(self, live: Iterable[Record]) -> None:
        data = _head() + b"".join(map(_frame, live))
        if len(data) * 2 > self._size and not self._outdated:
            return
        new = self._path.with_suffix(".new")
        fd = -1
        try:
            fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with open(fd, "wb", closefd=False) as file:
                file.write(data)
            os.fsync(fd)
            os.rename(new, self._path)
        except OSError:
            if fd >= 0:
                os.close(fd)
            return  # the old file still holds; the next batch tries again
        os.close(self._fd)  # whatever happens now: the name is the new file's
        self._fd, self._size, self._outdated, self._renamed = fd, len(data), False, True
        with contextlib.suppress(OSError):
            self._sync_name()

    def _sync_name(self) -> None:
        if self._renamed:
            _sync_folder(self._path.parent)
            self._renamed = False

    # -- what an earlier process left ----------------------------------------------------------------

    def _recover(self) -> int:
        """Take over what file and tail say; the size of what is kept of the file."""
        with open(self._path, "rb") as file:
            data = file.read()
        written, unwritten = _version(data), self._tail.left
        versions = [version for version in (written, unwritten) if version is not None]
        if max(versions, default=0) > VERSION:
            raise NewerJournal(
                f"{self._path} was written by a newer release of Hecaton: this one does not know all that it says",
                "Upgrade this worker; its containers run on. Or remove the file and its .tail: they are then stopped.",
            )
        if min(versions, default=VERSION) < VERSION - 1:
            _log.error(
                "The journal was written by a release of Hecaton that is too old to be read: the containers that it "
                "tells of are stopped, and their jobs run again"
            )
        self._size = self._read(data) if _is_read(written) else 0
        self._outdated = self._size > 0 and written != VERSION
        os.ftruncate(self._fd, self._size)
        for body in self._tail.read():
            record = _record(body) if _is_read(unwritten) else None
            if record is not None:
                self._note(record)
        return self._size

    def _read(self, data: bytes) -> int:
        """Take over the records of the file; its size up to the last whole one."""
        offset = len(_head())
        while len(data) - offset >= FRAME.size:
            length, checksum = FRAME.unpack_from(data, offset)
            body = data[offset + FRAME.size : offset + FRAME.size + length]
            if len(body) < length or zlib.crc32(body) != checksum:
                break
            record = _record(body)
            if record is not None:
                self._apply(record)
            offset += FRAME.size + length
        if offset < len(data):
            _log.warning("The journal has a torn end: cut off", bytes=len(data) - offset)
        self._written.update(self.placed, self.given, self.ended)
        return offset


def _head() -> bytes:
    return MAGIC + bytes((VERSION,))


def _version(data: bytes) -> int | None:
    """That a file says; 0: it is older than all that say one; None: nothing was written, or only a part of the head."""
    if _head().startswith(data):
        return VERSION if data == _head() else None
    return data[len(MAGIC)] if data.startswith(MAGIC) else 0


def _is_read(version: int | None) -> bool:
    return version is not None and VERSION - 1 <= version <= VERSION


def _record(body: bytes) -> Record | None:
    try:
        return _decoder.decode(body)
    except msgspec.DecodeError as error:
        _log.error("A record of the journal is not understood, and left out", error=str(error))
        return None


def _frame(record: Record) -> bytes:
    body = _encoder.encode(record)
    return FRAME.pack(len(body), zlib.crc32(body)) + body


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
