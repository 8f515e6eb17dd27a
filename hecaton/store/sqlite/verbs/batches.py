"""Batches in SQLite: create, append, show, results, and the sweeps of pause, resumption and cancellation."""

from __future__ import annotations

from collections.abc import Sequence

from hecaton.core.batches import Batch, FailureGroup
from hecaton.core.errors import Conflict, NotFound
from hecaton.core.model import Body, JobId
from hecaton.store.port import Appended, EndedItem, FailedItem, NewBatch, NewJob, Swept
from hecaton.store.sqlite.rows import REASON, STATE, Row, body_of, decode_spec, failure_of, json_text
from hecaton.store.sqlite.verbs.batch_ends import WITHHELD
from hecaton.store.sqlite.verbs.queue import QueueVerbs

_BATCHES = """
    SELECT batch.seq, batch.id, user.name, batch.owner_id, image.name, batch.image_id, batch.name, batch.spec,
           batch.created_at, batch.size, batch.closed, batch.finished, batch.failed, batch.cancelled, batch.paused,
           batch.cancel_requested, batch.retry_of
    FROM batch CROSS JOIN user ON user.id = batch.owner_id CROSS JOIN image ON image.id = batch.image_id
"""

_ITEMS = """
    SELECT job.item, job.ended_as, job.id, job.state, job.reason, job.failure, job.result_kind, job.result_size,
           job.result_blob, result.data
    FROM job INDEXED BY {index} LEFT JOIN result ON result.seq = job.seq WHERE job.batch = ? AND
"""
ENDED_ITEMS = _ITEMS.format(index="job_batch_end") + " job.ended_as > ? ORDER BY job.ended_as LIMIT ?"
INPUT_ITEMS = _ITEMS.format(index="job_batch") + " job.item >= ? ORDER BY job.item LIMIT ?"

FAILED_ITEMS = """
    SELECT job.item, job.id, job.payload_kind, job.payload_size, job.payload_blob, payload.data
    FROM job INDEXED BY job_batch LEFT JOIN payload ON payload.seq = job.seq
    WHERE job.batch = ? AND job.item >= ? AND job.state = 'FAILED' ORDER BY job.item LIMIT ?
"""

RUNNING = """
    SELECT count(*) FROM job INDEXED BY job_held WHERE state IN ('ASSIGNED', 'IN_PROGRESS') AND batch = ?
"""

_MOVE = """
    UPDATE job INDEXED BY job_batch SET run_after = ?
    WHERE batch = ? AND item >= ? AND item < ? AND state = 'IN_QUEUE' AND
"""
WITHHOLD, WITHHOLD_DELAYED, RELEASE = (
    _MOVE + condition for condition in ("run_after = 0", "run_after > 0", "run_after < 0")
)

_TO_CANCEL = """
    SELECT id, state = 'IN_QUEUE' AND run_after = 0 FROM job INDEXED BY job_batch
    WHERE batch = ? AND item >= ? AND item < ? AND state NOT IN ('FINISHED', 'FAILED', 'CANCELLED') ORDER BY item
"""

_PACE_OF = 200
"""Ended jobs that the estimate looks back on."""


