"""The last records of the journal, in memory that a killed process leaves behind: a mapped file.

Appending costs a copy and no system call. A power cut may lose it: what must survive that is synced in the journal.
"""

from __future__ import annotations

import mmap
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import msgspec
import structlog

FRAME = struct.Struct("!II")
"""In front of each record: its length and CRC-32."""

HALF = 2 * 1024 * 1024
"""Bytes for what waits to be written; as many again for what is being written."""

_END = b"\0" * FRAME.size

_log = structlog.get_logger("hecaton.worker.memory.tail")

T = TypeVar("T")


class Tail:
    """Two halves: one is filled while the other one's records are on their way to the journal."""

    def __init__(self, path: Path) -> None:
        self._memory: mmap.mmap | None = None
        self._half = self._turns = 0
        self._at = 0
        self._busy = False
        try:
            self._memory = _mapped(path)
        except OSError as error:  # works without, as long as nobody kills the worker
            _log.warning("Cannot map the journal's tail", path=str(path), error=str(error))

    def read(self, decode: Callable[[bytes], T]) -> Iterator[T]:
        """What an earlier process left, oldest first; then it is empty."""
        data = b"" if self._memory is None else self._memory[:]
        halves = [list(_records(data[start : start + HALF])) for start in range(0, len(data), HALF)]
        self.clear()
        for body in (body for half in sorted(halves, key=_age) for body in half[1:]):
            try:
                yield decode(body)
            except msgspec.DecodeError:
                break  # written by another version

    def append(self, body: bytes) -> None:
        """Lost in a crash when there is no room: then the disk has not taken anything for long."""
        memory, end = self._memory, self._at + FRAME.size + len(body)
        if memory is None or end + FRAME.size > HALF:
            return
        start = self._half * HALF + self._at
        after = start + FRAME.size + len(body)
        # The end mark first and the record's head last: a process that is killed in between leaves no half record.
        memory[after : after + FRAME.size] = _END
        memory[start + FRAME.size : after] = body
        memory[start : start + FRAME.size] = FRAME.pack(len(body), zlib.crc32(body))
        self._at = end

    def turn(self) -> None:
        """What is in it now is being written."""
        if not self._busy:  # else the last try failed: both halves are still needed
            self._busy = True
            self._use(1 - self._half)

    def turned(self) -> None:
        """It was written."""
        self._busy = False
        self._empty(1 - self._half)

    def clear(self) -> None:
        """Nothing of it is needed any more."""
        self._busy = False
        self._empty(1 - self._half)
        self._use(self._half)

    def close(self) -> None:
        if self._memory is not None:
            self._memory.close()
            self._memory = None

    def _use(self, half: int) -> None:
        """Each half begins with its number, so that what stands in both is read back in order."""
        self._turns += 1
        self._half, self._at = half, 0
        self._empty(half)
        self.append(self._turns.to_bytes(8, "big"))

    def _empty(self, half: int) -> None:
        if self._memory is not None:
            self._memory[half * HALF : half * HALF + FRAME.size] = _END


def _mapped(path: Path) -> mmap.mmap:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(fd, 0, 2 * HALF)  # writing to a mapped page that a full disk cannot hold would be fatal
        return mmap.mmap(fd, 2 * HALF)
    finally:
        os.close(fd)


def _records(data: bytes) -> Iterator[bytes]:
    offset = 0
    while len(data) - offset >= FRAME.size:
        length, checksum = FRAME.unpack_from(data, offset)
        body = data[offset + FRAME.size : offset + FRAME.size + length]
        if not length or len(body) < length or zlib.crc32(body) != checksum:
            return
        yield body
        offset += FRAME.size + length


def _age(half: list[bytes]) -> int:
    return int.from_bytes(half[0], "big") if half else 0
