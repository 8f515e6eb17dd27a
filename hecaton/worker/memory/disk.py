"""Notices that the worker's disk is full, and that it has room again.

A full disk is no job's fault: what fails for it is charged to nobody, or where a handler has tried, to the machine.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from pathlib import Path

import structlog

PROBE = 4 * 1024 * 1024
"""Bytes that must find room before the disk counts as good again."""

MAX_WANTED = 64 * 1024 * 1024
"""Bytes for which a disk may count as full: one job that wants more than it has keeps the others from nothing."""

ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT})
"""Of a disk or a share of it that is full."""

IN_WORDS = frozenset(os.strerror(number) for number in ERRORS)
"""As programs pass it on."""

INTERVAL = 1.0
"""Seconds between two probes of a full disk."""

_log = structlog.get_logger("hecaton.worker.memory.disk")


class Disk:
    """`say` hears True when the disk is full and False when it is not any more, in turn. On the loop; only the probe
    is written in a thread."""

    def __init__(self, folder: Path, say: Callable[[bool], None]) -> None:
        self._folder = folder
        self._path = folder / "probe"
        self._wanted = PROBE
        self._say = say
        self._probing: asyncio.Task[None] | None = None

    def refused(self, wanted: int = PROBE) -> None:
        """Something could not be written. `wanted`: bytes; with less room than that it would be again."""
        self._wanted = max(self._wanted, min(wanted, MAX_WANTED))
        if self._probing is None:
            self._probing = asyncio.get_running_loop().create_task(self._probe())
            self._say(True)
            _log.error("The disk of the worker's folder is full: no new jobs until there is room")

    def lacks(self, wanted: int, what: str = "the payload") -> str | None:
        """So many bytes found no room. None: it is full, as `refused` hears. Else it has room for others, and this is
        what to say of that one."""
        found = os.statvfs(self._folder)
        free = found.f_frsize * (found.f_bavail if os.geteuid() else found.f_bfree)
        if free >= wanted or (free < MAX_WANTED and found.f_frsize * found.f_blocks >= wanted):
            self.refused(wanted)
            return None
        return f"{what} has {wanted} bytes, the disk of this machine has room for {free}"

    def require_room(self, wanted: int) -> None:
        """OSError, as for the byte that finds none, before the first is written: the way there would take the room of
        all others."""
        if not _may_have_room(self._folder, wanted):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def is_full(self, wanted: int) -> bool:
        """Whether this many bytes find no room. False also where the file system does not tell."""
        return not _may_have_room(self._folder, min(wanted, MAX_WANTED))

    def close(self) -> None:
        if self._probing is not None:
            self._probing.cancel()

    async def _probe(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL)
            if await asyncio.to_thread(_has_room, self._path, self._wanted):
                break
        self._probing, self._wanted = None, PROBE
        _log.info("The disk of the worker's folder has room again")
        self._say(False)


def _may_have_room(folder: Path, wanted: int) -> bool:
    try:
        found = os.statvfs(folder)
    except OSError:
        return True
    free = found.f_bavail if os.geteuid() else found.f_bfree
    return free * found.f_frsize >= wanted or not found.f_blocks


def _has_room(path: Path, wanted: int) -> bool:
    if not _may_have_room(path.parent, wanted):
        return False
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    except OSError:
        return False
    try:
        written = os.write(fd, bytes(PROBE))
        os.fsync(fd)
    except OSError:
        return False
    finally:
        os.unlink(path)
        os.close(fd)
    return written == PROBE
