"""How much a container keeps in out/, where every byte and every name is its worker's. Looked at while it runs: no file
system that is everywhere bounds a folder.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Collection, Generator
from typing import Any

MAX_OUT = 4 << 30
"""Bytes, and never less than `RESULTS` of the largest results: one is written while others are fetched."""

RESULTS = 4

MAX_OUT_FILES = 10_000
"""Files and folders; a handler has one for each result that is fetched from there."""

MAX_OUT_DEPTH = 32
"""Folders in each other."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def excess(out: int, max_result: int, apart: Collection[str]) -> str | None:
    """What is too much in the folder of this descriptor, which is closed; None: nothing. In a thread.

    `apart`: names in it that do not count: logs are bounded otherwise. Never looks at much more than is allowed."""
    most = max(MAX_OUT, RESULTS * max_result)
    files = size = 0
    try:
        with contextlib.closing(_walk(out, apart)) as found:
            for depth, status in found:
                files += 1
                size += status.st_blocks * 512
                if files > MAX_OUT_FILES:
                    return f"more than {MAX_OUT_FILES} files"
                if size > most:
                    return f"more than {most} bytes"
                if depth > MAX_OUT_DEPTH:
                    return f"more than {MAX_OUT_DEPTH} folders in each other"
    except OSError:
        return None  # it changes meanwhile, or cannot be looked at
    return None


def _walk(out: int, apart: Collection[str]) -> Generator[tuple[int, os.stat_result]]:
    """How deep everything lies, from 1 on, and what it is. Follows no link."""
    folders: list[int] = [out]
    entries: list[Any] = []
    try:
        entries.append(os.scandir(out))
        while entries:
            entry = next(entries[-1], None)
            if entry is None:
                entries.pop().close()
                os.close(folders.pop())
                continue
            if len(entries) == 1 and entry.name in apart:
                continue
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError:  # gone meanwhile
                continue
            yield len(entries), status
            if stat.S_ISDIR(status.st_mode):
                try:
                    folder = os.open(entry.name, _FOLDER, dir_fd=folders[-1])
                except OSError:  # gone, or closed to this user
                    continue
                folders.append(folder)
                entries.append(os.scandir(folder))
    finally:
        for opened in entries:
            opened.close()
        for folder in folders:
            os.close(folder)
