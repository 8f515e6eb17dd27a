"""What shows jobs in SQLite: one job, lists, attempts, bodies, leases, lanes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import msgspec

from hecaton.core.batches import lane_of
from hecaton.core.errors import Conflict
from hecaton.core.model import JOB_ID_LENGTH, Attempt, AttemptRef, Body, Job, JobId, JobState, WorkerId
from hecaton.store.port import Claimed, LaneInfo, Page
from hecaton.store.sqlite.rows import JOB, JOBS, KIND, LATEST_ATTEMPT, PAST_ATTEMPT, STATE, Columns, decode_spec
from hecaton.store.sqlite.run_after import IS_DELAYED, IS_READY
from hecaton.store.sqlite.statements import Statements
from hecaton.store.sqlite.verbs.queue import CLAIMED, ClaimedRow, claimed_of

_POSITION_LIMIT = 10_000
_PREFIX_LENGTH = 8
_PREFIX_LOOKED_AT = 20_000
"""Jobs of all owners that are looked at for those of one: they began within the same minute."""

_NEXT_OF_PREFIX = "SELECT 1 FROM job WHERE id >= ? AND id < ? LIMIT 1 OFFSET ?"

_BY_PREFIX = f"""
    {JOBS} WHERE job.seq IN (
      SELECT seq FROM (SELECT seq, owner_id FROM job WHERE id >= ?1 AND id < ?2 LIMIT ?4)
      WHERE ?3 IS NULL OR owner_id = ?3 LIMIT 2
    )
"""  # noqa: S608

_ATTEMPTS = f"""
    SELECT {PAST_ATTEMPT.sql}
    FROM job JOIN attempt ON attempt.seq = job.seq JOIN worker ON worker.id = attempt.worker_id WHERE job.id = ?1
    UNION ALL
    SELECT {LATEST_ATTEMPT.sql}
    FROM job JOIN worker ON worker.id = job.worker_id WHERE job.id = ?1
    ORDER BY 1
"""  # noqa: S608
"""In the order of their numbers, the first column."""

_MADE_OF_BODIES = {"kind": KIND.__getitem__, "data": lambda data: data or b""}
_PAYLOADS = Columns(
    Body,
    "payload",
    {"kind": "payload_kind", "size": "payload_size", "blob": "payload_blob"},
    _MADE_OF_BODIES,
)
_RESULTS = Columns(
    Body,
    "result",
    {"kind": "result_kind", "size": "result_size", "blob": "result_blob"},
    _MADE_OF_BODIES,
)

_PAYLOAD = f"SELECT {_PAYLOADS.sql} FROM job LEFT JOIN payload USING (seq) WHERE id = ?"  # noqa: S608
_RESULT = f"""
    SELECT {_RESULTS.sql} FROM job LEFT JOIN result USING (seq)
    WHERE id = ? AND result_kind IS NOT NULL AND (data IS NOT NULL OR result_blob IS NOT NULL)
"""  # noqa: S608

HELD = f"{CLAIMED} WHERE job.state IN ('ASSIGNED', 'IN_PROGRESS') AND job.worker_id = ? ORDER BY job.seq"


class _LeaseRow(msgspec.Struct, gc=False):
    worker_id: WorkerId
    slot: int
    id: JobId
    attempt: int
    state: str


ASSIGNED = f"""
    SELECT {Columns(_LeaseRow, "job").sql} FROM job INDEXED BY job_held
    WHERE state IN ('ASSIGNED', 'IN_PROGRESS') ORDER BY seq
"""  # noqa: S608

READY_LANES = f"SELECT lane, count(*) FROM job WHERE state = 'IN_QUEUE' AND {IS_READY} GROUP BY lane"  # noqa: S608

DELAYED_LANES = f"""
    SELECT lane, count(*) FILTER (WHERE run_after <= ?1), min(run_after) FILTER (WHERE run_after > ?1)
    FROM job WHERE state = 'IN_QUEUE' AND {IS_DELAYED} GROUP BY lane
"""  # noqa: S608


class _First(msgspec.Struct, gc=False):
    """The job of a lane that goes before the others."""

    priority: int
    seq: int
    created_at: float
    owner_id: int
    image_id: int
    spec: str


_FIRST = f"SELECT {Columns(_First, 'job').sql} FROM job WHERE state = 'IN_QUEUE' AND lane = ?"  # noqa: S608
_FIRST_READY = f"{_FIRST} AND {IS_READY} ORDER BY priority DESC, seq LIMIT 1"
_FIRST_DELAYED = f"{_FIRST} AND {IS_DELAYED} AND run_after <= ? ORDER BY priority DESC, seq LIMIT 1"

BEFORE_IT = f"""
    SELECT count(*) FROM (
      SELECT 1 FROM job WHERE state = 'IN_QUEUE' AND {IS_READY} AND lane = ?1 AND priority > ?2
      UNION ALL
      SELECT 1 FROM job WHERE state = 'IN_QUEUE' AND {IS_READY} AND lane = ?1 AND priority = ?2 AND seq < ?3
      LIMIT ?4
    )
