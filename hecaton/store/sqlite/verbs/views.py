"""What shows jobs in SQLite: one job, lists, attempts, bodies, leases, lanes."""

from __future__ import annotations

from hecaton.core.batches import lane_of
from hecaton.core.errors import Conflict
from hecaton.core.model import Attempt, AttemptRef, Body, Job, JobId, JobState, WorkerId
from hecaton.store.port import Claimed, LaneInfo, Page
from hecaton.store.sqlite.rows import JOBS, STATE, Row, Verbs, attempt_of, body_of, decode_spec, job_of
from hecaton.store.sqlite.verbs.queue import CLAIMED, claimed_of

_POSITION_LIMIT = 10_000
_ID_LENGTH = 36
_PREFIX_LENGTH = 8

_ATTEMPTS = """
    SELECT attempt.number, worker.name, attempt.assigned_at, attempt.started_at, attempt.ended_at, attempt.reason,
           attempt.charged, attempt.exit_code, attempt.failure
    FROM job JOIN attempt ON attempt.seq = job.seq JOIN worker ON worker.id = attempt.worker_id WHERE job.id = ?1
    UNION ALL
    SELECT job.attempt, worker.name, job.assigned_at, job.started_at, job.ended_at,
           coalesce(job.attempt_reason, job.reason), job.charged, job.exit_code, job.failure
    FROM job JOIN worker ON worker.id = job.worker_id WHERE job.id = ?1
    ORDER BY 1
"""

HELD = f"{CLAIMED} WHERE job.state IN ('ASSIGNED', 'IN_PROGRESS') AND job.worker_id = ? ORDER BY job.seq"

ASSIGNED = """
    SELECT worker_id, slot, id, attempt, state FROM job INDEXED BY job_held
    WHERE state IN ('ASSIGNED', 'IN_PROGRESS') ORDER BY seq
"""

READY_LANES = "SELECT lane, count(*) FROM job WHERE state = 'IN_QUEUE' AND run_after = 0 GROUP BY lane"

DELAYED_LANES = """
    SELECT lane, count(*) FILTER (WHERE run_after <= ?1), min(run_after) FILTER (WHERE run_after > ?1)
    FROM job WHERE state = 'IN_QUEUE' AND run_after > 0 GROUP BY lane
"""

_FIRST = "SELECT priority, seq, created_at, owner_id, image_id, spec FROM job WHERE state = 'IN_QUEUE' AND lane = ?"
_FIRST_READY = f"{_FIRST} AND run_after = 0 ORDER BY priority DESC, seq LIMIT 1"
_FIRST_DELAYED = f"{_FIRST} AND run_after > 0 AND run_after <= ? ORDER BY priority DESC, seq LIMIT 1"

BEFORE_IT = """
    SELECT count(*) FROM (
      SELECT 1 FROM job WHERE state = 'IN_QUEUE' AND run_after = 0 AND lane = ?1 AND priority > ?2
      UNION ALL
      SELECT 1 FROM job WHERE state = 'IN_QUEUE' AND run_after = 0 AND lane = ?1 AND priority = ?2 AND seq < ?3
      LIMIT ?4
    )
"""


def jobs_query(*, owner: bool, state: JobState | None, before: bool) -> str:
    """Its values: owner_id and before, where wanted, then the limit.

    A `+` keeps SQLite from the index that would step through a million finished jobs to find a few others.
    """
    conditions, own, order = ["1"], "job.owner_id", "job.seq"
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
    return f"{JOBS} WHERE {' AND '.join(conditions)} ORDER BY {order} DESC LIMIT ?"


