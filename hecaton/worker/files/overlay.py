"""Mounts one folder over another: what is written goes into the upper one, the lower one stays as it is."""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path

_DETACH, _NOFOLLOW = 2, 8  # MNT_DETACH, UMOUNT_NOFOLLOW: linux/fs.h
_NOSUID, _NODEV = 2, 4  # MS_NOSUID, MS_NODEV
_LONGEST = 4000
"""Bytes of options that the kernel takes are a page at most."""

_SPECIAL = frozenset(",:\\")

_PLAIN = "index=off,metacopy=off,redirect_dir=off"
"""Whatever this kernel's own defaults are: what is in the upper folder is complete, and can be read by itself."""


def mount(lower: Path, upper: Path, work: Path, merged: Path) -> None:
    """All on one file system that can carry it. Raises OSError."""
    paths = [str(path) for path in (lower, upper, work)]
    options = f"lowerdir={paths[0]},upperdir={paths[1]},workdir={paths[2]},{_PLAIN}"
    if any(_SPECIAL & set(path) for path in paths) or len(os.fsencode(options)) > _LONGEST:
        raise OSError("an overlay mount cannot be asked for with these names")
    target = os.fsencode(merged)
    if _libc().mount(b"overlay", target, b"overlay", _NOSUID | _NODEV, os.fsencode(options)):
        raise _error(merged)


def unmount(merged: Path) -> None:
    """Whoever works in it goes on; nothing of it is seen here any more. Does nothing where nothing is mounted. Raises
    OSError."""
    while _libc().umount2(os.fsencode(merged), _DETACH | _NOFOLLOW) == 0:
        pass
    error = _error(merged)
    if not isinstance(error, FileNotFoundError) and error.errno not in _NOT_MOUNTED:
        raise error


_NOT_MOUNTED = (1, 22)  # EPERM: this process may mount nothing; EINVAL: it is no place of a mount


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _error(path: Path) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), str(path))


__all__ = ["mount", "unmount"]
