"""What containers print that is no job's: between two jobs, or by what a job has left behind, after its end. It goes
into no job's log; it is kept for who looks after the machine, and the worker's log says that there is some."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import structlog

from hecaton.core.model import AttemptRef

KEPT_OF_ONE = 1024 * 1024
"""Bytes of one container; what comes then is only counted."""

KEPT_FILES = 100
"""Containers of which something is kept; of more the oldest go."""

SAY_SECONDS = 60.0
"""Between two lines in the worker's log about one container."""

_log = structlog.get_logger("hecaton.worker.link.leftovers")


class Leftovers:
    """Of one worker: a file for each container, `folder`/CONTAINER.log."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def of(self, container: str) -> ContainerLeftovers:
        return ContainerLeftovers(self._folder / f"{container}.log")


class ContainerLeftovers:
    """`room`: bytes that are still kept. Where the disk takes nothing they are counted all the same."""

    def __init__(self, file: Path) -> None:
        self.room = KEPT_OF_ONE
        self._file = file
        self._after: AttemptRef | None = None  # as the file has it
        self._size = 0
        self._said = 0
        self._silent_until = 0.0

    def take(self, after: AttemptRef | None, text: bytes, size: int) -> None:
        """`size` bytes that were printed after this attempt had ended. `text`: their beginning, at most `room`."""
        self._size += size
        self.room -= len(text)
        if text and after is not None and after != self._after:
            self._after = after
            text = b"[after job %s, attempt %d]\n%s" % (after.job.encode(), after.attempt, text)
        if text:
            self._append(text)
        if time.monotonic() >= self._silent_until:
            self._silent_until = time.monotonic() + SAY_SECONDS
            self._say()

    def close(self) -> None:
        """The container is gone."""
        if self._size > self._said:
            self._say()

    def _append(self, text: bytes) -> None:
        with contextlib.suppress(OSError):
            if not self._file.exists():
                self._file.parent.mkdir(mode=0o700, exist_ok=True)
                _prune(self._file.parent)
            fd = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.write(fd, text)
            finally:
                os.close(fd)

    def _say(self) -> None:
        self._said = self._size
        _log.info(
            "A container has printed what is no job's: a job had ended, and something that it left behind goes on",
            job=None if self._after is None else self._after.job,
            bytes=self._size,
            kept_in=str(self._file),
        )


def _prune(folder: Path) -> None:
    """So that there is room for one more. Raises OSError."""
    kept = sorted(folder.glob("*.log"), key=lambda file: file.stat().st_mtime)
    for file in kept[: max(0, len(kept) - KEPT_FILES + 1)]:
        file.unlink()


__all__ = ["KEPT_FILES", "KEPT_OF_ONE", "SAY_SECONDS", "ContainerLeftovers", "Leftovers"]
