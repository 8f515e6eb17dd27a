"""What makes jobs in SQLite: submit; hot."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from itertools import chain, count, repeat

from hecaton.core.errors import Conflict, NotFound
from hecaton.store.port import JOB_BYTES, NewJob, Stored
from hecaton.store.sqlite.made.checkpoints import CheckpointVerbs
from hecaton.store.sqlite.rows import json_text
from hecaton.store.sqlite.run_after import READY
from hecaton.store.sqlite.statements import PARTS, Row, Statements, parts
from hecaton.store.sqlite.tally import Tally
from hecaton.store.sqlite.there import AllThere

_INSERTED = (
    "state", "id", "owner_id", "image_id", "lane", "priority", "expires_at", "key", "key_digest", "created_at", "mode",
    "file", "spec", "retries", "retry_of", "payload_kind", "payload_size", "payload_blob", "batch", "item", "run_after",
)  # fmt: skip
_SPEC = _INSERTED.index("spec")

_VALUES = f"({', '.join('?' * len(_INSERTED))})"
_INSERTS = {
    rows: f"INSERT INTO job ({', '.join(_INSERTED)}) VALUES {', '.join([_VALUES] * rows)}"  # noqa: S608
    for rows in PARTS
}


class SubmitVerbs:
    """Each call that takes several jobs leaves all of them or none, whatever it raises."""

    def __init__(self, statements: Statements, tally: Tally, there: AllThere, checkpoints: CheckpointVerbs) -> None:
        self._tally, self._there, self._checkpoints = tally, there, checkpoints
        self._sql = statements.run
        self._sql_many = statements.run_many
        self._first = statements.first
        self._insert_bodies = statements.insert_bodies

    def submit(self, jobs: Sequence[NewJob]) -> list[Stored]:
        for owner_id, image_id in {(job.owner_id, job.image_id) for job in jobs}:
            self.check_alive(owner_id, image_id)
        return self.insert(jobs)

    def check_alive(self, owner_id: int, image_id: int) -> None:
        """NotFound if one of them was deleted."""
        if not self._there.users.has(owner_id):
            raise NotFound(f"there is no user with number {owner_id}: deleted meanwhile?")
        if not self._there.images.has(image_id):
            raise NotFound(f"there is no image with number {image_id}: deleted meanwhile?")

    def insert(
        self, jobs: Sequence[NewJob], batch: int | None = None, offset: int | None = None, run_after: float = READY
    ) -> list[Stored]:
        """All or none. Those of a batch are its items from `offset` on."""
        # hot: benchmarks/throughput.py, benchmarks/batch.py
        items = repeat(None) if offset is None else count(offset)
        rows = [_row_of(job, batch, item, run_after) for job, item in zip(jobs, items, strict=False)]
        stored = [self._insert_or_find(jobs[0], rows[0])] if len(jobs) == 1 else self._insert_together(jobs, rows)
        self._count_and_label(jobs, rows, stored)
        return stored

    def _count_and_label(self, jobs: Sequence[NewJob], rows: Sequence[Row], stored: Sequence[Stored]) -> None:
        sizes: dict[int, int] = {}
        labels: list[tuple[str, str, int]] = []
        folders: list[tuple[int, str]] = []
        for job, row, one in zip(jobs, rows, stored, strict=True):
            if not one.duplicate:
                size = JOB_BYTES + len(row[_SPEC]) + len(job.payload.data)  # which is empty where that is a file
                sizes[job.owner_id] = sizes.get(job.owner_id, 0) + size
                if job.retry_of is not None:
                    self._checkpoints.inherit_checkpoint(one.index, job.retry_of)
                if job.spec.tags or job.spec.name is not None:
                    labels += [(key, value, one.index) for key, value in job.spec.labels]
                if job.spec.workdir is not None:
                    folders.append((one.index, job.spec.workdir))
        if labels:
            self._sql_many("INSERT INTO label (key, value, seq) VALUES (?, ?, ?)", labels)
        if folders:
            self._sql_many("INSERT INTO job_folder (seq, sha256) VALUES (?, ?)", folders)
        for owner_id, size in sizes.items():
            self._tally.add(owner_id, payloads=size)

    def _insert_together(self, jobs: Sequence[NewJob], rows: Sequence[Row]) -> list[Stored]:
        self._sql("SAVEPOINT submit")
        try:
            return self._insert_or_find_all(jobs, rows)
        except BaseException:
            self._sql("ROLLBACK TO submit")
            raise
        finally:
            self._sql("RELEASE submit")

    def _insert_or_find_all(self, jobs: Sequence[NewJob], rows: Sequence[Row]) -> list[Stored]:
        try:
            return self._insert_new(jobs, rows)
        except sqlite3.IntegrityError:
            self._sql("ROLLBACK TO submit")
            return [self._insert_or_find(job, row) for job, row in zip(jobs, rows, strict=True)]

    def _insert_new(self, jobs: Sequence[NewJob], rows: Sequence[Row]) -> list[Stored]:
        """IntegrityError if one of them is known."""
        indexes: list[int] = []
        for part in parts(rows):
            last = self._sql(_INSERTS[len(part)], [*chain.from_iterable(part)]).lastrowid
            assert last is not None
            indexes += range(last - len(part) + 1, last + 1)  # AUTOINCREMENT, and nobody else writes
        bodies = [
            (index, job.payload.data) for index, job in zip(indexes, jobs, strict=True) if job.payload.blob is None
        ]
        self._insert_bodies("payload", bodies)
        return [Stored(job.id, index, False) for index, job in zip(indexes, jobs, strict=True)]

    def _insert_or_find(self, job: NewJob, row: Row) -> Stored:
        try:
            return self._insert_new([job], [row])[0]
        except sqlite3.IntegrityError:  # not ON CONFLICT DO NOTHING: that would use up an index
            return self._known(job)

    def _known(self, job: NewJob) -> Stored:
        known = self._first("SELECT id, seq, key_digest FROM job WHERE owner_id = ? AND key = ?", job.owner_id, job.key)
        if known is None:
            raise Conflict(f"there is a job {job.id} already")
        job_id, index, key_digest = known
        if key_digest != job.key_digest:
            raise Conflict(
                f"the idempotency key {job.key!r} was used before for another request: job {job_id} (index {index})",
                "Use a new key for a new job.",
            )
        return Stored(job_id, index, True)


def _row_of(job: NewJob, batch: int | None, item: int | None, run_after: float) -> Row:
    """For `_INSERTED`, in its order (tests/store/test_sqlite_columns.py notices another one)."""
    spec, payload, lane = job.spec, job.payload, job.lane
    return (
        "IN_QUEUE",
        job.id,
        job.owner_id,
        job.image_id,
        lane.key(),
        spec.priority,
        None if spec.queue_ttl is None else job.created_at + spec.queue_ttl,
        job.key,
        job.key_digest,
        job.created_at,
        lane.mode._value_,
        lane.file or spec.file,
        json_text(spec),
        spec.retries,
        job.retry_of,
        payload.kind._value_,
        payload.size,
        payload.blob,
        batch,
        item,
        run_after,
    )
