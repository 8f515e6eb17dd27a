"""Which content files had when they were read the last time: `<HECATON_HOME>/client/folders/`. Only a hint: without it
a folder is read again."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from pathlib import Path

import msgspec

from hecaton.core.errors import BadRequest
from hecaton.wire.home import home

MAX_FOLDERS = 64
"""Folders that are remembered, those that were sent last."""

SETTLED = 2_000_000_000
"""Nanoseconds that a file must have been left alone: one that is written twice within a tick of its file system looks
as if it was written once."""


class SeenFile(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Of a file: what tells that it is another now, and its content."""

    modified: int
    changed: int
    inode: int
    size: int
    sha256: str


class SeenFiles:
    """Of one folder. Nothing that goes wrong with it is worth a word."""

    def __init__(self, root: Path) -> None:
        self._now = time.time_ns()
        self._before: dict[str, SeenFile] = {}
        self._after: dict[str, SeenFile] = {}
        self._file: Path | None = None
        with contextlib.suppress(OSError, BadRequest, msgspec.MsgspecError):
            name = hashlib.sha256(os.fsencode(os.path.realpath(root))).hexdigest()
            self._file = home() / "client" / "folders" / name
            self._before = msgspec.msgpack.decode(self._file.read_bytes(), type=dict[str, SeenFile])

    def known(self, path: str, status: os.stat_result) -> SeenFile | None:
        seen = self._before.get(path)
        if seen is None or (seen.modified, seen.changed, seen.inode, seen.size) != _of(status):
            return None
        self._after[path] = seen
        return seen

    def add(self, path: str, status: os.stat_result, sha256: str) -> SeenFile:
        seen = SeenFile(*_of(status), sha256)
        if max(seen.modified, seen.changed) < self._now - SETTLED:
            self._after[path] = seen
        return seen

    def save(self) -> None:
        if self._file is None or self._after == self._before:
            return
        with contextlib.suppress(OSError, UnicodeEncodeError):
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            unfinished = self._file.with_suffix(f".{os.getpid()}")
            with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as stream:
                stream.write(msgspec.msgpack.encode(self._after))
            os.replace(unfinished, self._file)
            others = sorted(self._file.parent.iterdir(), key=lambda one: one.stat().st_mtime)
            for old in others[:-MAX_FOLDERS]:
                old.unlink(missing_ok=True)


def _of(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_size
