"""A file that several commands change at once, on every system that clients run on: a lock, reading, and replacement as
a whole.

On Windows a file that somebody has open can neither be replaced nor, at the moment of its replacement, be opened: there
both are tried again for a second.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

PAUSE = 0.02
TRIES = 50


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Alone among all that lock the same path. Waits for its turn; ends with the process, however that ends. OSError if
    the file cannot be made."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _lock(descriptor)
        try:
            yield
        finally:
            _unlock(descriptor)
    finally:
        os.close(descriptor)


def read(path: Path) -> bytes:
    """OSError, FileNotFoundError among them."""
    return _patiently(path.read_bytes)


def replace(path: Path, content: bytes) -> None:
    """The old content or the new one is there, whatever happens. For whoever holds the lock. OSError."""
    # One name for all: what a killed command left is overwritten.
    new = path.with_suffix(".new")
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    _patiently(lambda: os.replace(new, path))
    _sync_folder(path.parent)


def private_folder(folder: Path) -> None:
    """Made 0700, its parents too. One that is there already is closed to others; its parents keep their mode. Modes
    mean nothing on Windows, where what lies in a user's data folder is his own by inheritance."""
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    if sys.platform != "win32" and folder.stat().st_mode & 0o077:
        folder.chmod(0o700)


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        while True:
            try:
                os.lseek(descriptor, 0, os.SEEK_SET)
                msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
                return
            except OSError:  # somebody has it; msvcrt's own way to wait gives up after ten seconds
                time.sleep(PAUSE)

    def _unlock(descriptor: int) -> None:
        os.lseek(descriptor, 0, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

    def _patiently(work: Callable[[], T]) -> T:
        for _ in range(TRIES):
            with contextlib.suppress(PermissionError):
                return work()
            time.sleep(PAUSE)
        return work()

    def _sync_folder(folder: Path) -> None:
        """Folders cannot be opened there, and NTFS keeps a journal of renames."""

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX)

    def _unlock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)

    def _patiently(work: Callable[[], T]) -> T:
        return work()

    def _sync_folder(folder: Path) -> None:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
