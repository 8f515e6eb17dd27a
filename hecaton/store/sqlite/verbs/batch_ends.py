"""What a batch has to know about each of its jobs that ends: counters, causes, the pause."""

from __future__ import annotations

import msgspec

from hecaton.core.batches import MAX_CAUSES, PAUSE_AFTER, Cause, cause_of, why_paused
from hecaton.core.model import Failure, JobId, JobState, Reason
from hecaton.store.sqlite.rows import Columns
from hecaton.store.sqlite.run_after import WITHHELD
from hecaton.store.sqlite.statements import Statements


class Counters(msgspec.Struct, gc=False):
    """Of a batch, once an end is counted. `ended`: the how many-th to end that one was."""

    ended: int
    failed: int
    size: int
    closed: int
    may_pause: int


_COUNT = {
    state: f"UPDATE batch SET {state.value.lower()} = {state.value.lower()} + ? WHERE seq = ?"  # noqa: S608
    for state in JobState
    if state.terminal
}

_COUNTERS = f"""
    SELECT {Columns(Counters, "batch", {"ended": "finished + failed + cancelled"}).sql} FROM batch WHERE seq = ?
"""  # noqa: S608


class BatchEnds:
    """What the verbs that end jobs call in the same transaction, so that a batch's counters never differ from its jobs.
    No verbs of the port."""

    def __init__(self, statements: Statements) -> None:
        self._sql = statements.run
        self._first = statements.first
        self._value = statements.value

    def count(self, batch: int, state: JobState, ends: int) -> Counters:
        """So many of its jobs have ended: adds them to the batch's counters. `ended` is the number of the last."""
        self._sql(_COUNT[state], (ends, batch))
        return Counters(*self._sql(_COUNTERS, (batch,)).fetchone())

    def record_failure(
        self, batch: int, job: JobId, reason: Reason, failure: Failure | None, counters: Counters
    ) -> bool:
        """Counts the cause, and pauses the batch if it is hopeless. True: it has paused with this one."""
        cause = cause_of(reason, failure)
        self._count_cause(batch, cause, job)
        if not self._hopeless(batch, counters):
            return False
        self._sql("UPDATE batch SET paused = ?, sweep_at = 0 WHERE seq = ?", (why_paused(cause), batch))
        return True

    def _count_cause(self, batch: int, cause: Cause, job: JobId) -> None:
        where = "WHERE batch = ? AND reason = ? AND message = ?"
        key = (batch, cause.reason.value, cause.message)
        counted = self._sql(f"UPDATE batch_failure SET count = count + 1 {where}", key).rowcount  # noqa: S608
        if counted:
            return
        known = self._value("SELECT count(*) FROM batch_failure WHERE batch = ?", batch)
        self._sql(
            "INSERT INTO batch_failure (batch, reason, message, count, example) VALUES (?, ?, ?, 1, ?)"
            " ON CONFLICT (batch, reason, message) DO UPDATE SET count = count + 1",
            (batch, cause.reason.value, cause.message if known < MAX_CAUSES else "", job),
        )

    def _hopeless(self, batch: int, now: Counters) -> bool:
        """Would its other jobs fail too, as far as one can tell?"""
        if not now.may_pause or now.failed != PAUSE_AFTER or now.ended != now.failed:
            return False
        if now.closed and now.size == now.ended:
            return False
        causes: int = self._value("SELECT count(*) FROM batch_failure WHERE batch = ?", batch)
        return causes == 1

    def run_after(self, batch: int | None, otherwise: float) -> float:
        """When a job may run that waits from now on (`hecaton.store.sqlite.run_after`)."""
        if batch is not None and self._first("SELECT 1 FROM batch WHERE seq = ? AND paused IS NOT NULL", batch):
            return WITHHELD
        return otherwise
