"""Brings the files that a job has made into a local folder: never outside of it, over nothing that is somebody else's,
and from where it was cut off."""

from __future__ import annotations

import enum
import hashlib
import itertools
import os
import time
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import msgspec

from hecaton.client.http import Transport, may_pass
from hecaton.client.jobs import path_of
from hecaton.core.errors import BadRequest, HecatonError
from hecaton.core.files.kept import fault_of_name
from hecaton.wire.api import FileList, FileView

PART_SUFFIX = ".hecaton-part"
"""Of a file that is not complete. Its name says which content it will have: another try goes on with it."""

CUTS = 100
"""So often a file is gone on with, each time from where it was cut off, as long as it gets on."""

_CHUNK = 1024 * 1024
_NOT_ON_WINDOWS = frozenset('\\:*?"<>|')


class Written(enum.StrEnum):
    """What became of a file here."""

    NEW = "new"
    SAME = "same"  # it was there already
    REPLACED = "replaced"
    BESIDE = "beside"  # another file has its name, and stays


class LocalFile(msgspec.Struct, frozen=True):
    """A file of a job as it is on this machine. `path`: as the job calls it. `where`: the file."""

    path: str
    where: Path
    size: int
    written: Written


def listed(transport: Transport, job: str | int, attempt: int | None = None) -> Iterator[FileList]:
    """Page by page, at least one. The same attempt on all pages."""
    after: int | None = 0
    while after is not None:
        page = transport.call(
            "GET", path_of(job, "/files"), FileList, query={"attempt": attempt, "after": after or None}
        )
        attempt, after = page.attempt or attempt, page.next
        yield page


def get(
    transport: Transport,
    job: int,
    folder: str | os.PathLike[str],
    pattern: str | None = None,
    attempt: int | None = None,
    overwrite: bool = False,
) -> list[LocalFile]:
    """Those that `pattern` names, one after the other."""
    pages = [*listed(transport, job, attempt)]
    one = Fetching(transport, job, pages[0].attempt, Path(folder), overwrite)
    chosen = (file for page in pages for file in page.files if not file.why)
    return [one.fetch(file) for file in chosen if matches(file.path, pattern)]


def matches(path: str, pattern: str | None) -> bool:
    """A pattern is of the whole name or of its last part; a folder's name stands for all that is in it."""
    if pattern is None:
        return True
    plain = pattern.removeprefix("./").rstrip("/")
    whole = fnmatchcase(path, plain) or path.startswith(f"{plain}/")
    return whole or ("/" not in plain and fnmatchcase(path.rpartition("/")[2], plain))


class _Again(Exception):
    """To be asked for from another byte on."""


class Fetching:
    """Of one attempt of a job, by the job's number, into one folder. `overwrite`: what is there is replaced."""

    def __init__(self, transport: Transport, job: int, attempt: int, folder: Path, overwrite: bool = False) -> None:
        self._transport = transport
        self._job, self._attempt = job, attempt
        self._folder = folder
        self._overwrite = overwrite

    def fetch(self, file: FileView) -> LocalFile:
        """Complete and checked when it returns. BadRequest if this folder, or its name, cannot take it."""
        fault = fault_of_name(file.path)
        if fault is None and os.name == "nt" and _NOT_ON_WINDOWS & {*file.path}:
            fault = "cannot be written on Windows"
        if fault is not None:
            raise BadRequest(f"the file {file.path[:80]!r} is not fetched: its name {fault}")
        try:
            return self._fetch(file)
        except OSError as error:
            raise BadRequest(
                f"cannot write {self._folder / file.path}: {error.strerror or error}", "Name another folder: -o DIR"
            ) from error

    def _fetch(self, file: FileView) -> LocalFile:
        *folders, name = file.path.split("/")
        inside = self._enter(folders)
        target, written = self._target(inside, name, file)
        if written is not Written.SAME:
            part = inside / f".{file.sha256[:16]}{PART_SUFFIX}"
            self._complete(file, part)
            if file.executable:
                part.chmod(part.stat().st_mode | 0o111 & ~_umask())
            os.replace(part, target)
        return LocalFile(file.path, target, file.size, written)

    def _enter(self, folders: Iterable[str]) -> Path:
        """A link in the folder may lead out of it: nothing is written behind one."""
        inside = self._folder
        inside.mkdir(parents=True, exist_ok=True)
        for name in folders:
            inside /= name
            if inside.is_symlink():
                raise BadRequest(f"{inside} is a link: nothing is written behind it", "Name another folder: -o DIR")
            inside.mkdir(exist_ok=True)
        return inside

    def _target(self, inside: Path, name: str, file: FileView) -> tuple[Path, Written]:
        target = inside / name
        if not os.path.lexists(target):
            return target, Written.NEW
        if _is_same(target, file):
            return target, Written.SAME
        if self._overwrite and not target.is_dir():
            return target, Written.REPLACED
        for number in itertools.count(1):
            mark = f".job{self._job}" if number == 1 else f".job{self._job}-{number}"
            beside = target.with_name(f"{target.stem}{mark}{target.suffix}")
            if not os.path.lexists(beside):
                break
            if _is_same(beside, file):
                return beside, Written.SAME
        return beside, Written.BESIDE

    def _complete(self, file: FileView, part: Path) -> None:
        cuts = 0
        while True:
            before = _size(part)
            try:
                self._go_on(file, part, before)
            except _Again:
                continue
            except HecatonError as error:
                cuts += 1
                if not may_pass(error) or _size(part) == before or cuts > CUTS:
                    raise
                time.sleep(min(1.0, 0.05 * cuts))
                continue
            if _sha256(part) == file.sha256:
                return
            part.unlink()
            if before == 0:  # nothing of an earlier try was in it
                raise HecatonError(f"{file.path!r} did not arrive as it was sent: its SHA-256 is another one")

    def _go_on(self, file: FileView, part: Path, start: int) -> None:
        if start > file.size:
            part.unlink()
            start = 0
        if start == file.size:
            part.touch()
            return

        tries = itertools.count()

        def write(pieces: Iterable[bytes]) -> None:
            if next(tries):  # the transport asks for the same bytes again, and some of them are here by now
                raise _Again
            with open(part, "ab") as target:
                for piece in pieces:
                    target.write(piece)

        query = {"attempt": self._attempt, "offset": start or None}
        self._transport.download(path_of(self._job, f"/files/{file.number}"), write, query)


def _is_same(path: Path, file: FileView) -> bool:
    if path.is_symlink() or not path.is_file() or path.stat().st_size != file.size:
        return False
    return _sha256(path) == file.sha256


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as source:
        while chunk := source.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _size(part: Path) -> int:
    """Of what an earlier try has left; something else in its place is removed."""
    if part.is_symlink() or (part.exists() and not part.is_file()):
        part.unlink()
    return part.stat().st_size if part.exists() else 0


def _umask() -> int:
    now = os.umask(0o022)
    os.umask(now)
    return now
