"""How many bytes each user has stored: kept up by the verbs that store and remove, in their own transactions, so that
nobody ever has to count."""

from __future__ import annotations

from collections.abc import Sequence

from hecaton.core.model import Failure
from hecaton.store.port import JOB_BYTES, AttemptEnd
from hecaton.store.sqlite.rows import failure_text
from hecaton.store.sqlite.statements import Statements

_ADD = {
    kind: f"UPDATE stored SET {kind} = {kind} + ? WHERE owner_id = ?"  # noqa: S608
    for kind in ("payloads", "results", "logs", "files")
}

FILE_ROW = "200 + length(path) + length(pieces) + length(why)"
"""What a row of `made_file` counts, as an expression of SQL."""

JOB = f"""
    SELECT owner_id,
      {JOB_BYTES} + length(spec) + coalesce((SELECT length(data) FROM payload WHERE payload.seq = job.seq), 0),
      coalesce((SELECT length(data) FROM result WHERE result.seq = job.seq), 0) + coalesce(length(failure), 0)
        + coalesce((SELECT sum(length(failure)) FROM attempt WHERE attempt.seq = job.seq), 0)
        + coalesce((SELECT sum({FILE_ROW}) FROM made_file WHERE made_file.seq = job.seq), 0),
      coalesce((SELECT sum(length(data)) FROM log_piece WHERE log_piece.seq = job.seq), 0)
    FROM job
"""  # noqa: S608
"""Owner, payloads, results and logs of a job, as they are counted. To be followed by WHERE."""

BATCH = f"SELECT owner_id, {JOB_BYTES} + length(spec) FROM batch"  # noqa: S608
"""Owner and payloads of a batch without its jobs."""


class Tally:
    """What is added here is what is in the tables: a migration has counted what was there before. Failures count as
    results, their text is what there is of one. Handed to every unit of verbs that stores or removes something."""

    def __init__(self, statements: Statements) -> None:
        self._sql = statements.run

    def add(self, owner_id: int, *, payloads: int = 0, results: int = 0, logs: int = 0, files: int = 0) -> None:
        # hot: benchmarks/throughput.py - once for all that is submitted, or that ends, together
        for kind, size in (("payloads", payloads), ("results", results), ("logs", logs), ("files", files)):
            if size:
                self._sql(_ADD[kind], (size, owner_id))

    def add_failure(self, owner_id: int, failure: Failure | None) -> None:
        if failure is not None:
            self.add(owner_id, results=_length(failure))

    def add_ends(self, ends: Sequence[tuple[int, AttemptEnd]]) -> None:
        """Of attempts with which jobs of these owners end."""
        sizes: dict[int, int] = {}
        for owner_id, end in ends:
            size = len(end.body.data) if end.body is not None and end.body.blob is None else 0
            if end.failure is not None:
                size += _length(end.failure)
            sizes[owner_id] = sizes.get(owner_id, 0) + size
        for owner_id, size in sizes.items():
            if size:
                self.add(owner_id, results=size)


def _length(failure: Failure) -> int:
    return len(failure_text(failure) or "")
