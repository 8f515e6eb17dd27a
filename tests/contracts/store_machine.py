"""A plain Python model of the queue beside a real store: Hypothesis makes up histories and compares after every step.

An adapter's tests subclass `StoreMachine` and say how to make an empty database (`empty`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hecaton.core.lifecycle import Event, History, judge
from hecaton.core.model import AttemptRef, Body, Charged, Job, JobState, Kind, Mode, Reason, WorkerId
from hecaton.core.placement.matching import Lane
from hecaton.store.port import AttemptEnd, Claim, Database, NewJob
from tests.contracts.store_scene import NOW, OTHER, WORKER, Scene

T = TypeVar("T")

HELD = (JobState.ASSIGNED, JobState.IN_PROGRESS)
AFTER = {Event.FINISH: JobState.FINISHED, Event.FAIL: JobState.FAILED, Event.CANCEL: JobState.CANCELLED}
SECONDS = st.sampled_from([0.0, 1.0, 7.0, 40.0])
SPEAKERS = st.sampled_from(["holder", "holder", "server", "other"])
WORKERS = st.sampled_from([WORKER, OTHER])
UNHEARD = (Reason.WORKER_LOST, Reason.RELEASED)
REASONS = st.sampled_from(
    [Reason.OK, Reason.HANDLER_ERROR, Reason.WORKER_LOST, Reason.RELEASED, Reason.CANCELLED, Reason.STARTUP_EXIT]
)


@dataclass
class Told:
    """How an attempt ended, as the model remembers it."""

    worker: WorkerId
    reason: Reason
    charged: Charged


@dataclass
class Expected:
    """A job as it should be."""

    new: NewJob
    index: int
    state: JobState = JobState.IN_QUEUE
    attempt: int = 0
    worker: WorkerId | None = None
    started: bool = False
    run_after: float = 0.0
    expires_at: float | None = None
    reason: Reason | None = None
    user_failures: int = 0
    infra_failures: int = 0
    cancel_requested: bool = False
    ended: dict[int, Told] = field(default_factory=dict)

    @property
    def history(self) -> History:
        lost = [told.charged for told in self.ended.values() if told.reason is Reason.WORKER_LOST]
        charged = lost.count(Charged.INFRA)
        return History(
            self.new.spec.retries, self.user_failures, self.infra_failures, self.cancel_requested, len(lost), charged
        )

    def expired(self, now: float) -> bool:
        return self.expires_at is not None and self.expires_at <= now


class StoreMachine(RuleBasedStateMachine):
    empty: Callable[[], Database]
    """Opens an empty database."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.database = self.empty()
        self.now = NOW
        self.jobs: list[Expected] = []
        self.refs: list[tuple[AttemptRef, WorkerId]] = []
        self.final: dict[str, Job] = {}

    @initialize()
    def build_scene(self) -> None:
        self.scene = self.wait(Scene.on(self.database))
        second = Lane(self.scene.owner.id, self.scene.image.id, Mode.HANDLER, "f" * 64)
        self.lanes = (self.scene.lane, second)
        # Work for everyone from the start: histories in which nothing can be claimed teach little.
        for lane in (0, 1):
            self.submit_jobs(lane, 3, priority=0, retries=2, queue_ttl=None)

    def teardown(self) -> None:
        self.wait(self.database.close())
        self.loop.close()

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    # -- what may happen -----------------------------------------------------------------------
    @rule(seconds=SECONDS)
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(
        lane=st.integers(0, 1),
        priority=st.integers(-1, 1),
        retries=st.integers(0, 2),
        ttl=st.sampled_from([None, 5.0, 60.0]),
        count=st.integers(1, 3),
    )
    def submit(self, lane: int, priority: int, retries: int, ttl: float | None, count: int) -> None:
        self.submit_jobs(lane, count, priority=priority, retries=retries, queue_ttl=ttl)

    def submit_jobs(self, lane: int, count: int, **about: Any) -> None:
        ttl = about["queue_ttl"]
        new = [self.scene.new_job(self.now - NOW, lane=self.lanes[lane], **about) for _ in range(count)]
        for job, stored in zip(new, self.wait(self.scene.submit_all(new)), strict=True):
            assert (stored.id, stored.duplicate) == (job.id, False)
            assert stored.index == (self.jobs[-1].index + 1 if self.jobs else stored.index)
            self.jobs.append(Expected(job, stored.index, expires_at=None if ttl is None else self.now + ttl))

    @rule(which=st.integers(0))
    def submit_again(self, which: int) -> None:
        job = self.jobs[which % len(self.jobs)]
        [stored] = self.wait(self.scene.submit_all([job.new]))
        assert (stored.id, stored.index, stored.duplicate) == (job.new.id, job.index, True)

    @rule(lane=st.integers(0, 1), worker=WORKERS, count=st.integers(1, 3))
    def claim(self, lane: int, worker: WorkerId, count: int) -> None:
        claim = Claim(self.lanes[lane].key(), worker, 1, count)
        claimed = self.wait(self.database.write(lambda store: store.claim([claim], self.now)))
        ready = [
            job for job in self.waiting(self.lanes[lane]) if job.run_after <= self.now and not job.expired(self.now)
        ][:count]
        assert [one.ref for one in claimed] == [AttemptRef(job.new.id, job.attempt + 1) for job in ready]
        for job in self.waiting():
            if job.run_after <= self.now:
                job.run_after = 0.0
        for job in ready:
            job.state, job.attempt, job.worker, job.started = JobState.ASSIGNED, job.attempt + 1, worker, False
            self.refs.append((AttemptRef(job.new.id, job.attempt), worker))

    @precondition(lambda self: self.refs)
    @rule(which=st.integers(0, 5))
    def start(self, which: int) -> None:
        ref, _ = self.refs[-1 - which % len(self.refs)]
        self.wait(self.scene.start(ref, self.now - NOW))
        job = self.expected(ref)
        if job.attempt == ref.attempt and job.state is JobState.ASSIGNED:
            job.state, job.started = JobState.IN_PROGRESS, True

    @precondition(lambda self: self.refs)
    @rule(several=st.lists(st.tuples(st.integers(0, 5), REASONS, SPEAKERS), min_size=1, max_size=6))
    def end(self, several: list[tuple[int, Reason, str]]) -> None:
        """In one call, some of them about the same attempt: as if one after the other."""
        ends = [self.an_end(*one) for one in several]
        for end, ended in zip(ends, self.wait(self.database.write(lambda store: store.end(ends))), strict=True):
            assert ended.ref == end.ref
            job = self.expected(end.ref)
            current = job.state in HELD and job.attempt == end.ref.attempt and end.by in (None, job.worker)
            told = job.ended.get(end.ref.attempt)
            repeated = told is not None and told.reason is end.reason and end.by in (None, told.worker)
            assert (ended.accepted, ended.repeated) == (current, repeated)
            if current:
                self.settle(job, end.reason)
            assert ended.state is job.state

    def an_end(self, which: int, reason: Reason, by: str) -> AttemptEnd:
        ref, holder = self.refs[-1 - which % len(self.refs)]
        speaker = {"holder": holder, "other": OTHER if holder is WORKER else WORKER, "server": None}[by]
        return AttemptEnd(ref, speaker, reason, self.now, Body.inline(Kind.JSON, b"1") if reason is Reason.OK else None)

    def settle(self, job: Expected, reason: Reason) -> None:
        verdict = judge(job.history, reason)
        assert job.worker is not None
        job.ended[job.attempt] = Told(job.worker, reason, verdict.charged)
        job.user_failures += verdict.charged is Charged.USER
        job.infra_failures += verdict.charged is Charged.INFRA
        if verdict.event is not Event.REQUEUE:
            job.state, job.reason = AFTER[verdict.event], verdict.reason
            return
        job.state, job.worker = JobState.IN_QUEUE, None
        job.run_after = self.now + verdict.delay if verdict.delay else 0.0
        if job.started and job.new.spec.queue_ttl is not None:
            job.expires_at = self.now + job.new.spec.queue_ttl

    @precondition(lambda self: self.refs)
    @rule(which=st.integers(0, 5), worker=WORKERS)
    def resume(self, which: int, worker: WorkerId) -> None:
        ref, _ = self.refs[-1 - which % len(self.refs)]
        resumed = self.wait(self.database.write(lambda store: store.return_leases(worker, {ref: 1})))
        job = self.expected(ref)
        told = job.ended.get(ref.attempt)
        held = job.state in HELD and job.worker == worker
        lost = job.state is JobState.IN_QUEUE and told is not None and told.worker == worker and told.reason in UNHEARD
        assert bool(resumed) == (job.attempt == ref.attempt and (held or lost))
        if resumed and not held:
            assert told is not None
            del job.ended[ref.attempt]
            job.state = JobState.IN_PROGRESS if job.started else JobState.ASSIGNED
            job.worker, job.run_after = worker, 0.0
            job.infra_failures -= told.charged is Charged.INFRA

    @rule(which=st.integers(0))
    def cancel(self, which: int) -> None:
        job = self.jobs[-1 - which % len(self.jobs)]
        result = self.wait(self.database.write(lambda store: store.cancel(job.new.id, self.now)))
        if job.state is JobState.IN_QUEUE:
            job.state, job.reason = JobState.CANCELLED, Reason.CANCELLED
        elif job.state in HELD:
            job.cancel_requested = True
        assert (result.state, result.ref.attempt) == (job.state, job.attempt)

    @rule()
    def expire(self) -> None:
        expired = self.wait(self.database.write(lambda store: store.expire_queued(self.now)))
        late = [job for job in self.waiting() if job.expired(self.now)]
        assert sorted(job.id for job in expired) == sorted(job.new.id for job in late)
        for job in late:
            job.state, job.reason = JobState.FAILED, Reason.QUEUE_TTL

    # -- what must hold ------------------------------------------------------------------------
    @invariant()
    def every_job_is_as_expected(self) -> None:
        page = self.wait(
            self.database.read(lambda store: store.jobs(owner_id=None, state=None, before=None, limit=1000))
        )
        assert len(page.jobs) == len(self.jobs)
        for expected, job in zip(reversed(self.jobs), page.jobs, strict=True):
            assert (job.id, job.index, job.state, job.attempt, job.reason, job.worker_id, job.run_after) == (
                expected.new.id,
                expected.index,
                expected.state,
                expected.attempt,
                expected.reason,
                expected.worker,
                expected.run_after,
            )
            assert (job.user_failures, job.infra_failures, job.cancel_requested) == (
                expected.user_failures,
                expected.infra_failures,
                expected.cancel_requested,
            )
            if job.state.terminal:
                assert self.final.setdefault(job.id, job) == job, "a terminal job changed"

    @invariant()
    def every_attempt_is_remembered_once(self) -> None:
        for job in self.jobs:
            attempts = self.wait(self.database.read(lambda store, id=job.new.id: store.attempts(id)))  # type: ignore[misc]
            assert [attempt.number for attempt in attempts] == list(range(1, job.attempt + 1))
            told = {attempt.number: attempt.reason for attempt in attempts if attempt.reason is not None}
            assert told == {number: told.reason for number, told in job.ended.items()}

    @invariant()
    def the_lanes_are_what_waits(self) -> None:
        lanes = {info.lane: info for info in self.wait(self.database.read(lambda store: store.lanes(self.now)))}
        assert set(lanes) == {lane for lane in self.lanes if self.waiting(lane)}
        for lane, info in lanes.items():
            waiting = self.waiting(lane)
            ready = [job for job in waiting if job.run_after <= self.now]
            assert info.count == len(ready)
            assert info.next_run_after == min(
                (job.run_after for job in waiting if job.run_after > self.now), default=None
            )
            if ready:
                assert (info.priority, info.since) == (ready[0].new.spec.priority, ready[0].new.created_at)

    @invariant()
    def what_is_held_is_what_was_assigned(self) -> None:
        assigned = self.wait(self.database.read(lambda store: store.assigned()))
        assert assigned == [
            (job.worker, 1, AttemptRef(job.new.id, job.attempt), job.state) for job in self.jobs if job.state in HELD
        ]

    # -- the model's own questions -------------------------------------------------------------
    def expected(self, ref: AttemptRef) -> Expected:
        return next(job for job in self.jobs if job.new.id == ref.job)

    def waiting(self, lane: Lane | None = None) -> list[Expected]:
        """In the order in which they are to be given."""
        waiting = [job for job in self.jobs if job.state is JobState.IN_QUEUE and lane in (None, job.new.lane)]
        return sorted(waiting, key=lambda job: (-job.new.spec.priority, job.index))
