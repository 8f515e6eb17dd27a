"""What gives a worker back the attempts that it had been given up for, in SQLite."""

from __future__ import annotations

from collections.abc import Mapping

from hecaton.core.lifecycle import RETURNABLE, TRANSITIONS, Event
from hecaton.core.model import AttemptRef, Charged, WorkerId
from hecaton.store.port import Returned
from hecaton.store.sqlite.rows import CHARGED, REASON, STATE, Verbs, decode_spec
from hecaton.store.sqlite.verbs.queue import HELD_STATES

_HELD_BY = "SELECT seq, state, attempt, worker_id, lane, spec, started_at FROM job WHERE id = ?"

_ENDED_FOR = """
    SELECT assigned_at, started_at, reason, charged FROM attempt WHERE seq = ? AND number = ? AND worker_id = ?
"""

_GIVE_BACK = """
    UPDATE job SET state = ?, run_after = 0, infra_failures = infra_failures - ?,
                   worker_id = ?, slot = ?, assigned_at = ?, started_at = ?
    WHERE seq = ?
"""


class ReturnVerbs(Verbs):
    def return_leases(self, worker: WorkerId, held: Mapping[AttemptRef, int]) -> list[Returned]:
        return [returned for ref, slot in held.items() if (returned := self._return(worker, ref, slot)) is not None]

    def _return(self, worker: WorkerId, ref: AttemptRef, slot: int) -> Returned | None:
        row = self._row(_HELD_BY, ref.job)
        if row is None or row[2] != ref.attempt:
            return None
        seq, state, lane = row[0], STATE[row[1]], row[4]
        if state in HELD_STATES and row[3] == worker:
            return Returned(ref, lane, row[6] is not None, Charged.NONE)
        lost = self._row(_ENDED_FOR, seq, ref.attempt, worker)
        target = TRANSITIONS.get((state, Event.RETURN))
        if lost is None or target is None or REASON[lost[2]] not in RETURNABLE or decode_spec(row[5]).no_overlap:
            return None
        assigned_at, started_at, _, charged = lost
        if started_at is not None:
            target = TRANSITIONS[target, Event.START]
        payer = CHARGED[charged]
        self._sql(_GIVE_BACK, (target.value, payer is Charged.INFRA, worker, slot, assigned_at, started_at, seq))
        self._sql("DELETE FROM attempt WHERE seq = ? AND number = ?", (seq, ref.attempt))
        return Returned(ref, lane, started_at is not None, payer)
