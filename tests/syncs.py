"""What a process has told the kernel to put on the disk: all that would be left of its files after a power cut."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


class Syncs:
    """`files`: name of each synced file, with its bytes at that time; folders have their names. In order."""

    def __init__(self) -> None:
        self.files: list[tuple[str, bytes]] = []

    def watched(self, sync: Callable[[int], None]) -> Callable[[int], None]:
        def watch(fd: int) -> None:
            path = Path(os.readlink(f"/proc/self/fd/{fd}"))
            sync(fd)
            is_file = stat.S_ISREG(os.fstat(fd).st_mode)
            self.files.append((path.name, path.read_bytes() if is_file else b""))

        return watch

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.files]


@contextlib.contextmanager
def watching() -> Iterator[Syncs]:
    syncs = Syncs()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("fsync", "fdatasync"):
            patch.setattr(os, name, syncs.watched(getattr(os, name)))
        yield syncs
