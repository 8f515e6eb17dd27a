"""What a batch has to know about each of its jobs that ends: counters, causes, the pause."""

from __future__ import annotations

from hecaton.core.batches import MAX_CAUSES, PAUSE_AFTER, Cause, cause_of, why_paused
from hecaton.core.model import Failure, JobId, JobState, Reason
from hecaton.store.sqlite.rows import Row, Verbs

WITHHELD = -1.0
"""`run_after` of waiting jobs in a paused batch."""

_COUNT = {
    state: f"UPDATE batch SET {state.value.lower()} = {state.value.lower()} + ? WHERE seq = ?"  # noqa: S608
    for state in JobState
    if state.terminal
}

_COUNTERS = "SELECT finished + failed + cancelled, failed, size, closed, may_pause FROM batch WHERE seq = ?"


class BatchEnds(Verbs):
    def _count_ends(self, batch: int, state: JobState, count: int) -> Row:
        """So many of its jobs have ended. Returns `_COUNTERS`: the first says the how many-th the last of them was."""
        self._sql(_COUNT[state], (count, batch))
        counters = self._row(_COUNTERS, batch)
        assert counters is not None
        return counters

    def _item_failed(self, batch: int, job: JobId, reason: Reason, failure: Failure | None, counters: Row) -> bool:
        """True: the batch has paused with this one."""
        cause = cause_of(reason, failure)
        self._count_cause(batch, cause, job)
        return self._pause_if_hopeless(batch, cause, counters)

    def _count_cause(self, batch: int, cause: Cause, job: JobId) -> None:
        where = "WHERE batch = ? AND reason = ? AND message = ?"
        key = (batch, cause.reason.value, cause.message)
        if self._sql(f"UPDATE batch_failure SET count = count + 1 {where}", key).rowcount:  # noqa: S608
            return
        known: int = self._sql("SELECT count(*) FROM batch_failure WHERE batch = ?", (batch,)).fetchone()[0]
        self._sql(
            "INSERT INTO batch_failure (batch, reason, message, count, example) VALUES (?, ?, ?, 1, ?)"
            " ON CONFLICT (batch, reason, message) DO UPDATE SET count = count + 1",
            (batch, cause.reason.value, cause.message if known < MAX_CAUSES else "", job),
        )

    def _pause_if_hopeless(self, batch: int, cause: Cause, counters: Row) -> bool:
        ended, failed, size, closed, may_pause = counters
        if not may_pause or failed != PAUSE_AFTER or ended != failed or (closed and size == ended):
            return False
        causes: int = self._sql("SELECT count(*) FROM batch_failure WHERE batch = ?", (batch,)).fetchone()[0]
        if causes > 1:
            return False
        self._sql("UPDATE batch SET paused = ?, sweep_at = 0 WHERE seq = ?", (why_paused(cause), batch))
        return True

    def _run_after(self, batch: int | None, otherwise: float) -> float:
        """When a job may run that waits from now on."""
        if batch is not None and self._row("SELECT 1 FROM batch WHERE seq = ? AND paused IS NOT NULL", batch):
            return WITHHELD
        return otherwise
