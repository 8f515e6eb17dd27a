"""What moves jobs in SQLite: claim, start, end, cancel, expire; hot.

Every move is taken from `core.lifecycle`; the state names inside the SQL only repeat the conditions of the partial
indexes (a test compares them with the table of moves).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import repeat, starmap
from typing import Any

import msgspec

from hecaton.core.errors import NotFound
from hecaton.core.lifecycle import TRANSITIONS, Event, History, Verdict, judge, last_words, sources
from hecaton.core.model import AttemptRef, Charged, Failure, JobId, JobSpec, JobState, Reason, WorkerId
from hecaton.store.port import AttemptEnd, CancelResult, Claim, Claimed, EndResult, Expired
from hecaton.store.sqlite.rows import STATE, Columns, body_of, decode_spec, defaults_text, failure_text
from hecaton.store.sqlite.run_after import IS_DELAYED, IS_READY, READY
from hecaton.store.sqlite.statements import PARTS, Statements, parts
from hecaton.store.sqlite.tally import Tally
from hecaton.store.sqlite.verbs.batch_ends import BatchEnds


class ClaimedRow(msgspec.Struct, gc=False):
    """A job with all that its worker needs. `attempt`: as it stands in the row."""

    seq: int
    id: JobId
    attempt: int
    owner: str
    image_id: int
    spec: str
    payload_kind: str
    payload_size: int
    payload_blob: str | None
    payload: bytes | None
    key: str
    uid: int | None
    checkpoint: int


CLAIMED = f"""
    SELECT {Columns(ClaimedRow, "job", {"owner": "user.name", "uid": "user.uid", "payload": "payload.data"}).sql}
    FROM job CROSS JOIN user ON user.id = job.owner_id LEFT JOIN payload ON payload.seq = job.seq
"""  # noqa: S608
"""To be followed by WHERE."""

CLAIM = f"""{CLAIMED}
    WHERE job.state = 'IN_QUEUE' AND job.{IS_READY} AND job.lane = ?
      AND (job.expires_at IS NULL OR job.expires_at > ?)
    ORDER BY job.priority DESC, job.seq LIMIT ?
"""

DUE = f"UPDATE job SET run_after = {READY:g} WHERE state = 'IN_QUEUE' AND {IS_DELAYED} AND run_after <= ?"  # noqa: S608

_ASSIGN = """
    UPDATE job SET attempt = attempt + 1, state = ?, worker_id = ?, slot = ?, assigned_at = ?, defaults = ?
    WHERE seq IN ({})
"""

_START = "UPDATE job SET state = ?, started_at = ?, image_version = ? WHERE id = ? AND attempt = ? AND state = ?"


class _Current(msgspec.Struct, gc=False):
    """A job, as an end of one of its attempts finds it. `reason`: why its latest attempt ended."""

    seq: int
    id: JobId
    state: str
    attempt: int
    worker_id: WorkerId | None
    lane: int
    image_id: int
    assigned_at: float | None
    started_at: float | None
    retries: int
    user_failures: int
    infra_failures: int
    cancel_requested: int
    reason: str | None
    batch: int | None
    owner_id: int


_CURRENT = f"""
    SELECT {Columns(_Current, "job", {"reason": "coalesce(attempt_reason, reason)"}).sql} FROM job WHERE id IN ({{}})
"""  # noqa: S608

_END = """
    UPDATE job SET state = ?, started_at = ?, ended_at = ?, reason = ?, attempt_reason = ?, charged = ?, exit_code = ?,
                   failure = ?, user_failures = ?, infra_failures = ?, result_kind = ?, result_size = ?,
                   result_blob = ?, ended_as = ?, image_version = coalesce(?, image_version)
    WHERE seq = ?
"""

_KEEP_ATTEMPT = """
    INSERT INTO attempt (seq, number, worker_id, assigned_at, started_at, ended_at, reason, charged, exit_code, failure,
                         image_version, defaults)
    SELECT seq, attempt, worker_id, assigned_at, ?, ?, ?, ?, ?, ?, coalesce(?, image_version), defaults
    FROM job WHERE seq = ?
