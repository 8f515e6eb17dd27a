"""What handlers print: pieces of a container's log files, cut by attempt, capped, and kept until the server has them.

A container prints into one file until a job has left something there, and then into a new one; with an SDK of the
release before all attempts share one file. Offsets never change: space that nobody needs is given back by holes.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import signal
from collections.abc import Iterator
from typing import Protocol

import structlog

from hecaton.core.model import AttemptRef
from hecaton.wire.channel import Log
from hecaton.worker.link.leftovers import ContainerLeftovers

HEAD = TAIL = 32 * 1024 * 1024
"""Bytes of an attempt's log that are kept of its beginning and of its end."""

PIECE = 64 * 1024
FIRST = "log"
"""Name of the file that a container begins with."""

_RELEASE_STEP = 1024 * 1024
_PUNCH_HOLE = 0x02 | 0x01  # FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE: linux/falloc.h

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]

_log = structlog.get_logger("hecaton.worker.link.logs")


class LogFolder(Protocol):
    """Where a container's log files lie. It has spoilt what it likes there."""

    log_fd: int

    def open_log(self, name: str) -> int | None:
        """None: there is no plain file of that name."""

    def drop_log(self, fd: int, name: str) -> None:
        """Close and remove it."""


class LogFile:
    """A file that one container prints into, or has printed into: `name` as the folder knows it."""

    def __init__(self, fd: int, name: str = FIRST) -> None:
        self.fd = fd
        self.name = name
        self.needed: dict[AttemptRef, AttemptLog] = {}
        self.last: AttemptRef | None = None  # that printed into it
        self.claimed = 0  # up to here it is known whose each byte is
        self._released = 0

    @property
    def size(self) -> int:
        return os.fstat(self.fd).st_size

    @property
    def belongs_to_one(self) -> bool:
        """Whether what is printed into it now is some attempt's."""
        return any(log.end is None for log in self.needed.values())

    def release(self, size: int) -> None:
        """Give back the space in front of what is needed."""
        low = min((log.start for log in self.needed.values()), default=size)
        if low - self._released >= _RELEASE_STEP:
            _punch(self.fd, self._released, low - self._released)
            self._released = low

    def is_open_elsewhere(self) -> bool:
        """Whether a process may still print into it; False where the file system cannot tell."""
        try:
            fcntl.fcntl(self.fd, fcntl.F_SETSIG, signal.SIGURG)  # whoever opens it now ends the lease by a signal
            fcntl.fcntl(self.fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)  # which nobody gets who is not alone
        except OSError as error:
            return error.errno == errno.EAGAIN
        fcntl.fcntl(self.fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        return False


class AttemptLog:
    """The log of one attempt: from `start` on, until `end` is known, to the end of its file.

    Jobs behind it that may have begun, unheard yet, print into the same file: as long as there are some, only what was
    there before is known to be its own."""

    def __init__(self, ref: AttemptRef, file: LogFile, start: int, end: int | None = None) -> None:
        self.ref = ref
        self.file = file
        self.start = start
        self.end = end
        self._own: int | None = None  # up to here, if it may not be alone
        self._sent = 0
        self._trimmed = start + HEAD

    def share(self) -> None:
        """From now on jobs behind it may begin."""
        if self._own is None:
            self._own = self.file.size

    def follow(self) -> None:
        """It has begun unheard itself, and so may those behind it have."""
        self._own = self.start

    def regain(self) -> None:
        """None that may have begun is behind it."""
        self._own = None

    @property
    def is_in_doubt(self) -> bool:
        """Whether something was printed of which it is not known whose it is."""
        return self._own is not None and self.end is None and self.file.size > self._own

    def finish(self, end: int | None = None) -> None:
        """Nothing is added any more. `end`: where the container says that it ended; never believed beyond the file."""
        if end is not None and end <= self.start:  # it printed nothing: most short jobs
            self.end = self.start
            return
        if end is None:
            self.end = max(self.start, self.file.size if self._own is None else self._own)
        else:
            self.end = max(self.start, min(end, self.file.size))
        self.file.claimed = max(self.file.claimed, self.end)

    @property
    def size(self) -> int:
        """Bytes that are or will be sent of what was written so far."""
        written = self._written()
        if self.end is None:
            return min(written, HEAD)  # whether there is a middle to leave out is known at its end
        return written if written <= HEAD + TAIL else HEAD + len(self._mark()) + TAIL

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
        written = self._written()
        offset = max(0, written - limit)
        text = os.pread(self.file.fd, written - offset, self.start + offset).decode("utf-8", "replace")
        return text[text.find("\n") + 1 :] if offset else text

    def trim(self) -> None:
        """Give back the space of the middle: a storm must not fill the disk."""
        end = self.start + self._written() - TAIL
        if end > self._trimmed:
            _punch(self.file.fd, self._trimmed, end - self._trimmed)
            self._trimmed = end

    def _written(self) -> int:
        end = self.end
        if end is None:
            end = self.file.size if self._own is None else self._own
        return max(0, end - self.start)

    def _mark(self) -> bytes:
        return b"\n[Hecaton left out the %d bytes here: it keeps the first and the last 32 MiB of a log]\n" % (
            self._written() - HEAD - TAIL
        )

    def _read(self, offset: int, count: int) -> bytes:
        written = self._written()
        if offset >= HEAD and written > HEAD + TAIL:
            mark = self._mark()
            place = offset - HEAD - len(mark)
            if place < 0:
                return mark[offset - HEAD :][:count]
            return os.pread(self.file.fd, count, self.start + written - TAIL + place)
        if offset < HEAD:
            count = min(count, HEAD - offset)
        return os.pread(self.file.fd, count, self.start + offset)


class ContainerLog:
    """The log files of one container, and which attempts still need their part of them."""

    def __init__(self, folder: LogFolder, leftovers: ContainerLeftovers, *, begun: bool = False) -> None:
        """`begun`: an earlier process has given its container a job. `opens`: until the first job has ended, what the
        container says elsewhere is the beginning of that one's log. `elsewhere`: it says all of it there: what comes
        while a job runs is that one's."""
        self._folder = folder
        self._leftovers = leftovers
        self._first = self._now = LogFile(folder.log_fd)
        self._adopted = begun  # what its files hold by now, the earlier process has seen to
        self._first.claimed = self._first.size if begun else 0
        self._last: AttemptRef | None = None  # that has begun
        self._files: dict[str, LogFile] = {FIRST: self._first}
        self._needed: dict[AttemptRef, AttemptLog] = {}
        self._begun = begun
        self.opens = not begun
        self.elsewhere = False

    def begin(self, ref: AttemptRef, start: int | None = None) -> AttemptLog:
        """`start`: where the log of the job before ends, if the container has begun this one by itself.

        The first job's log begins with what the container said while it started: a script may be done by now."""
        if start is None:
            start = self._now.size if self._begun else 0
        if start > self._now.claimed:
            self._set_apart(self._now, start)
        self._begun = True
        self._last = self._now.last = ref
        return self._add(AttemptLog(ref, self._now, start))

    def begin_early(self, ref: AttemptRef) -> AttemptLog:
        """Of the job that the container is started for: it is given later, unless another one is the first."""
        return self._add(AttemptLog(ref, self._first, 0))

    def add(self, text: bytes) -> bool:
        """What the container has said elsewhere. Whether its log opens, with that."""
        at_work = None if self._last is None else self._needed.get(self._last)
        if self.opens or (self.elsewhere and at_work is not None and at_work.end is None):
            _append(self._now.fd, text)
        else:
            self._leftovers.take(self._last, text[: self._leftovers.room], len(text))
        return self.opens

    def go_on(self, ref: AttemptRef, name: str, start: int, end: int | None = None) -> AttemptLog:
        """With the log of an attempt of an earlier process. What is said is from its journal, the file may be another,
        or gone."""
        file = self._open(name)
        if file is None:
            file, start = self._first, self._first.size
        elif end is None:
            self._now = file
        size = file.size
        file.claimed = min(start, size) if end is None else max(file.claimed, size)
        self._last = file.last = ref
        return self._add(AttemptLog(ref, file, min(start, size), None if end is None else min(end, size)))

    def moved(self, name: str) -> bool:
        """The container prints into this file of its folder from now on. False: there is none."""
        file = self._open(name)
        if file is None:
            _log.warning("What a container prints is lost: it has no such log file", name=name[:100])
            return False
        if file is not self._now:
            before, self._now = self._now, file
            self._release(before)
        return True

    def write(self, ref: AttemptRef, text: str) -> AttemptLog:
        """The log of an attempt whose container never came up: what the engine heard of it."""
        log = self.begin(ref)
        if log.size == 0:
            _append(log.file.fd, text.encode("utf-8", "replace"))
        log.finish()
        return log

    @property
    def names(self) -> frozenset[str]:
        """Of the files that it has in out/, besides the first one's."""
        return frozenset(self._files)

    def forget(self, ref: AttemptRef) -> None:
        log = self._needed.pop(ref, None)
        if log is not None and log.file.needed.pop(ref, None) is not None:
            if log.end is None:  # handed back or dropped: what it has printed is its own all the same
                log.finish()
            self._release(log.file)

    @property
    def needed(self) -> bool:
        return bool(self._needed)

    def trim_idle(self) -> None:
        """What threads and child processes that were left behind print belongs to nobody."""
        for file in list(self._files.values()):
            if not file.needed:
                self._release(file)
            elif not file.belongs_to_one:
                self._set_apart(file, file.size)

    def close(self) -> None:
        """Its container is gone, and nobody needs a log of it."""
        self.trim_idle()
        self._leftovers.close()

    def _set_apart(self, file: LogFile, until: int) -> None:
        """What was printed into it up to there is no job's, as far as it is not known to be one's. What comes before
        the first job is the beginning of that one's log."""
        size = until - file.claimed
        if size > 0 and self._begun:
            text = os.pread(file.fd, min(size, self._leftovers.room), file.claimed)
            self._leftovers.take(file.last or self._last, text, size)
            file.claimed = until

    def _add(self, log: AttemptLog) -> AttemptLog:
        before = self._needed.get(log.ref)
        if before is not None:
            before.file.needed.pop(log.ref, None)
        self._needed[log.ref] = log.file.needed[log.ref] = log
        return log

    def _open(self, name: str) -> LogFile | None:
        if name not in self._files:
            fd = self._folder.open_log(name)
            if fd is None:
                return None
            self._files[name] = file = LogFile(fd, name)
            file.claimed = file.size if self._adopted else 0
        return self._files[name]

    def _release(self, file: LogFile) -> None:
        size = file.size
        if not file.needed and size > file.claimed:
            self._set_apart(file, size)
        if file.needed or file is self._now or file is self._first or file.is_open_elsewhere():
            file.release(size)
            return
        del self._files[file.name]
        self._folder.drop_log(file.fd, file.name)


def _append(fd: int, text: bytes) -> None:
    """On a full disk this does nothing: that is not worth a job, and its last words are in its failure too."""
    with contextlib.suppress(OSError):
        os.write(fd, text)


def _punch(fd: int, offset: int, length: int) -> None:
    """On file systems without holes this does nothing, and the space comes back when the container goes."""
    _libc.fallocate(fd, _PUNCH_HOLE, offset, length)
