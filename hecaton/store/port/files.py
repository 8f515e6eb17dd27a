"""The part of the port about the files that attempts have made. Their bytes are blobs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from hecaton.core.files.kept import KeptFile
from hecaton.core.model import AttemptRef, JobId


class FileSums(msgspec.Struct, frozen=True):
    """Of one attempt. `left`: files that are named and not kept; `kept` others, of `size` bytes together."""

    attempt: int
    kept: int
    size: int
    left: int


class Checkpoint(msgspec.Struct, frozen=True):
    """What a job's next attempt begins with. `attempt`: the one that made it; 0: of the job that this one repeats."""

    attempt: int
    made_at: float
    files: tuple[KeptFile, ...]


class Files(Protocol):
    """Files of an attempt have numbers from 0 on."""

    def keep_files(self, ref: AttemptRef, first: int, files: Sequence[KeptFile]) -> None:
        """Repeatable: what had these numbers before is replaced. NotFound if there is no such attempt; BadRequest where
        a piece is of a blob that the job's owner does not have, or behind its end."""

    def file_sums(self, job: JobId, attempt: int | None) -> FileSums | None:
        """`attempt` None: the newest that has files. None: there are none."""

    def files(self, job: JobId, attempt: int, after: int, limit: int) -> list[tuple[int, KeptFile]]:
        """With their numbers, in their order, from number `after` on. Without their pieces."""
        ...

    def file(self, job: JobId, attempt: int, number: int) -> KeptFile | None: ...

    def keep_checkpoint(self, ref: AttemptRef, files: Sequence[KeptFile], now: float) -> None:
        """In place of the one before, whose bytes go with the next cleaning where nobody else needs them. Fenced if
        that is not the attempt at the job; BadRequest for content that its owner does not have."""

    def checkpoint(self, job: JobId) -> Checkpoint | None: ...
