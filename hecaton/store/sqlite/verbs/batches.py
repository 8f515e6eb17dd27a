"""Batches in SQLite: create, append, show, results, and the sweeps of pause, resumption and cancellation."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from hecaton.core.batches import Batch, FailureGroup
from hecaton.core.errors import Conflict, NotFound
from hecaton.core.model import Body, JobId
from hecaton.store.port import JOB_BYTES, Appended, EndedItem, FailedItem, NewBatch, NewJob, Swept
from hecaton.store.sqlite.rows import (
    REASON,
    REASON_OR_NONE,
    STATE,
    Columns,
    body_of,
    decode_spec,
    failure_of,
    json_text,
)
from hecaton.store.sqlite.run_after import IS_DELAYED, IS_READY, IS_WITHHELD, READY, WITHHELD
from hecaton.store.sqlite.statements import Statements
from hecaton.store.sqlite.tally import Tally
from hecaton.store.sqlite.verbs.queue import QueueVerbs
from hecaton.store.sqlite.verbs.submit import SubmitVerbs

_BATCH = Columns(
    Batch,
    "batch",
    {"index": "batch.seq", "owner": "user.name", "image": "image.name"},
    {"spec": decode_spec, "closed": bool, "cancel_requested": bool},
)
_BATCHES = f"""
    SELECT {_BATCH.sql}
    FROM batch CROSS JOIN user ON user.id = batch.owner_id CROSS JOIN image ON image.id = batch.image_id
"""  # noqa: S608

_FAILURES = Columns(
    FailureGroup,
    "batch_failure",
    {"example_index": "(SELECT seq FROM job WHERE job.id = batch_failure.example)"},
    {"reason": REASON.__getitem__},
)


class _Item(msgspec.Struct, gc=False):
    """A job of a batch with its result."""

    item: int
    ended_as: int | None
    id: JobId
    state: str
    reason: str | None
    failure: str | None
    result_kind: str | None
    result_size: int
    result_blob: str | None
    result: bytes | None


class _Repeatable(msgspec.Struct, gc=False):
    """A job of a batch with its payload."""

    item: int
    id: JobId
    payload_kind: str
    payload_size: int
    payload_blob: str | None
    payload: bytes | None


_ITEMS = f"""
    SELECT {Columns(_Item, "job", {"result": "result.data"}).sql}
    FROM job INDEXED BY {{index}} LEFT JOIN result ON result.seq = job.seq WHERE job.batch = ? AND
"""  # noqa: S608
ENDED_ITEMS = _ITEMS.format(index="job_batch_end") + " job.ended_as > ? ORDER BY job.ended_as LIMIT ?"
INPUT_ITEMS = _ITEMS.format(index="job_batch") + " job.item >= ? ORDER BY job.item LIMIT ?"

FAILED_ITEMS = f"""
    SELECT {Columns(_Repeatable, "job", {"payload": "payload.data"}).sql}
    FROM job INDEXED BY job_batch LEFT JOIN payload ON payload.seq = job.seq
    WHERE job.batch = ? AND job.item >= ? AND job.state = 'FAILED' ORDER BY job.item LIMIT ?
"""  # noqa: S608

RUNNING = """
    SELECT count(*) FROM job INDEXED BY job_held WHERE state IN ('ASSIGNED', 'IN_PROGRESS') AND batch = ?
"""

_MOVE = """
    UPDATE job INDEXED BY job_batch SET run_after = ?
    WHERE batch = ? AND item >= ? AND item < ? AND state = 'IN_QUEUE' AND
"""
WITHHOLD, WITHHOLD_DELAYED, RELEASE = (_MOVE + condition for condition in (IS_READY, IS_DELAYED, IS_WITHHELD))

_TO_CANCEL = f"""
    SELECT id, state = 'IN_QUEUE' AND {IS_READY} FROM job INDEXED BY job_batch
    WHERE batch = ? AND item >= ? AND item < ? AND state NOT IN ('FINISHED', 'FAILED', 'CANCELLED') ORDER BY item
