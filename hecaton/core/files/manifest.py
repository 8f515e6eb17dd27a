"""A folder by content: what lies in it, by which names, and the sha256 of each file. The sha256 of a manifest's bytes
names the folder."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

import msgspec

from hecaton.core.errors import BadRequest
from hecaton.core.files.kept import MAX_SIZE, fault_of_name

MAX_ENTRIES = 200_000
"""Files, links and folders of one folder."""

MAX_MANIFEST = 16 * 1024 * 1024
"""Bytes of a manifest: about 100 for each file, besides its name."""

MAX_NAME = 255
"""Bytes of one name, without the folders before it: file systems have no longer ones."""

MAX_FOLDER = 64 * 1024**3
"""Bytes of all files of a folder."""

FORMAT = 1
"""Goes up with every field that is appended."""

_SHA256 = re.compile(r"[0-9a-f]{64}")


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """`path`: relative to the folder, with '/' between names. A file has `sha256`, `size` (bytes) and `executable`, a
    link its `target`."""

    path: str
    kind: Literal["file", "dir", "link"]
    sha256: str = ""
    size: int = 0
    executable: bool = False
    target: str = ""


class Manifest(msgspec.Struct, frozen=True, array_like=True):
    """`entries`: in the order of their paths. Of folders only those need one that have nothing in them."""

    format: int
    entries: tuple[Entry, ...]

    @property
    def files(self) -> tuple[Entry, ...]:
        return tuple(entry for entry in self.entries if entry.kind == "file")


def encoded(entries: Iterable[Entry]) -> bytes:
    """The one text for these entries, whatever their order. BadRequest for what no folder can have."""
    manifest = Manifest(FORMAT, tuple(sorted(entries, key=_path)))
    _check(manifest)
    return msgspec.json.encode(manifest)


def decoded(data: bytes) -> Manifest:
    """BadRequest for whatever `encoded` would not have written."""
    if len(data) > MAX_MANIFEST:
        raise BadRequest(f"the manifest has more than {MAX_MANIFEST} bytes")
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except msgspec.MsgspecError as error:
        raise BadRequest(f"this is no manifest of a folder: {error}") from error
    _check(manifest)
    if msgspec.json.encode(manifest) != data:
        raise BadRequest("this manifest is not written as one: there is one text for each folder")
    return manifest


def _check(manifest: Manifest) -> None:
    if manifest.format != FORMAT:
        raise BadRequest(f"manifests of format {manifest.format} are not known here, only of {FORMAT}")
    if len(manifest.entries) > MAX_ENTRIES:
        raise BadRequest(f"the folder has more than {MAX_ENTRIES:,} files, links and folders")
    if sum(entry.size for entry in manifest.entries) > MAX_FOLDER:
        raise BadRequest(f"the files of the folder have more than {MAX_FOLDER // 1024**3} GiB together")
    before = ""
    closed = set[str]()  # what nothing can lie in
    for entry in manifest.entries:
        fault = _fault(entry)
        if fault is None and entry.path <= before:
            fault = "does not come in the order of names, or twice"
        if fault is None and not closed.isdisjoint(_above(entry.path)):
            fault = "lies in what is no folder"
        if fault is not None:
            raise BadRequest(f"{entry.path[:200]!r} in the folder {fault}")
        if entry.kind != "dir":
            closed.add(entry.path)
        before = entry.path


def _fault(entry: Entry) -> str | None:
    if (fault := fault_of_name(entry.path)) is not None:
        return f"has a name that {fault}"
    if any(len(name.encode()) > MAX_NAME for name in entry.path.split("/")):
        return f"has a name of more than {MAX_NAME} bytes"
    if entry.kind == "link":
        return _fault_of_link(entry)
    if entry.target:
        return "is no link and leads somewhere"
    if entry.kind == "dir":
        return "is a folder and has content" if entry.sha256 or entry.size or entry.executable else None
    if not _SHA256.fullmatch(entry.sha256) or not 0 <= entry.size <= MAX_SIZE:
        return "has no content: a sha256 of 64 digits and a size are wanted"
    return None


def _fault_of_link(entry: Entry) -> str | None:
    if entry.sha256 or entry.size or entry.executable:
        return "is a link and has content"
    target = entry.target
    if not target or "\0" in target or len(target.encode("utf-8", "replace")) > 4095:
        return "is a link to nothing that can be named"
    level, down = entry.path.count("/"), False
    for name in target.split("/"):
        if name == ".." and down:  # behind the name of another link it leads up from where that one leads to
            return f"is a link that goes up again: {target[:100]!r}"
        down = down or name not in ("", ".", "..")
        level += {"..": -1, ".": 0, "": 0}.get(name, 1)
        if level < 0 or target.startswith("/"):
            return f"is a link that leaves the folder: {target[:100]!r}"
    return None


def _above(path: str) -> Iterable[str]:
    """The folders that it lies in."""
    end = path.find("/")
    while end > 0:
        yield path[:end]
        end = path.find("/", end + 1)


def _path(entry: Entry) -> str:
    return entry.path
