"""What gives a worker back the attempts that it had been given up for, in SQLite."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from hecaton.core.lifecycle import RETURNABLE, TRANSITIONS, Event
from hecaton.core.model import AttemptRef, Charged, WorkerId
from hecaton.store.port import Returned
from hecaton.store.sqlite.rows import CHARGED, REASON, STATE, Columns, decode_spec
from hecaton.store.sqlite.run_after import READY
from hecaton.store.sqlite.statements import Statements
from hecaton.store.sqlite.tally import Tally
from hecaton.store.sqlite.verbs.queue import HELD_STATES


class _ClaimedJob(msgspec.Struct, gc=False):
    """The job that a worker says it holds."""

    seq: int
    state: str
    attempt: int
    worker_id: WorkerId | None
    lane: int
    spec: str
    started_at: float | None
    owner_id: int


class _LostAttempt(msgspec.Struct, gc=False):
    """The attempt that was ended for its worker's silence."""

    assigned_at: float
    started_at: float | None
    reason: str
    charged: str
    failure: str | None
    image_version: str | None


_CLAIMED = f"SELECT {Columns(_ClaimedJob, 'job').sql} FROM job WHERE id = ?"  # noqa: S608
_LOST = f"SELECT {Columns(_LostAttempt, 'attempt').sql} FROM attempt WHERE seq = ? AND number = ? AND worker_id = ?"  # noqa: S608

_GIVE_BACK = """
    UPDATE job SET state = ?, run_after = ?, infra_failures = infra_failures - ?,
                   worker_id = ?, slot = ?, assigned_at = ?, started_at = ?, image_version = ?
    WHERE seq = ?
"""


class ReturnVerbs:
    """An attempt goes on only under the number that is its job's current one: what was given to another worker since
    stays there."""

    def __init__(self, statements: Statements, tally: Tally) -> None:
        self._tally = tally
        self._sql = statements.run
        self._first = statements.first

    def return_leases(self, worker: WorkerId, held: Mapping[AttemptRef, int]) -> list[Returned]:
        return [returned for ref, slot in held.items() if (returned := self._return(worker, ref, slot)) is not None]

    def _return(self, worker: WorkerId, ref: AttemptRef, slot: int) -> Returned | None:
        row = self._first(_CLAIMED, ref.job)
        if row is None:
            return None
        job = _ClaimedJob(*row)
        if job.attempt != ref.attempt:
            return None
        state = STATE[job.state]
        if state in HELD_STATES and job.worker_id == worker:
            return Returned(ref, job.lane, job.started_at is not None, Charged.NONE)
        row = self._first(_LOST, job.seq, ref.attempt, worker)
        target = TRANSITIONS.get((state, Event.RETURN))
        if row is None or target is None:
            return None
        lost = _LostAttempt(*row)
        if REASON[lost.reason] not in RETURNABLE or decode_spec(job.spec).no_overlap:
            return None
        started = lost.started_at is not None
        if started:
            target = TRANSITIONS[target, Event.START]
        payer = CHARGED[lost.charged]
        again = (
            target.value, READY, payer is Charged.INFRA, worker, slot, lost.assigned_at, lost.started_at,
            lost.image_version, job.seq,
        )  # fmt: skip
        self._sql(_GIVE_BACK, again)
        self._tally.add(job.owner_id, results=-len(lost.failure or ""))
        self._sql("DELETE FROM attempt WHERE seq = ? AND number = ?", (job.seq, ref.attempt))
        return Returned(ref, job.lane, started, payer)