"""

_REQUEUE = """
    UPDATE job SET state = ?, run_after = ?, user_failures = ?, infra_failures = ?,
                   worker_id = NULL, slot = NULL, assigned_at = NULL, started_at = NULL, image_version = NULL
    WHERE seq = ?
"""


class _Overdue(msgspec.Struct, gc=False):
    """A job that has waited too long."""

    seq: int
    id: JobId
    image_id: int
    spec: str
    batch: int | None
    owner_id: int


EXPIRED = f"""
    SELECT {Columns(_Overdue, "job").sql} FROM job
    WHERE state = 'IN_QUEUE' AND expires_at IS NOT NULL AND expires_at <= ? ORDER BY expires_at LIMIT ?
"""  # noqa: S608

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


class _Last(msgspec.Struct, gc=False):
    """A job that ends. `state`: the one that it ends in. `started_at`: the news of it may have come with the end."""

    job: _Current
    end: AttemptEnd
    verdict: Verdict
    state: JobState
    started_at: float | None


class QueueVerbs:
    """Moves jobs, each move one of `core.lifecycle`. An attempt's number rises in the statement that assigns it, and an
    attempt is ended only under the number that its job has now: that is the fence."""

    def __init__(
        self, statements: Statements, batch_ends: BatchEnds, tally: Tally, in_service: Callable[[WorkerId], bool]
    ) -> None:
        self._tally = tally
        self._sql = statements.run
        self._sql_many = statements.run_many
        self._first, self._value = statements.first, statements.value
        self._insert_bodies = statements.insert_bodies
        self._batch_ends, self._in_service = batch_ends, in_service

    # -- claim and start -----------------------------------------------------------------------
    def claim(self, claims: Sequence[Claim], now: float) -> list[Claimed]:
        self._sql(DUE, (now,))
        state = TRANSITIONS[JobState.IN_QUEUE, Event.ASSIGN].value
        claimed: list[Claimed] = []
        for position, claim in enumerate(claims):
            if not self._in_service(claim.worker_id):
                continue
            rows = [*starmap(ClaimedRow, self._sql(CLAIM, (claim.lane, now, claim.count)))]
            defaults = defaults_text(claim.defaults)
            for part in parts([row.seq for row in rows]):
                self._sql(_ASSIGN_OF[len(part)], (state, claim.worker_id, claim.slot, now, defaults, *part))
            claimed += [claimed_of(row, row.attempt + 1, position) for row in rows]
        return claimed

    def start(self, refs: Sequence[AttemptRef], at: float, image_version: str | None = None) -> None:
        for source in sources(Event.START):
            target = TRANSITIONS[source, Event.START].value
            self._sql_many(_START, [(target, at, image_version, ref.job, ref.attempt, source.value) for ref in refs])

    # -- end -----------------------------------------------------------------------------------
    def end(self, ends: Sequence[AttemptEnd]) -> list[EndResult]:
        return self._end(ends) if len(ends) == 1 else [ended for run in _runs(ends) for ended in self._end(run)]

    def _end(self, run: Sequence[AttemptEnd]) -> list[EndResult]:
        # hot: benchmarks/batch.py
        rows = self._sql(_CURRENT_OF[len(run)], [end.ref.job for end in run])
        jobs = {job.id: job for job in starmap(_Current, rows)}
        ended: list[EndResult] = []
        last: list[_Last] = []
        for end in run:
            job = jobs.get(end.ref.job)
            if job is None:
                ended.append(EndResult(end.ref, False, False, None))
                continue
            state, attempt, worker_id = STATE[job.state], job.attempt, job.worker_id
            if state not in HELD_STATES or attempt != end.ref.attempt or (end.by is not None and end.by != worker_id):
                ended.append(EndResult(end.ref, False, self._ended_so(job, end), state))
                continue
            cancel_requested = bool(job.cancel_requested)
            history = History(job.retries, job.user_failures, job.infra_failures, cancel_requested)
            if end.reason is Reason.WORKER_LOST:
                losses, charged = self._losses(job.seq)
                history = msgspec.structs.replace(history, losses=losses, charged_losses=charged)
            verdict = judge(history, end.reason, end.excused, end.hope)
            if end.failure is None and (failure := last_words(verdict)) is not None:
                end = msgspec.structs.replace(end, failure=failure)
            if end.unseen and self._spec(job.seq).no_overlap:
                verdict = msgspec.structs.replace(verdict, delay=max(verdict.delay, end.unseen))
            if end.wait > verdict.delay:
                verdict = msgspec.structs.replace(verdict, delay=end.wait)
            target = TRANSITIONS[state, verdict.event]
            if target.terminal:
                started_at = end.started_at if job.started_at is None else job.started_at
                last.append(_Last(job, end, verdict, target, started_at))
                ended.append(EndResult(
                    ref=end.ref, accepted=True, repeated=False, state=target, verdict=verdict, batch=job.batch,
                    assigned_at=job.assigned_at, started_at=started_at, cancel_requested=cancel_requested,
                    image_id=job.image_id,
                ))  # fmt: skip
            else:
                self._requeue(job, end, verdict, target)
                ended.append(EndResult(end.ref, True, False, target, verdict, job.lane))
        paused = self._write_last(last) if last else False
        if paused:  # then it is the only one of its run
            ended = [msgspec.structs.replace(end, paused=True) for end in ended]
        return ended

    def _write_last(self, last: Sequence[_Last]) -> bool:
        """Writes the ends of one run into the jobs, their results and the counters of their batches. All of them end in
        the same state. True: the batch has paused with the one that ended."""
        paused = False
        first, *_ = last
        numbers: dict[int | None, Iterator[int | None]] = {}
        batches = [one.job.batch for one in last]
        for batch in dict.fromkeys(batches):
            if batch is None:
                numbers[None] = repeat(None)
                continue
            counters = self._batch_ends.count(batch, first.state, ends := batches.count(batch))
            numbers[batch] = iter(range(counters.ended - ends + 1, counters.ended + 1))
            if first.state is JobState.FAILED:
                reason, failure = first.verdict.reason, first.end.failure
                paused = self._batch_ends.record_failure(batch, first.job.id, reason, failure, counters)
        self._sql_many(_END, [_end_values(one, next(numbers[one.job.batch])) for one in last])
        results = [(one.job.seq, body.data) for one in last if (body := one.end.body) is not None and body.blob is None]
        if results:
            self._insert_bodies("result", results)
        self._tally.add_ends([(one.job.owner_id, one.end) for one in last])
        return paused

    def _requeue(self, job: _Current, end: AttemptEnd, verdict: Verdict, target: JobState) -> None:
        started_at = end.started_at if job.started_at is None else job.started_at
        self._tally.add_failure(job.owner_id, end.failure)
        kept = (
            started_at, end.at, end.reason.value, verdict.charged.value, end.exit_code, failure_text(end.failure),
            end.image_version, job.seq,
        )  # fmt: skip
        self._sql(_KEEP_ATTEMPT, kept)
        self._sql(
            _REQUEUE,
            (
                target.value,
                self._batch_ends.run_after(job.batch, end.at + verdict.delay if verdict.delay else READY),
                job.user_failures + (verdict.charged is Charged.USER),
                job.infra_failures + (verdict.charged is Charged.INFRA),
                job.seq,
            ),
        )
        # It was worth starting: its time in the queue counts anew.
        if started_at is not None and (queue_ttl := self._spec(job.seq).queue_ttl) is not None:
            self._sql("UPDATE job SET expires_at = ? WHERE seq = ?", (end.at + queue_ttl, job.seq))

    def _spec(self, seq: int) -> JobSpec:
        return decode_spec(self._value("SELECT spec FROM job WHERE seq = ?", seq))

    def _losses(self, seq: int) -> tuple[int, int]:
        """Earlier attempts whose worker was lost, and those of them that were charged to the machines."""
        lost: list[str] = [
            charged
            for (charged,) in self._sql(
                "SELECT charged FROM attempt WHERE seq = ? AND reason = ?", (seq, Reason.WORKER_LOST.value)
            )
        ]
        return len(lost), lost.count(Charged.INFRA.value)

    def _ended_so(self, job: _Current, end: AttemptEnd) -> bool:
        """Did this attempt end before, by the same worker and for the same reason?"""
        worker_id, reason = job.worker_id, job.reason
        if job.attempt != end.ref.attempt or worker_id is None:
            kept = self._first(
                "SELECT worker_id, reason FROM attempt WHERE seq = ? AND number = ?", job.seq, end.ref.attempt
            )
            if kept is None:
                return False
            worker_id, reason = kept
        return reason == end.reason.value and end.by in (None, worker_id)

    # -- ends in the queue ---------------------------------------------------------------------
    def cancel(self, job: JobId, now: float) -> CancelResult:
        row = self._first(_CURRENT_OF[1], job)
        if row is None:
            raise NotFound(f"there is no job {job!r}")
        found = _Current(*row)
        state = STATE[found.state]
        if state is JobState.IN_QUEUE:
            state = TRANSITIONS[state, Event.CANCEL]
            number = None if found.batch is None else self._batch_ends.count(found.batch, state, 1).ended
            self._sql(_END_IN_QUEUE, (state.value, now, Reason.CANCELLED.value, None, number, found.seq))
        elif not state.terminal:
            self._sql("UPDATE job SET cancel_requested = 1 WHERE seq = ?", (found.seq,))
        return CancelResult(job, state, AttemptRef(job, found.attempt), found.worker_id, found.batch)

    def cap_waits(self, now: float, longest_delay: float) -> None:
        until = now + longest_delay
        self._sql("UPDATE job SET run_after = ?1 WHERE state = 'IN_QUEUE' AND run_after > ?1", (until,))
        self._sql(CAP_EXPIRY, (now,))

    def expire_queued(self, now: float, limit: int = 1000) -> list[Expired]:
        jobs = [_Overdue(*row) for row in self._sql(EXPIRED, (now, limit))]
        state = TRANSITIONS[JobState.IN_QUEUE, Event.FAIL]
        expired: list[Expired] = []
        for job in jobs:
            ttl = decode_spec(job.spec).queue_ttl
            failure = Failure(
                message=f"no worker started the job within the {ttl:g} s it was to wait in the queue (queue_ttl)",
                hint="Submit it again with a longer queue_ttl, or add workers.",
            )
            number, paused = None, False
            if job.batch is not None:
                counters = self._batch_ends.count(job.batch, state, 1)
                number = counters.ended
                paused = self._batch_ends.record_failure(job.batch, job.id, Reason.QUEUE_TTL, failure, counters)
            self._sql(_END_IN_QUEUE, (state.value, now, Reason.QUEUE_TTL.value, failure_text(failure), number, job.seq))
            self._tally.add_failure(job.owner_id, failure)
            expired.append(Expired(job.id, job.image_id, job.batch, paused))
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


def _end_values(one: _Last, number: int | None) -> tuple[Any, ...]:
    """For `_END`, in its order (tests/store/test_sqlite_columns.py notices another one). `number`: it was the so
    many-th of its batch to end."""
    job, end, verdict, body = one.job, one.end, one.verdict, one.end.body
    return (
        one.state._value_,
        one.started_at,
        end.at,
        verdict.reason._value_,
        end.reason._value_ if end.reason is not verdict.reason else None,
        verdict.charged._value_,
        end.exit_code,
        failure_text(end.failure),
        job.user_failures + (verdict.charged is Charged.USER),
        job.infra_failures + (verdict.charged is Charged.INFRA),
        body.kind._value_ if body else None,
        body.size if body else 0,
        body.blob if body else None,
        number,
        end.image_version,
        job.seq,
    )


def claimed_of(row: ClaimedRow, attempt: int, position: int) -> Claimed:
    return Claimed(
        ref=AttemptRef(row.id, attempt),
        index=row.seq,
        owner=row.owner,
        image_id=row.image_id,
        spec=decode_spec(row.spec),
        payload=body_of(row.payload_kind, row.payload_size, row.payload_blob, row.payload),
        key=row.key,
        claim=position,
        uid=row.uid,
        checkpoint=bool(row.checkpoint),
    )