class BatchVerbs(QueueVerbs):
    # -- create and fill -----------------------------------------------------------------------
    def create_batch(self, batch: NewBatch) -> tuple[Batch, bool]:
        known = self._row("SELECT id, key_digest FROM batch WHERE owner_id = ? AND key = ?", batch.owner_id, batch.key)
        if known is not None:
            if known[1] != batch.key_digest:
                raise Conflict(
                    f"the idempotency key {batch.key!r} was used before for another batch: {known[0]}",
                    "Use a new key for a new batch.",
                )
            return self._batch_by_id(known[0]), True
        self._check_alive(batch.owner_id, batch.image_id)
        self._sql(
            "INSERT INTO batch (id, owner_id, image_id, name, spec, key, key_digest, created_at, may_pause, retry_of)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                batch.id,
                batch.owner_id,
                batch.image_id,
                batch.name,
                json_text(batch.spec),
                batch.key,
                batch.key_digest,
                batch.created_at,
                batch.may_pause,
                batch.retry_of,
            ),
        )
        return self._batch_by_id(batch.id), False

    def append(self, batch_id: str, offset: int, jobs: Sequence[NewJob]) -> Appended:
        # hot: benchmarks/throughput.py
        batch = self._batch_by_id(batch_id)
        end = offset + len(jobs)
        if offset > batch.size:
            raise Conflict(f"batch {batch_id} has {batch.size} items: those up to {offset} are missing")
        if end > batch.size and (batch.closed or batch.cancel_requested):
            what = "was cancelled" if batch.cancel_requested else "is closed"
            raise Conflict(f"batch {batch_id} {what}: it takes no more items")
        self._check_alive(batch.owner_id, batch.image_id)
        run_after = 0.0 if batch.paused is None else WITHHELD
        self._sql("SAVEPOINT append")
        try:
            self._insert(jobs, batch.index, offset, run_after)
            self._sql("UPDATE batch SET size = max(size, ?) WHERE seq = ?", (end, batch.index))
        except BaseException:
            self._sql("ROLLBACK TO append")
            raise
        finally:
            self._sql("RELEASE append")
        added = max(0, end - batch.size)
        return Appended(batch.size + added, added if batch.paused is None else 0)

    def close_batch(self, batch_id: str) -> None:
        self._sql("UPDATE batch SET closed = 1 WHERE id = ?", (batch_id,))

    # -- look ----------------------------------------------------------------------------------
    def _batch_by_id(self, batch_id: str) -> Batch:
        row = self._row(f"{_BATCHES} WHERE batch.id = ?", batch_id)
        if row is None:
            raise NotFound(f"there is no batch {batch_id!r}")
        return _batch_of(row)

    def batch(self, id_or_index: str) -> Batch | None:
        name = id_or_index.lower()
        if name.isascii() and name.isdigit():
            row = self._row(f"{_BATCHES} WHERE batch.seq = ?", int(name[:18]))
        else:
            row = self._row(f"{_BATCHES} WHERE batch.id = ?", name)
        return _batch_of(row) if row else None

    def batches(self, *, owner_id: int | None, before: int | None, limit: int) -> list[Batch]:
        own = "AND batch.owner_id = ?2" if owner_id is not None else "AND ?2 IS NULL"
        sql = f"{_BATCHES} WHERE batch.seq < ?1 {own} ORDER BY batch.seq DESC LIMIT ?3"
        return [_batch_of(row) for row in self._sql(sql, (2**62 if before is None else before, owner_id, limit))]

    def batch_failures(self, index: int) -> list[FailureGroup]:
        rows = self._sql(
            "SELECT reason, message, count, example FROM batch_failure WHERE batch = ? ORDER BY count DESC, message",
            (index,),
        )
        return [FailureGroup(REASON[row[0]], row[1], row[2], JobId(row[3])) for row in rows]

    def batch_running(self, index: int) -> int:
        count: int = self._sql(RUNNING, (index,)).fetchone()[0]
        return count

    def batch_pace(self, index: int, now: float) -> float | None:
        rows = self._sql(
            "SELECT ended_as, ended_at FROM job INDEXED BY job_batch_end WHERE batch = ? AND ended_as IS NOT NULL"
            " ORDER BY ended_as DESC LIMIT ?",
            (index, _PACE_OF),
        ).fetchall()
        if len(rows) < 2:
            return None
        newest, oldest = rows[0], rows[-1]
        # A worker's times come a little out of order; and where nothing ends any more, the pace sinks.
        passed = max(now - oldest[1], 1e-3)
        return float((newest[0] - oldest[0]) / passed)

    def ended_items(
        self, index: int, after: int, limit: int, *, max_bytes: int, in_input_order: bool
    ) -> list[EndedItem]:
        found: list[EndedItem] = []
        size = 0
        for row in self._sql(INPUT_ITEMS if in_input_order else ENDED_ITEMS, (index, after, limit)):
            if row[1] is None or size > max_bytes:
                break
            found.append(_item_of(row))
            size += len(row[9] or b"") + len(row[5] or "")
        return found

    def failed_items(self, index: int, start: int, limit: int) -> list[FailedItem]:
        rows = self._sql(FAILED_ITEMS, (index, start, limit))
        return [FailedItem(row[0], JobId(row[1]), body_of(row[2], row[3], row[4], row[5])) for row in rows]

    def last_retried(self, index: int) -> int | None:
        row = self._row(
            "SELECT old.item FROM job INDEXED BY job_batch JOIN job AS old ON old.id = job.retry_of"
            " WHERE job.batch = ? ORDER BY job.item DESC LIMIT 1",
            index,
        )
        return row[0] if row else None

    # -- pause, resume, cancel -----------------------------------------------------------------
    def set_paused(self, index: int, why: str | None) -> None:
        self._sql("UPDATE batch SET paused = ?, sweep_at = 0 WHERE seq = ? AND cancel_requested = 0", (why, index))

    def cancel_batch(self, index: int) -> None:
        self._sql(
            "UPDATE batch SET cancel_requested = 1, closed = 1, paused = NULL, sweep_at = 0"
            " WHERE seq = ? AND cancel_requested = 0",
            (index,),
        )

    def sweep(self, now: float, limit: int = 1000) -> Swept | None:
        row = self._row("SELECT seq, sweep_at FROM batch INDEXED BY batch_sweep WHERE sweep_at IS NOT NULL LIMIT 1")
        if row is None:
            return None
        index, start = row
        batch = self.batch(str(index))
        assert batch is not None
        end = start + limit
        self._sql("UPDATE batch SET sweep_at = ? WHERE seq = ?", (end if end < batch.size else None, index))
        span = (index, start, end)
        if batch.cancel_requested:
            rows = self._sql(_TO_CANCEL, span).fetchall()
            cancelled = tuple(self.cancel(JobId(row[0]), now) for row in rows)
            return Swept(batch, withheld=sum(row[1] for row in rows), cancelled=cancelled)
        if batch.paused is not None:
            self._sql(WITHHOLD_DELAYED, (WITHHELD, *span))
            return Swept(batch, withheld=self._sql(WITHHOLD, (WITHHELD, *span)).rowcount)
        return Swept(batch, released=self._sql(RELEASE, (0, *span)).rowcount)


def _batch_of(row: Row) -> Batch:
    """A row of `_BATCHES`."""
    return Batch(
        index=row[0],
        id=row[1],
        owner=row[2],
        owner_id=row[3],
        image=row[4],
        image_id=row[5],
        name=row[6],
        spec=decode_spec(row[7]),
        created_at=row[8],
        size=row[9],
        closed=bool(row[10]),
        finished=row[11],
        failed=row[12],
        cancelled=row[13],
        paused=row[14],
        cancel_requested=bool(row[15]),
        retry_of=row[16],
    )


def _item_of(row: Row) -> EndedItem:
    """A row of `_ITEMS`."""
    return EndedItem(
        item=row[0],
        ended_as=row[1],
        job=JobId(row[2]),
        state=STATE[row[3]],
        reason=REASON[row[4]] if row[4] else None,
        failure=failure_of(row[5]),
        result=_result_of(*row[6:10]) if row[6] else None,
    )


def _result_of(kind: str, size: int, blob: str | None, data: bytes | None) -> Body:
    removed = blob is None and data is None
    return body_of(kind, size, "" if removed else blob, data)
