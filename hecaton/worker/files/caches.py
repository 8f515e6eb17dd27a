"""What jobs keep in `/cache` is bounded: what was used least recently goes."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import msgspec

from hecaton.worker.files.walk import FOLDER, walk

PERCENT = 25
"""Of the disk: all caches of a worker together."""

REST = 3600.0
"""Seconds without any use after which a folder of a cache may go."""

LOOK_EVERY = 600.0
"""Seconds between two looks: each of them walks through all caches."""


class _Cached(msgspec.Struct, frozen=True):
    path: Path
    size: int
    used_at: float


def excess(caches: Path, now: float, budget: int | None = None) -> list[Path]:
    """What is to go so that all caches are within the budget, as far as that is possible: whole folders, since
    half of one may be worse than none. Follows no link. In a thread."""
    entries = sorted(_entries(caches), key=lambda entry: entry.used_at)
    with contextlib.suppress(FileNotFoundError):
        budget = shutil.disk_usage(caches).total * PERCENT // 100 if budget is None else budget
    over = sum(entry.size for entry in entries) - (budget or 0)
    found = []
    for entry in entries:
        if over <= 0 or now - entry.used_at < REST:
            break
        found.append(entry.path)
        over -= entry.size
    return found


def _entries(caches: Path) -> Iterator[_Cached]:
    for owner in _listed(caches):
        for path in _listed(owner):
            size, used_at = 0, 0.0
            for status in _walk(path):
                size += status.st_blocks * 512
                used_at = max(used_at, status.st_mtime, status.st_atime if stat.S_ISREG(status.st_mode) else 0.0)
            yield _Cached(path, size, used_at)


def _listed(folder: Path) -> list[Path]:
    try:
        return [Path(entry.path) for entry in os.scandir(folder)]
    except OSError:
        return []


def _walk(path: Path) -> Iterator[os.stat_result]:
    """Of everything there, as far as it is looked into."""
    with contextlib.suppress(OSError):
        yield os.lstat(path)
        folder = os.open(path, FOLDER)
        try:
            for seen in walk(folder, ""):
                with contextlib.suppress(OSError):
                    yield os.stat(seen.name, dir_fd=seen.folder, follow_symlinks=False)
        finally:
            os.close(folder)


def set_aside(caches: Path, into: Path, now: float) -> int:
    """Moves what is to go into a folder where everything without use is removed; returns how much that is. In a
    thread."""
    gone = excess(caches, now)
    for path in gone:
        with contextlib.suppress(OSError):
            path.rename(into / f"{caches.name}-{secrets.token_hex(6)}")
    return len(gone)