"""  # noqa: S608


def jobs_query(*, owner: bool, state: JobState | None, before: bool, labels: int = 0) -> str:
    """Its values: owner_id and before, where wanted, key and value of each of so many labels, then the limit.

    A `+` keeps SQLite from the index that would step through a million finished jobs to find a few others.
    """
    conditions, own, order = ["1"], "job.owner_id", "job.seq"
    if labels:  # they are few
        own = "+job.owner_id"
    if state is not None:
        conditions.append(f"job.state = '{state.value}'")
    if state in (JobState.ASSIGNED, JobState.IN_PROGRESS):
        conditions.append("job.state IN ('ASSIGNED', 'IN_PROGRESS')")  # the condition of job_held
        own, order = "+job.owner_id", "+job.seq"
    elif state in (JobState.FAILED, JobState.CANCELLED):
        conditions.append("job.state IN ('FAILED', 'CANCELLED')")  # the condition of job_without_result
        own = "+job.owner_id"
    if owner:
        conditions.append(f"{own} = ?")
    if before:
        conditions.append(f"{order} < ?")
    conditions += ["job.seq IN (SELECT seq FROM label WHERE key = ? AND value = ?)"] * labels
    return f"{JOBS} WHERE {' AND '.join(conditions)} ORDER BY {order} DESC LIMIT ?"


class ViewVerbs:
    """Changes nothing: safe on a connection that only reads."""

    def __init__(self, statements: Statements) -> None:
        self._sql = statements.run
        self._first = statements.first
        self._value = statements.value

    # -- one job -------------------------------------------------------------------------------
    def job(self, id_or_index: str, owner_id: int | None = None) -> Job | None:
        name = id_or_index.lower()
        if len(name) == JOB_ID_LENGTH:
            return self._first_job("job.id = ?", name)
        if name.isascii() and name.isdigit() and (found := self._first_job("job.seq = ?", int(name[:18]))):
            return found
        return self._job_by_prefix(name, owner_id) if len(name) >= _PREFIX_LENGTH else None

    def _first_job(self, where: str, value: str | int) -> Job | None:
        row = self._first(f"{JOBS} WHERE {where}", value)
        return JOB.of(row) if row else None

    def _job_by_prefix(self, prefix: str, owner_id: int | None) -> Job | None:
        # '~' sorts after everything that an id is made of.
        until = prefix + "~"
        rows = self._sql(_BY_PREFIX, (prefix, until, owner_id, _PREFIX_LOOKED_AT)).fetchall()
        if len(rows) > 1 or (owner_id is not None and self._crowded(prefix, until)):
            raise Conflict(f"several job ids begin with {prefix!r}", "Give more of the id, or the job's index.")
        return next((JOB.of(row) for row in rows), None)

    def _crowded(self, prefix: str, until: str) -> bool:
        """So many begin so that not all were looked at."""
        return self._first(_NEXT_OF_PREFIX, prefix, until, _PREFIX_LOOKED_AT) is not None

    def payload(self, job: JobId) -> Body | None:
        row = self._first(_PAYLOAD, job)
        return _PAYLOADS.of(row) if row else None

    def result(self, job: JobId) -> Body | None:
        row = self._first(_RESULT, job)
        return _RESULTS.of(row) if row else None

    def attempts(self, job: JobId) -> list[Attempt]:
        return [PAST_ATTEMPT.of(row) for row in self._sql(_ATTEMPTS, (job,))]

    # -- many jobs -----------------------------------------------------------------------------
    def jobs(
        self,
        *,
        owner_id: int | None,
        state: JobState | None,
        before: int | None,
        limit: int,
        labels: Sequence[tuple[str, str]] = (),
    ) -> Page:
        sql = jobs_query(owner=owner_id is not None, state=state, before=before is not None, labels=len(labels))
        values = [value for value in (owner_id, before, *chain.from_iterable(labels)) if value is not None]
        rows = self._sql(sql, (*values, limit + 1)).fetchall()
        jobs = tuple(JOB.of(row) for row in rows[:limit])
        return Page(jobs, jobs[-1].index if len(rows) > limit and jobs else None)

    def held(self, worker_id: WorkerId) -> list[Claimed]:
        return [claimed_of(row, row.attempt, 0) for row in [ClaimedRow(*row) for row in self._sql(HELD, (worker_id,))]]

    def assigned(self) -> list[tuple[WorkerId, int, AttemptRef, JobState]]:
        leases = [_LeaseRow(*row) for row in self._sql(ASSIGNED)]
        return [(one.worker_id, one.slot, AttemptRef(one.id, one.attempt), STATE[one.state]) for one in leases]

    # -- the queue -----------------------------------------------------------------------------
    def lanes(self, now: float) -> list[LaneInfo]:
        ready = dict(self._sql(READY_LANES).fetchall())
        delayed = {lane: (due, next_one) for lane, due, next_one in self._sql(DELAYED_LANES, (now,))}
        return [
            self._lane(lane, ready.get(lane, 0), *delayed.get(lane, (0, None)), now)
            for lane in sorted({*ready, *delayed})
        ]

    def _lane(self, lane: int, ready: int, due: int, next_run_after: float | None, now: float) -> LaneInfo:
        rows = [self._first(_FIRST_READY, lane)] if ready else []
        if due:
            rows.append(self._first(_FIRST_DELAYED, lane, now))
        elif not ready:
            rows.append(self._first(_FIRST_DELAYED, lane, next_run_after))
        first = min((_First(*row) for row in rows if row), key=lambda one: (-one.priority, one.seq))
        made_of = lane_of(first.owner_id, first.image_id, decode_spec(first.spec))
        return LaneInfo(lane, made_of, ready + due, first.priority, first.created_at, next_run_after)

    def queue_position(self, job: JobId) -> int | None:
        row = self._first("SELECT lane, priority, seq FROM job WHERE id = ? AND state = 'IN_QUEUE'", job)
        if row is None:
            return None
        count: int = self._value(BEFORE_IT, *row, _POSITION_LIMIT)
        return count
