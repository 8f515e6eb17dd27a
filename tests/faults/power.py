"""Power cuts without a power switch: a disk that forgets what was not synced, and a boot that workers see as another.

The cut is the kernel's own, made for tests of file systems: EXT4_IOC_SHUTDOWN, as xfstests use it."""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import struct
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random

import pytest

from hecaton.testing.cluster import LocalCluster

EXT4_IOC_SHUTDOWN = 0x8004587D
WITHOUT_FLUSHING_THE_JOURNAL = 2
SYNC_FILE_RANGE_WRITE = 2
MIB = 1 << 20
PAGE = 4096
SIZE = 512 * MIB
PATIENCE = 30.0
LAUNCHER = """\
#!/bin/sh
exec unshare --mount --propagation slave sh -c \
  'mount --bind "{boot}" /proc/sys/kernel/random/boot_id && exec "{python}" "$@"' sh "$@"
"""


class Disk:
    """An ext4 file system in a file, mounted at `folder`."""

    def __init__(self, base: Path) -> None:
        self.folder = base / "disk"
        self._image = base / "disk.img"
        self.folder.mkdir()
        with self._image.open("wb") as file:
            file.truncate(SIZE)
        subprocess.run(["mkfs.ext4", "-q", "-F", str(self._image)], check=True)
        self._mount()

    def cut(self, random: Random | None = None) -> None:
        """From now on nothing reaches it any more. Of what was written and not synced some pages are on it, drawn by
        `random` and in no order, as a drive with a cache of its own does it; the rest is gone."""
        if random is not None:
            for path in sorted(self.folder.rglob("*")):
                with suppress(OSError):
                    _write_back_some(path, random)
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.ioctl(folder, EXT4_IOC_SHUTDOWN, struct.pack("I", WITHOUT_FLUSHING_THE_JOURNAL))
        finally:
            os.close(folder)

    def back(self) -> None:
        """Mounted again, with what was on it at the cut. Nobody may have files open on it."""
        self._unmount()
        self._mount()

    def remove(self) -> None:
        self._unmount()
        self._image.unlink()

    def _mount(self) -> None:
        subprocess.run(["mount", "-o", "loop", str(self._image), str(self.folder)], check=True)

    def _unmount(self) -> None:
        """Whole: a process that was killed holds its files, and its view of the mounts, for another moment."""
        deadline = time.monotonic() + PATIENCE
        while not self._is_free():
            assert time.monotonic() < deadline, f"{self.folder} is in use; see fuser -vm {self.folder}"
            time.sleep(0.02)

    def _is_free(self) -> bool:
        if (
            self.folder.is_mount()
            and subprocess.run(["umount", str(self.folder)], stderr=subprocess.DEVNULL).returncode
        ):
            return False
        loops = ["losetup", "--noheadings", "--associated", str(self._image)]
        return not subprocess.run(loops, stdout=subprocess.PIPE, check=True).stdout


def _write_back_some(path: Path, random: Random) -> None:
    if not path.is_file() or path.is_symlink():
        return
    file = os.open(path, os.O_RDWR)
    try:
        pages = -(-os.fstat(file).st_size // PAGE)
        for page in random.sample(range(pages), pages // 3 if random.random() < 0.5 else 0):
            _libc.sync_file_range(file, ctypes.c_int64(page * PAGE), ctypes.c_int64(PAGE), SYNC_FILE_RANGE_WRITE)
    finally:
        os.close(file)


_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def fragile_disk(base: Path) -> Iterator[Disk]:
    disk = Disk(base)
    try:
        yield disk
    finally:
        disk.remove()


class Boot:
    """The boot that the processes of Hecaton find themselves in, as far as the kernel tells them."""

    def __init__(self, base: Path, patch: pytest.MonkeyPatch) -> None:
        self._id = base / "boot_id"
        launcher = base / "python-after-boot"
        launcher.write_text(LAUNCHER.format(boot=self._id, python=sys.executable))
        launcher.chmod(0o755)
        patch.setattr(sys, "executable", str(launcher))
        self.again()

    def again(self) -> None:
        """For processes that are started from now on: those that run keep theirs."""
        self._id.unlink(missing_ok=True)
        self._id.write_text(f"{uuid.uuid4()}\n")


def freeze_all_of(cluster: LocalCluster) -> None:
    """SIGSTOP of every process: nobody can say any more that something is on the disk."""
    wanted = f"HECATON_HOME={cluster.folder}".encode()
    for pid in [pid for pid, environment in _environments() if wanted in environment]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)


def kill_all_of(cluster: LocalCluster) -> None:
    """kill -9 of every process: server, workers and their handlers."""
    wanted = f"HECATON_HOME={cluster.folder}".encode()
    seen_none = 0
    while seen_none < 3:  # one that is just being started shows nothing for a moment
        pids = [pid for pid, environment in _environments() if wanted in environment]
        seen_none = 0 if pids else seen_none + 1
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    for process in (cluster.server, *cluster.workers.values()):
        if process is not None:
            process.kill()


def _environments() -> Iterator[tuple[int, list[bytes]]]:
    """Of live processes; a zombie has none."""
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            yield int(path.parent.name), path.read_bytes().split(b"\0")
