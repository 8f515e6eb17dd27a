"""What moves jobs in SQLite: claim, start, end, cancel, expire; hot.

Every move is taken from `core.lifecycle`; the state names inside the SQL only repeat the conditions of the partial
indexes (a test compares them with the table of moves).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import Any

import msgspec

from hecaton.core.errors import NotFound
from hecaton.core.lifecycle import TRANSITIONS, Event, Standing, Verdict, judge, sources
from hecaton.core.model import AttemptRef, Charged, Failure, JobId, JobSpec, JobState, Reason
from hecaton.store.port import AttemptEnd, CancelResult, Claim, Claimed, EndResult, Expired
from hecaton.store.sqlite.rows import PARTS, STATE, Row, body_of, decode_spec, failure_text, parts
from hecaton.store.sqlite.verbs.batch_ends import BatchEnds
from hecaton.store.sqlite.verbs.submit import SubmitVerbs

CLAIMED = """
    SELECT job.seq, job.id, job.attempt, user.name, job.image_id, job.spec, job.payload_kind, job.payload_size,
           job.payload_blob, payload.data, job.key
    FROM job CROSS JOIN user ON user.id = job.owner_id LEFT JOIN payload ON payload.seq = job.seq
"""
"""To be followed by WHERE."""

CLAIM = f"""{CLAIMED}
    WHERE job.state = 'IN_QUEUE' AND job.run_after = 0 AND job.lane = ?
      AND (job.expires_at IS NULL OR job.expires_at > ?)
    ORDER BY job.priority DESC, job.seq LIMIT ?
"""

DUE = "UPDATE job SET run_after = 0 WHERE state = 'IN_QUEUE' AND run_after > 0 AND run_after <= ?"

_ASSIGN = """
    UPDATE job SET state = ?, attempt = attempt + 1, worker_id = ?, slot = ?, assigned_at = ? WHERE seq IN ({})
"""

_START = "UPDATE job SET state = ?, started_at = ? WHERE id = ? AND attempt = ? AND state = ?"

_CURRENT = """
    SELECT seq, state, attempt, worker_id, lane, started_at, retries, user_failures, infra_failures, cancel_requested,
           coalesce(attempt_reason, reason), batch, id, assigned_at
    FROM job WHERE id IN ({})
"""

_END = """
    UPDATE job SET state = ?, started_at = ?, ended_at = ?, reason = ?, attempt_reason = ?, charged = ?, exit_code = ?,
                   failure = ?, user_failures = ?, infra_failures = ?, result_kind = ?, result_size = ?,
                   result_blob = ?, ended_as = ?
    WHERE seq = ?
"""

_KEEP_ATTEMPT = """
    INSERT INTO attempt (seq, number, worker_id, assigned_at, started_at, ended_at, reason, charged, exit_code, failure)
    SELECT seq, attempt, worker_id, assigned_at, ?, ?, ?, ?, ?, ? FROM job WHERE seq = ?
"""

_REQUEUE = """
    UPDATE job SET state = ?, run_after = ?, user_failures = ?, infra_failures = ?,
                   worker_id = NULL, slot = NULL, assigned_at = NULL, started_at = NULL
    WHERE seq = ?
"""

EXPIRED = """
    SELECT seq, id, spec, batch FROM job WHERE state = 'IN_QUEUE' AND expires_at IS NOT NULL AND expires_at <= ?
    ORDER BY expires_at LIMIT ?
"""

CAP_EXPIRY = """
    UPDATE job SET expires_at = ?1 + json_extract(spec, '$.queue_ttl')
    WHERE state = 'IN_QUEUE' AND expires_at > ?1 AND expires_at > ?1 + json_extract(spec, '$.queue_ttl')
