"""What is in the folders that travel with jobs, each content once, by its sha256.

Nothing is noted anywhere: a file appears under its name when it is whole, and one whose size is not that of the
manifest counts as missing: file systems let a file have its size when its bytes are on the disk, so that is what a
power cut leaves of one. A container sees these files only through a layer that it cannot
write to (`workfolders`).
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from hecaton.core.files.manifest import Entry
from hecaton.wire.bundles import HEAD_SIZE, read_head

SHARE = 0.1
"""Of the disk: what folders hold, kept for the next job that has the same."""

MAX_CONTENT = 64 * 1024**3
"""Bytes of it at most, however large the disk is."""

OPEN_FILE, OPEN_PROGRAM, OPEN_FOLDER = 0o666, 0o777, 0o777
"""Images run as any user, and a job may change its own: nobody else enters the worker's folder."""

_SHA256 = re.compile(r"[0-9a-f]{64}")


class Damaged(Exception):
    """What came is not what was asked for."""


class Contents:
    """`folder` is made if it is not there. In threads; several may work at once."""

    def __init__(self, folder: Path, limit: int | None = None) -> None:
        """`limit`: bytes; None: SHARE of the disk. Raises OSError."""
        self.folder = folder
        self._limit = limit
        self._parts = 0
        self._lock = threading.Lock()
        folder.mkdir(mode=0o700, exist_ok=True)
        for name in os.listdir(folder):
            if not _SHA256.fullmatch(name.removesuffix(_PROGRAM)):  # a process of this worker was cut off
                (folder / name).unlink()

    def lacks(self, entries: Iterable[Entry]) -> dict[str, int]:
        """Sizes by sha256 of those that are not here. Those that are, are used now."""
        missing, place, now = {}, f"{self.folder}/", time.time_ns()
        for entry in entries:  # thousands, of which one is missing: somebody waits for the first line of his job
            path = place + entry.sha256
            try:
                found = os.lstat(path)
            except FileNotFoundError:
                missing[entry.sha256] = entry.size
                continue
            if found.st_size != entry.size:
                missing[entry.sha256] = entry.size
            else:
                os.utime(path, ns=(now, found.st_mtime_ns))
        return missing

    def file(self, entry: Entry) -> str:
        """Of a file that is here: never to be written to, or linked to where somebody writes. Raises OSError."""
        plain = f"{self.folder}/{entry.sha256}"
        if not entry.executable:
            return plain
        program = Path(plain + _PROGRAM)  # a mode is that of all links of a file
        if not self._has(program, entry.size):
            part = self._part(entry.sha256)
            shutil.copyfile(plain, part)
            part.chmod(OPEN_PROGRAM)
            part.replace(program)
        return str(program)

    def part(self, sha256: str, size: int) -> Arriving:
        """To be filled with this content. Raises OSError."""
        return Arriving(self._part(sha256), self.folder / sha256, size)

    def prune(self) -> int:
        """Drops what was used least recently and lies in no folder that is laid out, until the rest is within the
        limit. Returns the bytes that are over it still. Raises OSError."""
        found = []
        with os.scandir(self.folder) as entries:
            for entry in entries:
                found.append((entry.stat(follow_symlinks=False), entry.path))
        over = sum(status.st_size for status, _ in found) - self.limit()
        for status, path in sorted(found, key=lambda item: item[0].st_atime):
            if over <= 0:
                break
            if status.st_nlink == 1 and not path.endswith(_UNFINISHED):
                os.unlink(path)
                over -= status.st_size
        return over

    def limit(self) -> int:
        if self._limit is not None:
            return self._limit
        return min(MAX_CONTENT, int(shutil.disk_usage(self.folder).total * SHARE))

    def _has(self, path: Path, size: int) -> bool:
        try:
            return os.lstat(path).st_size == size
        except FileNotFoundError:
            return False

    def _part(self, sha256: str) -> Path:
        with self._lock:
            self._parts += 1
            return self.folder / f"{sha256}.{self._parts}{_UNFINISHED}"


_PROGRAM = ".x"
_UNFINISHED = ".part"


class Arriving:
    """A content on its way: `write`, then `finish`, or `close` alone."""

    def __init__(self, path: Path, target: Path, size: int) -> None:
        """Raises OSError."""
        self._path = path
        self._target = target
        self._left = size
        self._hash = hashlib.sha256()
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def write(self, data: memoryview) -> None:
        """Raises Damaged for more than its size, OSError."""
        self._left -= len(data)
        if self._left < 0:
            raise Damaged(f"{self._target.name} has more bytes than its size says")
        self._hash.update(data)
        while data:
            data = data[os.write(self._fd, data) :]

    def finish(self) -> None:
        """It is there from now on. Raises Damaged, OSError."""
        if self._left or self._hash.hexdigest() != self._target.name:
            raise Damaged(f"what came as {self._target.name} is something else")
        os.fchmod(self._fd, OPEN_FILE)
        os.replace(self._path, self._target)
        self.close()

    def close(self) -> None:
        """What is not finished goes. Twice does no harm."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self._path.unlink(missing_ok=True)


class Unpacking:
    """Takes a bundle apart: one content after the other, each with its head. `feed` in threads, one after the other;
    `close` in any case, also while a cancelled task has left `feed` at work: it waits for that."""

    def __init__(self, contents: Contents, wanted: Mapping[str, int]) -> None:
        """`wanted`: sizes by sha256."""
        self.missing = dict(wanted)
        self._contents = contents
        self._head = bytearray()
        self._part: Arriving | None = None
        self._left = 0
        self._sha256 = ""
        self._closed = False
        self._working = threading.Lock()

    def feed(self, data: bytes) -> None:
        """Raises Damaged for what was not asked for or is not what it says, OSError."""
        with self._working:
            if not self._closed:
                self._feed(memoryview(data))

    def _feed(self, view: memoryview) -> None:
        while view or (self._part is not None and not self._left):
            if self._part is None:
                taken = min(HEAD_SIZE - len(self._head), len(view))
                self._head += view[:taken]
                view = view[taken:]
                if len(self._head) == HEAD_SIZE:
                    self._begin()
                continue
            taken = min(self._left, len(view))
            self._part.write(view[:taken])
            view = view[taken:]
            self._left -= taken
            if not self._left:
                self._part.finish()
                self._part = None
                del self.missing[self._sha256]

    def close(self) -> None:
        with self._working:
            self._closed = True
            if self._part is not None:
                self._part.close()
                self._part = None

    def _begin(self) -> None:
        sha256, size = read_head(bytes(self._head))
        self._head.clear()
        if self.missing.get(sha256) != size:
            raise Damaged(f"{size} bytes of {sha256} are not what was asked for")
        self._part, self._left, self._sha256 = self._contents.part(sha256, size), size, sha256


__all__ = ["MAX_CONTENT", "SHARE", "Arriving", "Contents", "Damaged", "Unpacking"]
