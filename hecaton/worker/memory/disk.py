"""Notices that the worker's disk is full, and that it has room again."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import structlog

PROBE = 4 * 1024 * 1024
"""Bytes that must find room before the disk counts as good again."""

INTERVAL = 1.0
"""Seconds between two probes of a full disk."""

_log = structlog.get_logger("hecaton.worker.memory.disk")


class Disk:
    """`say` hears True when the disk is full and False when it is not any more, in turn. On the loop; only the probe
    is written in a thread."""

    def __init__(self, folder: Path, say: Callable[[bool], None]) -> None:
        self._path = folder / "probe"
        self._say = say
        self._probing: asyncio.Task[None] | None = None

    def refused(self) -> None:
        """Something could not be written."""
        if self._probing is None:
            self._probing = asyncio.get_running_loop().create_task(self._probe())
            self._say(True)
            _log.error("The disk of the worker's folder is full: no new jobs until there is room")

    def close(self) -> None:
        if self._probing is not None:
            self._probing.cancel()

    async def _probe(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL)
            if await asyncio.to_thread(_has_room, self._path):
                break
        self._probing = None
        _log.info("The disk of the worker's folder has room again")
        self._say(False)


def _has_room(path: Path) -> bool:
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
