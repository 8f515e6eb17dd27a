"""HTTP bodies about the files that jobs have made."""

from __future__ import annotations

from typing import Annotated

import msgspec

from hecaton.core.files.kept import MAX_FILES, KeptFile
from hecaton.wire.api.base import Reply, Request
from hecaton.wire.bundles import MAX_BUNDLED

MAX_TOLD = 1000
"""Files that a worker tells of in one request, and that one page has at most."""


class NewFiles(Request, frozen=True):
    """From a worker, whose blobs these are: files of an attempt. `first`: number of the first of them, counted from 0;
    said again, they take the place of what was said before."""

    attempt: Annotated[int, msgspec.Meta(ge=1, lt=2**31)]
    first: Annotated[int, msgspec.Meta(ge=0, lt=MAX_FILES)]
    files: Annotated[tuple[KeptFile, ...], msgspec.Meta(max_length=MAX_TOLD)]


class Folder(Reply, frozen=True):
    """What is missing of a folder: the SHA-256 of each file that the caller has not sent. Nothing: the folder is there,
    and may go along with jobs."""

    sha256: str
    missing: tuple[str, ...] = ()


class Wanted(Request, frozen=True):
    """From a worker: files of a job's folder, by their SHA-256. They come in this order, each as its SHA-256 (32
    bytes), its size (8 bytes, the highest first) and its bytes."""

    files: Annotated[tuple[str, ...], msgspec.Meta(max_length=MAX_BUNDLED)]


class FileView(Reply, frozen=True):
    """`number`: by which its bytes can be had. `why`: why they cannot: it is named, but not kept."""

    number: int
    path: str
    size: int
    sha256: str = ""
    executable: bool = False
    why: str = ""


class FileList(Reply, frozen=True):
    """A page of the files of one attempt, the newest that has any if none is asked for; attempt 0: there is none.
    `kept` and `size`: how many there are on all pages that are kept, and their bytes; `left`: how many are not kept (0
    on all pages but the first of a named attempt).
    `next`: what to ask for as `after` for the next page."""

    attempt: int
    files: tuple[FileView, ...]
    kept: int = 0
    size: int = 0
    left: int = 0
    next: int | None = None


class NewCheckpoint(Request, frozen=True):
    """From a worker, whose blobs these are: the newest complete checkpoint of the job, in place of the one before."""

    attempt: Annotated[int, msgspec.Meta(ge=1, lt=2**31)]
    files: Annotated[tuple[KeptFile, ...], msgspec.Meta(min_length=1, max_length=MAX_TOLD)]


class CheckpointFiles(Reply, frozen=True):
    """For a worker, to begin with; none: there is no checkpoint."""

    files: tuple[KeptFile, ...]


class CheckpointView(Reply, frozen=True):
    """What the next attempt of a job begins with. `attempt`: the one that made it; 0: an attempt of the job that this
    one repeats."""

    attempt: int
    made_at: float
    files: int
    size: int
