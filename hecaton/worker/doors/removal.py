"""Removes what containers have left in their folders, whatever it is: 100,000 folders in each other, a million files,
modes and bits that forbid it. What cannot be removed is named in the worker's log, once.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import secrets
import stat
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import structlog

REMOVAL_SECONDS = 300.0
"""That one folder may take; the rest of it comes with the next sweep."""

REMOVAL_PATIENCE = 5.0
"""Seconds that the start and the end of a worker wait for removals; what is left then goes later."""

_KEPT_IN_MIND = 1000
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_GET_FLAGS, _SET_FLAGS = 0x80086601, 0x40086602  # FS_IOC_GETFLAGS, FS_IOC_SETFLAGS: linux/fs.h
_FLAGS = struct.Struct("@L")
_FORBIDDING = 0x10 | 0x20  # FS_IMMUTABLE_FL, FS_APPEND_FL

_log = structlog.get_logger("hecaton.worker.doors.removal")


class Remover:
    """One folder after the other, in a thread of its own: others have results to store. Used on the worker's loop."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "removal")
        self._removing: dict[Path, asyncio.Future[str | None]] = {}
        self._named: set[Path] = set()
        self._closing = threading.Event()

    def remove(self, path: Path) -> None:
        """Nothing of the container may run any more. What is left of it may be handed in again."""
        if path in self._removing or self._closing.is_set():
            return
        removal = asyncio.get_running_loop().run_in_executor(self._thread, remove, path, self._closing.is_set)
        self._removing[path] = removal
        removal.add_done_callback(lambda done: self._removed(path, done))

    async def wait(self) -> None:
        """Until all that was handed in is gone; no longer than `REMOVAL_PATIENCE`."""
        if self._removing:
            await asyncio.wait(list(self._removing.values()), timeout=REMOVAL_PATIENCE)

    async def close(self) -> None:
        """The next process of this worker removes what is left."""
        await self.wait()
        self._closing.set()
        self._thread.shutdown(cancel_futures=True)

    def _removed(self, path: Path, done: asyncio.Future[str | None]) -> None:
        self._removing.pop(path, None)
        if done.cancelled():
            return
        error = done.exception()
        left = repr(error) if error is not None else done.result()
        if left is None:
            self._named.discard(path)
        elif path not in self._named and not self._closing.is_set():
            self._named.add(path)
            _log.error("Not all that a container has left can be removed: see to it", folder=str(path), left=left)


def remove(path: Path, given_up: Callable[[], bool] = lambda: False) -> str | None:
    """Returns what is left and why, for people; None: nothing. Follows no link. Nothing else may write there."""
    return _Removal(path, given_up).run()


class _Removal:
    """Folders that are not empty are moved up into the outermost one before they are looked into: so it takes neither
    memory nor descriptors nor a deep stack, however deep they lie."""

    def __init__(self, path: Path, given_up: Callable[[], bool]) -> None:
        self._path = path
        self._given_up = given_up
        self._until = time.monotonic() + REMOVAL_SECONDS
        self._prefix = secrets.token_hex(8)
        self._moved = 0
        self._lifted: list[str] = []  # the next passes find the rest
        self._done = 0
        self._left: str | None = None

    def run(self) -> str | None:
        try:
            if not stat.S_ISDIR(os.lstat(self._path).st_mode):
                os.unlink(self._path)
                return None
            outermost = _open_folder(str(self._path))
        except FileNotFoundError:
            return None
        except OSError as error:
            return str(error)
        try:
            before = -1
            while self._done > before and not self._is_over():
                before = self._done
                self._left = None
                self._empty(outermost)
        finally:
            os.close(outermost)
        try:
            os.rmdir(self._path)
        except FileNotFoundError:
            return None
        except OSError as error:
            return self._left or str(error)
        return None

    def _is_over(self) -> bool:
        return self._given_up() or time.monotonic() > self._until

    def _empty(self, outermost: int) -> None:
        """As far as it goes in one pass: what is moved up meanwhile may be seen in the next one only."""
        for entry in _entries(outermost):
            self._remove(outermost, entry.name, entry.is_dir(follow_symlinks=False))
            while self._lifted:
                self._remove(outermost, self._lifted.pop(), True)
            if self._is_over():
                return

    def _remove(self, outermost: int, name: str, is_folder: bool) -> None:
        if is_folder:
            self._flatten(outermost, name)
        if not self._is_over():
            self._drop(outermost, name, is_folder)

    def _flatten(self, outermost: int, name: str) -> None:
        """Remove what is in this folder, and move up those in it that are not empty."""
        try:
            folder = _open_folder(name, outermost)
        except OSError as error:
            self._note(name, error)
            return
        try:
            for entry in _entries(folder):
                if self._is_over():
                    return
                if not self._drop(folder, entry.name, entry.is_dir(follow_symlinks=False)):
                    self._lift(folder, entry.name, outermost)
        except OSError as error:
            self._note(name, error)
        finally:
            os.close(folder)

    def _drop(self, folder: int, name: str, is_folder: bool) -> bool:
        """False: it is a folder and not empty."""
        drop = os.rmdir if is_folder else os.unlink
        try:
            _insist(lambda: drop(name, dir_fd=folder), folder, name)
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                return False
            self._note(name, error)
            return True
        self._done += 1
        return True

    def _lift(self, folder: int, name: str, outermost: int) -> None:
        self._moved += 1
        target = f"{self._prefix}.{self._moved}"

        def move() -> None:
            os.rename(name, target, src_dir_fd=folder, dst_dir_fd=outermost)

        try:
            with contextlib.suppress(OSError):
                os.close(_open_folder(name, folder))  # moving it writes into it
            _insist(move, folder, name)
        except OSError as error:
            self._note(name, error)
            return
        self._done += 1
        if len(self._lifted) < _KEPT_IN_MIND:
            self._lifted.append(target)

    def _note(self, name: str, error: OSError) -> None:
        self._left = self._left or f"{name[:100]!r}: {error.strerror}"


def _entries(folder: int) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        yield from entries


def _open_folder(name: str, inside: int | None = None) -> int:
    """So that what is in it can be removed. Raises OSError."""
    try:
        folder = os.open(name, _FOLDER, dir_fd=inside)
    except PermissionError:
        handle = os.open(name, os.O_PATH | _FOLDER, dir_fd=inside)
        try:
            os.chmod(f"/proc/self/fd/{handle}", 0o700)
        finally:
            os.close(handle)
        folder = os.open(name, _FOLDER, dir_fd=inside)
    with contextlib.suppress(PermissionError):  # somebody else's: root may all the same
        if os.fstat(folder).st_mode & 0o700 != 0o700:
            os.fchmod(folder, 0o700)
    return folder


def _insist(call: Callable[[], None], folder: int, name: str) -> None:
    """Once more without the bits that forbid it. Raises OSError."""
    try:
        call()
    except PermissionError:
        _free(folder)
        with contextlib.suppress(OSError):
            entry = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
            _free(entry)
            os.close(entry)
        call()


def _free(fd: int) -> None:
    """Take the bits away that make a file or folder immutable, where the file system has some."""
    with contextlib.suppress(OSError):
        (flags,) = _FLAGS.unpack(fcntl.ioctl(fd, _GET_FLAGS, bytes(_FLAGS.size)))
        if flags & _FORBIDDING:
            fcntl.ioctl(fd, _SET_FLAGS, _FLAGS.pack(flags & ~_FORBIDDING))