class ViewVerbs(Verbs):
    # -- one job -------------------------------------------------------------------------------
    def job(self, id_or_index: str) -> Job | None:
        name = id_or_index.lower()
        if len(name) == _ID_LENGTH:
            return self._first_job("job.id = ?", name)
        if name.isascii() and name.isdigit() and (found := self._first_job("job.seq = ?", int(name[:18]))):
            return found
        return self._job_by_prefix(name) if len(name) >= _PREFIX_LENGTH else None

    def _first_job(self, where: str, value: str | int) -> Job | None:
        row = self._row(f"{JOBS} WHERE {where}", value)
        return job_of(row) if row else None

    def _job_by_prefix(self, prefix: str) -> Job | None:
        # '~' sorts after everything that an id is made of.
        rows = self._sql(f"{JOBS} WHERE job.id >= ? AND job.id < ? LIMIT 2", (prefix, prefix + "~")).fetchall()
        if len(rows) > 1:
            raise Conflict(f"several job ids begin with {prefix!r}", "Give more of the id, or the job's index.")
        return job_of(rows[0]) if rows else None

    def payload(self, job: JobId) -> Body | None:
        row = self._row(
            "SELECT payload_kind, payload_size, payload_blob, data FROM job LEFT JOIN payload USING (seq) WHERE id = ?",
            job,
        )
        return body_of(*row) if row else None

    def result(self, job: JobId) -> Body | None:
        row = self._row(
            "SELECT result_kind, result_size, result_blob, data FROM job LEFT JOIN result USING (seq)"
            " WHERE id = ? AND result_kind IS NOT NULL AND (data IS NOT NULL OR result_blob IS NOT NULL)",
            job,
        )
        return body_of(*row) if row else None

    def attempts(self, job: JobId) -> list[Attempt]:
        return [attempt_of(row) for row in self._sql(_ATTEMPTS, (job,))]

    # -- many jobs -----------------------------------------------------------------------------
    def jobs(self, *, owner_id: int | None, state: JobState | None, before: int | None, limit: int) -> Page:
        sql = jobs_query(owner=owner_id is not None, state=state, before=before is not None)
        values = [value for value in (owner_id, before) if value is not None]
        rows = self._sql(sql, (*values, limit + 1)).fetchall()
        jobs = tuple(job_of(row) for row in rows[:limit])
        return Page(jobs, jobs[-1].index if len(rows) > limit and jobs else None)

    def held(self, worker_id: WorkerId) -> list[Claimed]:
        return [claimed_of(row, row[2], 0) for row in self._sql(HELD, (worker_id,))]

    def assigned(self) -> list[tuple[WorkerId, int, AttemptRef, JobState]]:
        return [(row[0], row[1], AttemptRef(row[2], row[3]), STATE[row[4]]) for row in self._sql(ASSIGNED)]

    # -- the queue -----------------------------------------------------------------------------
    def lanes(self, now: float) -> list[LaneInfo]:
        ready = dict(self._sql(READY_LANES).fetchall())
        delayed = {row[0]: (row[1], row[2]) for row in self._sql(DELAYED_LANES, (now,))}
        return [
            self._lane(lane, ready.get(lane, 0), *delayed.get(lane, (0, None)), now)
            for lane in sorted({*ready, *delayed})
        ]

    def _lane(self, lane: int, ready: int, due: int, next_run_after: float | None, now: float) -> LaneInfo:
        firsts: list[Row | None] = [self._row(_FIRST_READY, lane)] if ready else []
        if due:
            firsts.append(self._row(_FIRST_DELAYED, lane, now))
        elif not ready:
            firsts.append(self._row(_FIRST_DELAYED, lane, next_run_after))
        first = min((row for row in firsts if row), key=lambda row: (-row[0], row[1]))
        made_of = lane_of(first[3], first[4], decode_spec(first[5]))
        return LaneInfo(lane, made_of, ready + due, first[0], first[2], next_run_after)

    def queue_position(self, job: JobId) -> int | None:
        row = self._row("SELECT lane, priority, seq FROM job WHERE id = ? AND state = 'IN_QUEUE'", job)
        if row is None:
            return None
        count: int = self._sql(BEFORE_IT, (*row, _POSITION_LIMIT)).fetchone()[0]
        return count
