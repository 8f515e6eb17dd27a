"""Everything in a folder that a container has filled, whatever it has put there.

Names are only ever opened relative to the folder that they were found in, and links are never followed: what is seen is
in the folder, whoever changes it meanwhile.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from itertools import islice

import msgspec

from hecaton.core.files.kept import MAX_LEVELS, MAX_NAME_BYTES, fault_of_name

MAX_SEEN = 1_000_000
"""Entries that are looked at: who makes more is told of no more."""

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""Opening a pipe waits for nobody."""

_KINDS = {
    stat.S_IFLNK: "it is a link",
    stat.S_IFIFO: "it is a pipe",
    stat.S_IFSOCK: "it is a socket",
    stat.S_IFBLK: "it is a device",
    stat.S_IFCHR: "it is a device",
}


class FolderEntry(msgspec.Struct, frozen=True):
    """A file, or what cannot be kept. `why`: it cannot, and this is why. `folder`, `name`: how it is opened, as long as
    the walk has not gone on."""

    path: str
    size: int
    executable: bool
    why: str
    folder: int
    name: str

    def open(self) -> int:
        """A descriptor of the plain file. Raises OSError for anything else that is there by now."""
        fd = os.open(self.name, _FILE, dir_fd=self.folder)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError("it is no plain file any more")
        return fd


def walk(root: int, leave_out: str) -> Iterator[FolderEntry]:
    """Of an open folder, in the order of names; the same order each time. `leave_out`: a name in it that is ours.

    Holds a descriptor for each level, and the names of the folders on its way. Close it to give these back."""
    left = MAX_SEEN
    levels: list[tuple[int, str, list[str]]] = []
    try:
        names = _names(root, left)
        left -= len(names)
        levels.append((os.dup(root), "", [name for name in names if name != leave_out]))
        while levels:
            folder, prefix, names = levels[-1]
            if not names:
                os.close(folder)
                levels.pop()
                continue
            name = names.pop()
            seen = _look(folder, prefix, name, len(levels))
            if seen is not None:
                yield seen
            elif isinstance(inner := _enter(folder, name, left), int):
                names = _names(inner, left)
                left -= len(names)
                levels.append((inner, f"{prefix}{name}/", names))
            else:
                yield FolderEntry(spelled(prefix + name), 0, False, inner, folder, name)
    finally:
        for folder, *_ in levels:
            os.close(folder)


def _look(folder: int, prefix: str, name: str, level: int) -> FolderEntry | None:
    """None: it is a folder that can be looked into."""
    path = prefix + name
    try:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError as error:
        return FolderEntry(spelled(path), 0, False, f"it cannot be read: {error.strerror}", folder, name)
    why = _KINDS.get(stat.S_IFMT(found.st_mode), "")
    if not why and (fault := fault_of_name(path)) is not None:
        why = f"its name {fault}"
    if not why and stat.S_ISDIR(found.st_mode):
        if level <= MAX_LEVELS:
            return None
        why = f"it lies under {MAX_LEVELS} folders"
    plain = not why
    return FolderEntry(
        path if plain else spelled(path),
        found.st_size if stat.S_ISREG(found.st_mode) else 0,
        plain and bool(found.st_mode & stat.S_IXUSR),
        why,
        folder,
        name,
    )


def _enter(folder: int, name: str, left: int) -> int | str:
    """A descriptor of the folder, or why there is none."""
    if left <= 0:
        return f"there are more than {MAX_SEEN:,} files and folders"
    try:
        return os.open(name, FOLDER, dir_fd=folder)
    except OSError as error:
        return f"it cannot be read: {error.strerror}"


def _names(folder: int, left: int) -> list[str]:
    """The last one first."""
    with os.scandir(folder) as entries:
        return sorted((entry.name for entry in islice(entries, max(0, left))), reverse=True)


def spelled(path: str) -> str:
    """A name that is none, as one: for people."""
    text = path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    while len(text.encode()) > MAX_NAME_BYTES:
        text = text[: -max(1, (len(text.encode()) - MAX_NAME_BYTES) // 4)]
    names = [name for name in text.split("/") if name]
    return "/".join(names[: MAX_LEVELS + 1])
