"""What handlers print: pieces of a container's log file, cut by attempt, capped, and kept until the server has them.

All attempts of a warm container share one append-only file, whose offsets never change; space behind and beyond is
given back to the disk by holes.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator

from hecaton.core.model import AttemptRef
from hecaton.wire.channel import Log

CAP = 64 * 1024 * 1024
"""Bytes of log that an attempt may keep."""

MARK = b"\n[log truncated at 64 MiB by Hecaton]\n"
PIECE = 64 * 1024
_RELEASE_STEP = 1024 * 1024
_PUNCH_HOLE = 0x02 | 0x01  # FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE: linux/falloc.h

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


class AttemptLog:
    """The log of one attempt: from `start` on, until `end` is known, to the end of the file."""

    def __init__(self, ref: AttemptRef, fd: int, start: int, end: int | None = None) -> None:
        self.ref = ref
        self.start = start
        self.end = end
        self._fd = fd
        self._sent = 0

    def finish(self, end: int | None = None) -> None:
        """Nothing is added any more. `end`: where the container says that it ended; never believed beyond the file."""
        if end is not None and end <= self.start:  # it printed nothing: most short jobs
            self.end = self.start
            return
        size = os.fstat(self._fd).st_size
        self.end = size if end is None else max(self.start, min(end, size))

    @property
    def size(self) -> int:
        """Bytes that are or will be sent of what was written so far."""
        written = self._written()
        return written if written <= CAP else CAP + len(MARK)

    @property
    def unsent(self) -> int:
        return self.size - self._sent

    def rewind(self) -> None:
        """Send it all again: what was on its way when a connection broke may be lost."""
        self._sent = 0

    def pieces(self, limit: int) -> Iterator[Log]:
        """What was not sent yet, up to about `limit` bytes."""
        size = self.size
        while self._sent < size and limit > 0:
            data = self._read(self._sent, min(PIECE, limit, size - self._sent))
            if not data:
                return
            yield Log(self.ref, self._sent, data)
            self._sent += len(data)
            limit -= len(data)

    def tail(self, limit: int) -> str:
        """The last lines, for a message."""
        written = min(self._written(), CAP)
        offset = max(0, written - limit)
        text = os.pread(self._fd, written - offset, self.start + offset).decode("utf-8", "replace")
        return text[text.find("\n") + 1 :] if offset else text

    def trim(self) -> None:
        """Give back the space of what is over the cap: a storm must not fill the disk."""
        beyond = self._written() - CAP
        if beyond > 0:
            _punch(self._fd, self.start + CAP, beyond)

    def _written(self) -> int:
        end = os.fstat(self._fd).st_size if self.end is None else self.end
        return max(0, end - self.start)

    def _read(self, offset: int, count: int) -> bytes:
        if offset < CAP:
            return os.pread(self._fd, min(count, CAP - offset), self.start + offset)
        return MARK[offset - CAP : offset - CAP + count]


class ContainerLog:
    """The log file of one container, and which attempts still need their part of it."""

    def __init__(self, fd: int, *, begun: bool = False) -> None:
        """`begun`: an earlier process has given its container a job."""
        self._fd = fd
        self._needed: dict[AttemptRef, AttemptLog] = {}
        self._released = 0
        self._begun = begun

    def begin(self, ref: AttemptRef, start: int | None = None) -> AttemptLog:
        """`start`: where the log of the job before ends, if the container has begun this one by itself.

        The first job's log begins with what the container said while it started: a script may be done by now."""
        if start is None:
            start = os.fstat(self._fd).st_size if self._begun else 0
        self._begun = True
        log = self._needed[ref] = AttemptLog(ref, self._fd, start)
        return log

    def go_on(self, ref: AttemptRef, start: int, end: int | None = None) -> AttemptLog:
        """With the log of an attempt of an earlier process. The offset is from its journal, the file may be another."""
        size = os.fstat(self._fd).st_size
        log = self._needed[ref] = AttemptLog(ref, self._fd, min(start, size), None if end is None else min(end, size))
        return log

    def write(self, ref: AttemptRef, text: str) -> AttemptLog:
        """The log of an attempt whose container never came up: what the engine heard of it."""
        log = self.begin(ref)
        if log.size == 0:
            os.write(self._fd, text.encode("utf-8", "replace"))
        log.finish()
        return log

    def forget(self, ref: AttemptRef) -> None:
        if self._needed.pop(ref, None) is not None:
            self._release()

    @property
    def needed(self) -> bool:
        return bool(self._needed)

    def trim_idle(self) -> None:
        """Between jobs: what threads and child processes that were left behind print belongs to nobody."""
        if not self._needed:
            self._release()

    def _release(self) -> None:
        first = next(iter(self._needed.values()), None)
        low = os.fstat(self._fd).st_size if first is None else first.start
        if low - self._released >= _RELEASE_STEP:
            _punch(self._fd, self._released, low - self._released)
            self._released = low


def _punch(fd: int, offset: int, length: int) -> None:
    """On file systems without holes this does nothing, and the space comes back when the container goes."""
    _libc.fallocate(fd, _PUNCH_HOLE, offset, length)
