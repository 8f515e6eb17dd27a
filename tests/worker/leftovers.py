"""What a container may leave in its folder, made on the spot: `python -m tests.worker.leftovers FOLDER` makes it, and
removes it as a worker does. Also for Pythons that have nothing of the project installed but what removal needs."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path

from hecaton.worker.doors.removal import remove

DEEP = 1200
"""Levels: more than Python's stack has."""


def make(folder: Path, *, deep: int = DEEP, files: int = 10) -> None:
    """In a folder that is there."""
    nest(folder, deep)
    (folder / "many").mkdir()
    for number in range(files):
        os.mknod(folder / f"many/{number}")
    (folder / ("n" * 255)).touch()
    (folder / "not\udcff text").touch()
    os.mkfifo(folder / "pipe")
    os.mknod(folder / "device", 0o666 | 0o020000, os.makedev(1, 5))
    (folder / "link").symlink_to("/etc")
    with socket.socket(socket.AF_UNIX) as listener, contextlib.chdir(folder):
        listener.bind("listener")
    for name, bits in (("immutable", "+i"), ("only to append to", "+a")):
        (folder / name / "below").mkdir(parents=True)
        (folder / name / "below/file").touch()
        subprocess.run(["chattr", "-R", bits, str(folder / name)], check=False)  # where the file system has bits
    (folder / "locked/below").mkdir(parents=True)
    (folder / "locked/below/file").touch()
    for name in ("locked/below", "locked", "."):
        (folder / name).chmod(0)


def nest(folder: Path, levels: int) -> None:
    """Folders in each other, each with a file."""
    here = os.open(folder, os.O_RDONLY)
    for _ in range(levels):
        os.mknod("file", dir_fd=here)
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


if __name__ == "__main__":
    made = Path(sys.argv[1])
    made.mkdir()
    make(made)
    assert remove(made) is None
    assert not made.exists()