"""  # noqa: S608

_PACE_OF = 200
"""Ended jobs that the estimate looks back on."""


class BatchVerbs:
    """A batch's items are its positions from 0 to `size`, without gaps. A pause, resumption or cancellation is in force
    when its row says so; `sweep` brings the jobs after, and knows from `sweep_at` how far it has come."""

    def __init__(self, statements: Statements, tally: Tally, submission: SubmitVerbs, queue: QueueVerbs) -> None:
        self._tally = tally
        self._sql = statements.run
        self._first = statements.first
        self._value = statements.value
        self._submission = submission
        self._queue = queue

    # -- create and fill -----------------------------------------------------------------------
    def create_batch(self, batch: NewBatch) -> tuple[Batch, bool]:
        known = self._first(
            "SELECT id, key_digest FROM batch WHERE owner_id = ? AND key = ?", batch.owner_id, batch.key
        )
        if known is not None:
            known_id, digest = known
            if digest != batch.key_digest:
                raise Conflict(
                    f"the idempotency key {batch.key!r} was used before for another batch: {known_id}",
                    "Use a new key for a new batch.",
                )
            return self._batch_by_id(known_id), True
        self._submission.check_alive(batch.owner_id, batch.image_id)
        spec = json_text(batch.spec)
        self._tally.add(batch.owner_id, payloads=JOB_BYTES + len(spec))
        self._sql(
            "INSERT INTO batch (id, owner_id, image_id, name, spec, key, key_digest, created_at, may_pause, retry_of)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                batch.id,
                batch.owner_id,
                batch.image_id,
                batch.name,
                spec,
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
        self._submission.check_alive(batch.owner_id, batch.image_id)
        run_after = READY if batch.paused is None else WITHHELD
        self._sql("SAVEPOINT append")
        try:
            self._submission.insert(jobs, batch.index, offset, run_after)
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
        row = self._first(f"{_BATCHES} WHERE batch.id = ?", batch_id)
        if row is None:
            raise NotFound(f"there is no batch {batch_id!r}")
        return _BATCH.of(row)

    def batch(self, id_or_index: str) -> Batch | None:
        name = id_or_index.lower()
        if name.isascii() and name.isdigit():
            row = self._first(f"{_BATCHES} WHERE batch.seq = ?", int(name[:18]))
        else:
            row = self._first(f"{_BATCHES} WHERE batch.id = ?", name)
        return _BATCH.of(row) if row else None

    def batches(self, *, owner_id: int | None, before: int | None, limit: int) -> list[Batch]:
        own = "AND batch.owner_id = ?2" if owner_id is not None else "AND ?2 IS NULL"
        sql = f"{_BATCHES} WHERE batch.seq < ?1 {own} ORDER BY batch.seq DESC LIMIT ?3"
        return [_BATCH.of(row) for row in self._sql(sql, (2**62 if before is None else before, owner_id, limit))]

    def batch_failures(self, index: int) -> list[FailureGroup]:
        rows = self._sql(
            f"SELECT {_FAILURES.sql} FROM batch_failure WHERE batch = ? ORDER BY count DESC, message",  # noqa: S608
            (index,),
        )
        return [_FAILURES.of(row) for row in rows]

    def batch_running(self, index: int) -> int:
        count: int = self._value(RUNNING, index)
        return count

    def batch_pace(self, index: int, now: float) -> float | None:
        rows = self._sql(
            "SELECT ended_as, ended_at FROM job INDEXED BY job_batch_end WHERE batch = ? AND ended_as IS NOT NULL"
            " ORDER BY ended_as DESC LIMIT ?",
            (index, _PACE_OF),
        ).fetchall()
        if len(rows) < 2:
            return None
        (last, _), *_, (first, since) = rows
        # A worker's times come a little out of order; and where nothing ends any more, the pace sinks.
        passed = max(now - since, 1e-3)
        return float((last - first) / passed)

    def ended_items(
        self, index: int, after: int, limit: int, *, max_bytes: int, in_input_order: bool
    ) -> list[EndedItem]:
        found: list[EndedItem] = []
        size = 0
        for row in self._sql(INPUT_ITEMS if in_input_order else ENDED_ITEMS, (index, after, limit)):
            item = _Item(*row)
            if item.ended_as is None or size > max_bytes:
                break
            found.append(_ended_item(item, item.ended_as))
            size += len(item.result or b"") + len(item.failure or "")
        return found

    def failed_items(self, index: int, start: int, limit: int) -> list[FailedItem]:
        rows = [_Repeatable(*row) for row in self._sql(FAILED_ITEMS, (index, start, limit))]
        return [
            FailedItem(row.item, row.id, body_of(row.payload_kind, row.payload_size, row.payload_blob, row.payload))
            for row in rows
        ]

    def last_retried(self, index: int) -> int | None:
        row = self._first(
            "SELECT old.item FROM job INDEXED BY job_batch JOIN job AS old ON old.id = job.retry_of"
            " WHERE job.batch = ? ORDER BY job.item DESC LIMIT 1",
            index,
        )
        item: int | None
        (item,) = row or (None,)
        return item

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
        row = self._first("SELECT seq, sweep_at FROM batch INDEXED BY batch_sweep WHERE sweep_at IS NOT NULL LIMIT 1")
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
            cancelled = tuple(self._queue.cancel(JobId(job), now) for job, _ in rows)
            return Swept(batch, withheld=sum(was_ready for _, was_ready in rows), cancelled=cancelled)
        if batch.paused is not None:
            self._sql(WITHHOLD_DELAYED, (WITHHELD, *span))
            return Swept(batch, withheld=self._sql(WITHHOLD, (WITHHELD, *span)).rowcount)
        return Swept(batch, released=self._sql(RELEASE, (READY, *span)).rowcount)


def _ended_item(row: _Item, ended_as: int) -> EndedItem:
    return EndedItem(
        item=row.item,
        ended_as=ended_as,
        job=row.id,
        state=STATE[row.state],
        reason=REASON_OR_NONE[row.reason],
        failure=failure_of(row.failure),
        result=_result_of(row),
    )


def _result_of(row: _Item) -> Body | None:
    if row.result_kind is None:
        return None
    removed = row.result_blob is None and row.result is None
    return body_of(row.result_kind, row.result_size, "" if removed else row.result_blob, row.result)
