"""A folder as it is now: what of it is sent, by name and content. What has not changed since the last time is not read
again."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from hecaton.client.files.ignored import GIT, OURS, Patterns, Rules
from hecaton.client.files.seen import SeenFiles
from hecaton.core.errors import BadRequest, TooLarge
from hecaton.core.files.kept import MAX_LEVELS
from hecaton.core.files.manifest import MAX_ENTRIES, MAX_FOLDER, MAX_MANIFEST, Entry, encoded

PIECE = 1024 * 1024

LEAVE_IT_OUT = f"Name in {OURS} what is to stay here, as in {GIT}."


class Snapshot(msgspec.Struct, frozen=True):
    """`entries`: what is sent; `manifest`: the same as it travels. `left`: names of what stays here, those of folders
    with a '/' at their end."""

    folder: Path
    entries: tuple[Entry, ...]
    manifest: bytes
    left: tuple[str, ...]

    @property
    def files(self) -> int:
        return sum(entry.kind == "file" for entry in self.entries)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.entries)


def snapshot(folder: str | os.PathLike[str], exclude: Sequence[str] = (), most: int = MAX_FOLDER) -> Snapshot:
    """`exclude`: patterns as in `.gitignore`. BadRequest names what cannot be sent, TooLarge says how to send less:
    more than `most` bytes are not."""
    root = Path(folder)
    if not root.is_dir():
        raise BadRequest(f"{folder} is no folder")
    seen = SeenFiles(root)
    found = _Walk(root, seen, most)
    try:
        found.walk(Rules.of_all(exclude))
    except OSError as error:
        raise BadRequest(f"cannot read {error.filename or root}: {error.strerror or error}", LEAVE_IT_OUT) from error
    seen.save()
    try:
        text = encoded(found.entries)
    except BadRequest as error:
        raise BadRequest(error.message, error.hint or LEAVE_IT_OUT) from None
    if len(text) > MAX_MANIFEST:
        raise TooLarge(f"the names in {root} have more than {_mib(MAX_MANIFEST)} together", LEAVE_IT_OUT)
    return Snapshot(root, tuple(found.entries), text, tuple(sorted(found.left)))


class _Walk:
    def __init__(self, root: Path, seen: SeenFiles, most: int) -> None:
        self._root, self._seen, self._most = os.fspath(root), seen, most
        self.entries: list[Entry] = []
        self.left: list[str] = []
        self._size = 0

    def walk(self, rules: Rules) -> None:
        waiting = [("", rules)]
        while waiting:
            folder, outer = waiting.pop()
            listed = sorted(os.scandir(os.path.join(self._root, folder)), key=lambda one: one.name)
            names = {one.name for one in listed}
            rules = outer.within(folder, self._patterns(folder, GIT, names), self._patterns(folder, OURS, names))
            if folder and not listed:
                self._add(Entry(folder[:-1], "dir"))
            for one in listed:
                inside = self._take(folder + one.name, one, rules)
                if inside is not None:
                    waiting.append((inside, rules))

    def _patterns(self, folder: str, name: str, names: set[str]) -> Patterns | None:
        if name not in names:
            return None
        with open(os.path.join(self._root, folder, name), encoding="utf-8", errors="surrogateescape") as lines:
            return Patterns(lines)

    def _take(self, path: str, one: os.DirEntry[str], rules: Rules) -> str | None:
        """A folder to look into, if it is one."""
        is_folder = one.is_dir(follow_symlinks=False)
        if rules.leave(path + "/" if is_folder else path):
            self.left.append(path + "/" if is_folder else path)
        elif is_folder:
            if path.count("/") >= MAX_LEVELS:
                raise TooLarge(f"{path[:80]!r} lies under more than {MAX_LEVELS} folders", LEAVE_IT_OUT)
            return path + "/"
        elif one.is_symlink():
            self._add(Entry(path, "link", target=os.readlink(one.path)))
        elif one.is_file(follow_symlinks=False):
            self._add(self._file(path, one))
        else:
            self.left.append(path)  # a pipe, a socket, a device
        return None

    def _file(self, path: str, one: os.DirEntry[str]) -> Entry:
        status = one.stat(follow_symlinks=False)
        self._size += status.st_size
        if self._size > self._most:
            raise TooLarge(f"the files in {self._root} have more than {_mib(self._most)} together", LEAVE_IT_OUT)
        known = self._seen.known(path, status)
        if known is None:
            status, sha256 = _read(one.path)
            known = self._seen.add(path, status, sha256)
        executable = os.name == "posix" and bool(status.st_mode & stat.S_IXUSR)
        return Entry(path, "file", known.sha256, known.size, executable)

    def _add(self, entry: Entry) -> None:
        self.entries.append(entry)
        if len(self.entries) > MAX_ENTRIES:
            raise TooLarge(f"{self._root} has more than {MAX_ENTRIES:,} files, links and folders", LEAVE_IT_OUT)


TRIES = 3


def _read(path: str) -> tuple[os.stat_result, str]:
    """A file that is the same at the end as at the beginning. BadRequest for one that goes on changing."""
    for _ in range(TRIES):
        digest = hashlib.sha256()
        with open(path, "rb", buffering=0) as file:
            before = os.fstat(file.fileno())
            while piece := file.read(PIECE):
                digest.update(piece)
            after = os.fstat(file.fileno())
        if _same(before, after):
            return after, digest.hexdigest()
        time.sleep(0.05)
    raise BadRequest(f"{path} changes while it is read: something writes it", LEAVE_IT_OUT)


def _same(before: os.stat_result, after: os.stat_result) -> bool:
    return (before.st_size, before.st_mtime_ns, before.st_ctime_ns) == (
        after.st_size, after.st_mtime_ns, after.st_ctime_ns
    )  # fmt: skip


def content(root: Path, entry: Entry) -> Iterator[bytes]:
    """Of a file of a snapshot. BadRequest where it is not any more what it was."""
    digest = hashlib.sha256()
    try:
        with open(root / entry.path, "rb", buffering=0) as file:
            while piece := file.read(PIECE):
                digest.update(piece)
                yield piece
    except OSError as error:
        raise changed(root / entry.path) from error
    if digest.hexdigest() != entry.sha256:
        raise changed(root / entry.path)


def changed(path: Path) -> BadRequest:
    return BadRequest(f"{path} has changed while the folder was sent", "Submit it again.")


def _mib(size: int) -> str:
    return f"{size / 1024**2:,.0f} MiB"
