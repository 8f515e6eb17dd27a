"""The last records of the journal, in memory that a killed process leaves behind: a mapped file.

Appending costs a copy and no system call. A power cut may lose it: what must survive that is synced in the journal.
"""

from __future__ import annotations

import mmap
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import structlog

FRAME = struct.Struct("!II")
"""In front of each record: its length and CRC-32."""

HALF = 2 * 1024 * 1024
"""Bytes for what waits to be written; as many again for what is being written."""

_END = b"\0" * FRAME.size

_log = structlog.get_logger("hecaton.worker.memory.tail")


class Tail:
    """Two halves: one is filled while the other one's records are on their way to the journal. On the loop.

    `left`: version of the records that an earlier process left; None: there are none."""

    def __init__(self, path: Path, version: int) -> None:
        """`version`: of the records that will be appended, at most 255."""
        self._memory: mmap.mmap | None = None
        self._version = version
        self._half = self._uses = 0
        self._at = 0
        self._busy = False
        try:
            self._memory = _mapped(path)
        except OSError as error:  # works without, as long as nobody kills the worker
            _log.warning("Cannot map the journal's tail", path=str(path), error=str(error))
        self.left = max((_version(half) for half in self._halves() if len(half) > 1), default=None)

    def read(self) -> Iterator[bytes]:
        """The records that an earlier process left, oldest first; then it is empty."""
        halves = self._halves()
        self.clear()
        yield from (body for half in sorted(halves, key=_age) for body in half[1:])

    def _halves(self) -> list[list[bytes]]:
        data = b"" if self._memory is None else self._memory[:]
        return [list(_records(data[start : start + HALF])) for start in range(0, len(data), HALF)]

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
        """Each half begins with its number, so that what stands in both is read back in order, and with the version."""
        self._uses += 1
        self._half, self._at = half, 0
        self._empty(half)
        self.append(self._uses.to_bytes(8, "big") + bytes((self._version,)))

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
    return int.from_bytes(half[0][:8], "big") if half else 0


def _version(half: list[bytes]) -> int:
    """0: older than all that say one."""
    return half[0][8] if len(half[0]) > 8 else 0