"""

_END_IN_QUEUE = "UPDATE job SET state = ?, ended_at = ?, reason = ?, failure = ?, ended_as = ? WHERE seq = ?"

HELD_STATES = frozenset(sources(Event.REQUEUE))
"""The states in which a worker holds the job."""


_LONGEST_RUN = 64
_CURRENT_OF = [_CURRENT.format(", ".join("?" * jobs)) for jobs in range(_LONGEST_RUN + 1)]
"""By the number of jobs: few statements, so that all of them stay prepared."""

_ASSIGN_OF = {rows: _ASSIGN.format(", ".join("?" * rows)) for rows in PARTS}


_Last = tuple[Row, AttemptEnd, Verdict, JobState]
"""A row of `_CURRENT`, the end of its last attempt, what follows, the state that it ends in."""


class QueueVerbs(SubmitVerbs, BatchEnds):
    # -- claim and start -----------------------------------------------------------------------
    def claim(self, claims: Sequence[Claim], now: float) -> list[Claimed]:
        self._sql(DUE, (now,))
        state = TRANSITIONS[JobState.IN_QUEUE, Event.ASSIGN].value
        claimed: list[Claimed] = []
        for position, claim in enumerate(claims):
            rows = self._sql(CLAIM, (claim.lane, now, claim.count)).fetchall()
            for part in parts([row[0] for row in rows]):
                self._sql(_ASSIGN_OF[len(part)], (state, claim.worker_id, claim.slot, now, *part))
            claimed += [claimed_of(row, row[2] + 1, position) for row in rows]
        return claimed

    def start(self, refs: Sequence[AttemptRef], at: float) -> None:
        for source in sources(Event.START):
            target = TRANSITIONS[source, Event.START].value
            self._sql_many(_START, [(target, at, ref.job, ref.attempt, source.value) for ref in refs])

    # -- end -----------------------------------------------------------------------------------
    def end(self, ends: Sequence[AttemptEnd]) -> list[EndResult]:
        return [ended for run in _runs(ends) for ended in self._end(run)]

    def _end(self, run: Sequence[AttemptEnd]) -> list[EndResult]:
        # hot: benchmarks/batch.py
        rows = {row[12]: row for row in self._sql(_CURRENT_OF[len(run)], [end.ref.job for end in run])}
        ended: list[EndResult] = []
        last: list[_Last] = []
        for end in run:
            row = rows.get(end.ref.job)
            if row is None:
                ended.append(EndResult(end.ref, False, False, None))
                continue
            state, attempt, worker_id = STATE[row[1]], row[2], row[3]
            if state not in HELD_STATES or attempt != end.ref.attempt or (end.by is not None and end.by != worker_id):
                ended.append(EndResult(end.ref, False, self._ended_so(row, end), state))
                continue
            losses = self._losses(row[0]) if end.excused else 0
            verdict = judge(Standing(row[6], row[7], row[8], bool(row[9]), losses), end.reason, end.excused)
            if end.unseen and self._spec(row[0]).no_overlap:
                verdict = msgspec.structs.replace(verdict, delay=max(verdict.delay, end.unseen))
            target = TRANSITIONS[state, verdict.event]
            if target.terminal:
                last.append((row, end, verdict, target))
                started_at = row[5] if row[5] is not None else end.started_at
                ended.append(
                    EndResult(
                        end.ref, True, False, target, verdict, None, row[11], False, row[13], started_at, bool(row[9])
                    )
                )
            else:
                self._requeue(row, end, verdict, target)
                ended.append(EndResult(end.ref, True, False, target, verdict, row[4]))
        if last and self._finish(last):
            ended = [msgspec.structs.replace(end, paused=True) for end in ended]
        return ended

    def _finish(self, last: Sequence[_Last]) -> bool:
        """Of one run. True: the batch has paused with the one that ended."""
        paused = False
        target = last[0][3]
        numbers: dict[int | None, Iterator[int | None]] = {}
        for batch, ends in Counter(row[11] for row, *_ in last).items():
            if batch is None:
                numbers[None] = repeat(None)
                continue
            counters = self._count_ends(batch, target, ends)
            numbers[batch] = iter(range(counters[0] - ends + 1, counters[0] + 1))
            if target is JobState.FAILED:
                _, end, verdict, _ = last[0]
                paused = self._item_failed(batch, end.ref.job, verdict.reason, end.failure, counters)
        self._sql_many(_END, [_end_values(*one, next(numbers[one[0][11]])) for one in last])
        results = [(row[0], end.body.data) for row, end, *_ in last if end.body and end.body.blob is None]
        if results:
            self._insert_bodies("result", results)
        return paused

    def _requeue(self, row: Row, end: AttemptEnd, verdict: Verdict, target: JobState) -> None:
        seq = row[0]
        started_at = row[5] if row[5] is not None else end.started_at
        self._sql(
            _KEEP_ATTEMPT,
            (
                started_at,
                end.at,
                end.reason.value,
                verdict.charged.value,
                end.exit_code,
                failure_text(end.failure),
                seq,
            ),
        )
        self._sql(
            _REQUEUE,
            (
                target.value,
                self._run_after(row[11], end.at + verdict.delay if verdict.delay else 0),
                row[7] + (verdict.charged is Charged.USER),
                row[8] + (verdict.charged is Charged.INFRA),
                seq,
            ),
        )
        if started_at is not None:  # it was worth starting: its time in the queue counts anew
            spec = self._spec(seq)
            if spec.queue_ttl is not None:
                self._sql("UPDATE job SET expires_at = ? WHERE seq = ?", (end.at + spec.queue_ttl, seq))

    def _spec(self, seq: int) -> JobSpec:
        return decode_spec(self._sql("SELECT spec FROM job WHERE seq = ?", (seq,)).fetchone()[0])

    def _losses(self, seq: int) -> int:
        rows = self._sql("SELECT count(*) FROM attempt WHERE seq = ? AND reason = ?", (seq, Reason.WORKER_LOST.value))
        count: int = rows.fetchone()[0]
        return count

    def _ended_so(self, row: Row, end: AttemptEnd) -> bool:
        """Did this attempt end before, by the same worker and for the same reason?"""
        seq, attempt, worker_id, reason = row[0], row[2], row[3], row[10]
        if attempt != end.ref.attempt or worker_id is None:
            kept = self._row("SELECT worker_id, reason FROM attempt WHERE seq = ? AND number = ?", seq, end.ref.attempt)
            if kept is None:
                return False
            worker_id, reason = kept
        return reason == end.reason.value and end.by in (None, worker_id)

    # -- ends in the queue ---------------------------------------------------------------------
    def cancel(self, job: JobId, now: float) -> CancelResult:
        row = self._row("SELECT seq, state, attempt, worker_id, batch FROM job WHERE id = ?", job)
        if row is None:
            raise NotFound(f"there is no job {job!r}")
        seq, state, attempt, worker_id, batch = row[0], STATE[row[1]], row[2], row[3], row[4]
        if state is JobState.IN_QUEUE:
            state = TRANSITIONS[state, Event.CANCEL]
            number = None if batch is None else self._count_ends(batch, state, 1)[0]
            self._sql(_END_IN_QUEUE, (state.value, now, Reason.CANCELLED.value, None, number, seq))
        elif not state.terminal:
            self._sql("UPDATE job SET cancel_requested = 1 WHERE seq = ?", (seq,))
        return CancelResult(job, state, AttemptRef(job, attempt), worker_id, batch)

    def cap_waits(self, now: float, longest_delay: float) -> None:
        until = now + longest_delay
        self._sql("UPDATE job SET run_after = ?1 WHERE state = 'IN_QUEUE' AND run_after > ?1", (until,))
        self._sql(CAP_EXPIRY, (now,))

    def expire_queued(self, now: float, limit: int = 1000) -> list[Expired]:
        rows = self._sql(EXPIRED, (now, limit)).fetchall()
        state = TRANSITIONS[JobState.IN_QUEUE, Event.FAIL]
        expired: list[Expired] = []
        for seq, job, spec, batch in rows:
            ttl = decode_spec(spec).queue_ttl
            failure = Failure(
                message=f"no worker started the job within the {ttl:g} s it was to wait in the queue (queue_ttl)",
                hint="Submit it again with a longer queue_ttl, or add workers.",
            )
            counters = None if batch is None else self._count_ends(batch, state, 1)
            number = counters[0] if counters else None
            self._sql(_END_IN_QUEUE, (state.value, now, Reason.QUEUE_TTL.value, failure_text(failure), number, seq))
            paused = counters is not None and self._item_failed(batch, job, Reason.QUEUE_TTL, failure, counters)
            expired.append(Expired(JobId(job), batch, paused))
        return expired


def _runs(ends: Sequence[AttemptEnd]) -> Iterator[list[AttemptEnd]]:
    """In order. A run is one end, or good ones of different jobs: those share most of their statements."""
    run: list[AttemptEnd] = []
    jobs: set[JobId] = set()
    for end in ends:
        good = end.reason is Reason.OK
        if run and not (good and jobs and end.ref.job not in jobs and len(run) < _LONGEST_RUN):
            yield run
            run, jobs = [], set()
        run.append(end)
        if good:
            jobs.add(end.ref.job)
    if run:
        yield run


def _end_values(row: Row, end: AttemptEnd, verdict: Verdict, target: JobState, number: int | None) -> tuple[Any, ...]:
    """For `_END`. `number`: it was the so many-th of its batch to end."""
    body = end.body
    return (
        target.value,
        row[5] if row[5] is not None else end.started_at,
        end.at,
        verdict.reason.value,
        end.reason.value if end.reason is not verdict.reason else None,
        verdict.charged.value,
        end.exit_code,
        failure_text(end.failure),
        row[7] + (verdict.charged is Charged.USER),
        row[8] + (verdict.charged is Charged.INFRA),
        body.kind.value if body else None,
        body.size if body else 0,
        body.blob if body else None,
        number,
        row[0],
    )


def claimed_of(row: Row, attempt: int, position: int) -> Claimed:
    """A row of `CLAIMED`."""
    return Claimed(
        ref=AttemptRef(row[1], attempt),
        index=row[0],
        owner=row[3],
        image_id=row[4],
        spec=decode_spec(row[5]),
        payload=body_of(row[6], row[7], row[8], row[9]),
        key=row[10],
        claim=position,
    )
