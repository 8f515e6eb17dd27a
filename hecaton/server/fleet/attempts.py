"""Use cases of the workers' side: a worker comes and goes, starts jobs, delivers results.

Every change of a job goes to the store first and to memory, waiters and workers after the commit; only the *place* on
the slot is free the moment the news arrives, because the worker's container is already at the next job by then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from itertools import islice

import structlog

from hecaton.core.errors import HecatonError
from hecaton.core.lifecycle import Event
from hecaton.core.model import AttemptRef, JobId, JobState, Reason, WorkerId, WorkerRecord
from hecaton.server.clock import Clock
from hecaton.server.fleet.checks import MAX_LOG, MAX_NOTE, checked, shown_progress
from hecaton.server.fleet.members import Fleet, Lease, Link, Live, Member
from hecaton.server.fleet.quarantine import Holds
from hecaton.server.fleet.scheduler import Scheduler
from hecaton.server.fleet.starts import Starts
from hecaton.server.hub import Hub
from hecaton.server.jobs.endings import Ending
from hecaton.server.settings import Settings
from hecaton.server.tasks import Tasks
from hecaton.store.port import AttemptEnd, Blobs, Database, EndResult, Store
from hecaton.wire.api import JobEvent
from hecaton.wire.channel import (
    CLOSE_UNAUTHENTICATED,
    PROTOCOL,
    Accepted,
    Cancel,
    Hello,
    Log,
    Note,
    Outcome,
    Progress,
    Retire,
    Warm,
    Welcome,
)

REVOKE_DELAY = 0.02
"""Seconds between a slot becoming idle and asking other slots for their waiting jobs: a burst settles by itself."""

TIMER_SLACK = 0.02

Refs = Sequence[AttemptRef]

_log = structlog.get_logger("hecaton.attempts")


class Attempts:
    def __init__(
        self,
        database: Database,
        blobs: Blobs,
        fleet: Fleet,
        scheduler: Scheduler,
        holds: Holds,
        hub: Hub,
        clock: Clock,
        settings: Settings,
        server_id: str,
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._fleet = fleet
        self._scheduler = scheduler
        self._holds = holds
        self._hub = hub
        self._clock = clock
        self._settings = settings
        self._server_id = server_id
        self.live: dict[JobId, Live] = {}
        self._starts = Starts(clock, lambda work: self._tasks.start(self._background(work)))
        self._revoke_timer: asyncio.TimerHandle | None = None
        self._tasks = Tasks()

    # -- hand out ------------------------------------------------------------------------------

    async def dispatch(self) -> int:
        """Give waiting work to free slots until nothing fits. Returns how many jobs were assigned."""
        total = 0
        while given := await self._scheduler.claim(self._database, self._clock.now()):
            total += given
        self._consider_revoking()
        return total

    def kick(self) -> None:
        """Dispatch soon, for callers that need not wait for it."""
        self._tasks.start(self._dispatch_logged())

    async def _dispatch_logged(self) -> None:
        try:
            await self.dispatch()
        except HecatonError as error:
            _log.warning("Could not hand out jobs", error=str(error))

    def requeue_later(self, lane: int, delay: float) -> None:
        """A job of this lane waits again, and may be assigned after `delay` seconds.

        The loop's timers may be early by a millisecond or a busy turn: the store would find the job not due yet, and
        nobody would ask again."""
        asyncio.get_running_loop().call_later(delay + TIMER_SLACK, self._again, lane)

    def _again(self, lane: int) -> None:
        self._scheduler.again(lane)
        self.kick()

    def _consider_revoking(self) -> None:
        if self._revoke_timer is None:
            self._revoke_timer = asyncio.get_running_loop().call_later(REVOKE_DELAY, self._revoke)

    def _revoke(self) -> None:
        self._revoke_timer = None
        self._scheduler.revoke()

    # -- workers come and go -------------------------------------------------------------------

    async def join(self, worker: WorkerRecord, link: Link, hello: Hello, resumed: Sequence[Lease]) -> None:
        """`resumed`: what `Holds.take_back` gave for the same hello."""
        now = self._clock.now()
        reconciled = self._fleet.join(worker.id, worker.name, link, hello, now, resumed)
        limits = self._settings.heartbeat, self._settings.max_result
        lost_after = self._settings.lost_after
        link.send(Welcome(PROTOCOL, self._server_id, *limits, reconciled.keep, reconciled.drop, lost_after))
        await self._database.write(lambda store: store.seen([worker.id], now))
        for lease in resumed:
            self._publish(lease.ref, "state", JobState.IN_PROGRESS if lease.started else JobState.ASSIGNED)
        await self._ask_again(link, reconciled.keep)
        await self._end_lost(reconciled.lost_started, Reason.WORKER_LOST, worker.id, reconciled.rebooted)
        await self._end_lost(reconciled.lost_waiting, Reason.RELEASED)
        _log.info("Worker connected", worker=worker.name, slots=len(hello.slots), runtime=hello.runtime)
        await self.dispatch()

    async def _ask_again(self, link: Link, kept: Sequence[AttemptRef]) -> None:
        """Cancellations that were asked for while the worker was away."""

        def asked(store: Store) -> tuple[AttemptRef, ...]:
            return tuple(ref for ref in kept if (job := store.job(ref.job)) is not None and job.cancel_requested)

        refs = await self._database.read(asked) if kept else ()
        if refs:
            link.send(Cancel(refs))

    async def end_orphans(self, before: frozenset[AttemptRef]) -> frozenset[AttemptRef]:
        """Attempts that the store has assigned and nobody in memory holds: left over where a write failed half-way.
        Those that were so at the last look (`before`) too are handed back; returns what was seen now."""
        held = await self._database.write(lambda store: store.assigned())
        members = self._fleet.members.values()
        known = {lease.ref for member in members for lease in member.all_leases()}
        orphans = {ref: state for _, _, ref, state in held if ref not in known}
        again = [ref for ref in orphans if ref in before]
        await self._end_lost([ref for ref in again if orphans[ref] is JobState.IN_PROGRESS], Reason.WORKER_LOST)
        await self._end_lost([ref for ref in again if orphans[ref] is JobState.ASSIGNED], Reason.RELEASED)
        return frozenset(orphans)

    def leave(self, worker: WorkerRecord, link: Link) -> None:
        if self._fleet.leave(worker.id, link):
            _log.info("Worker disconnected", worker=worker.name)

    def drain(self, worker: WorkerId, active: bool) -> None:
        self._fleet.drain(worker, active)
        if not active:
            self.kick()

    async def remove(self, record: WorkerRecord) -> None:
        """An admin removed the worker: what it held waits again; a no-overlap job until it must have been stopped."""
        member = self._fleet.members.get(record.id)
        if member is None:
            return
        if member.link is not None:
            member.link.send(Retire("this worker was removed from the server by an admin"))
            member.link.close(CLOSE_UNAUTHENTICATED, "the worker was removed")
        held = tuple(lease.ref for lease in member.leases())
        await self._give_up(member, (), held, unseen=self._settings.lost_after)

    async def lose(self, member: Member) -> None:
        """The worker was silent for `lost_after`: its jobs wait again, and it is fenced. Jobs that only waited beside
        another are not charged: they did not bring it down."""
        begun, waiting = member.by_start()
        excused = self._holds.excused(member)
        if member.link is not None:
            member.link.close(1001, "silent for too long")
        if begun or waiting:
            _log.warning("Worker lost: silent for too long", worker=member.name, jobs=len(begun) + len(waiting))
        await self._give_up(member, begun, waiting, excused)

    async def _give_up(
        self, member: Member, begun: Refs, waiting: Refs, excused: bool = False, unseen: float = 0.0
    ) -> None:
        refs = self._fleet.give_up(member, self._clock.now())
        try:
            await self._end_lost(begun, Reason.WORKER_LOST, member.id, excused)
            await self._end_lost(waiting, Reason.RELEASED, unseen=unseen)
        except BaseException:
            self._fleet.not_ended(member.id, refs)
            raise
        back = [ref for ref in refs if ref in member.ending and member.ending[ref].back]
        self._fleet.ended(member.id, refs, self._clock.now())
        if member.link is not None and back:
            member.link.close(1012, "you were given up while you came back: what do you hold now?")
        await self.dispatch()

    async def _end_lost(
        self, refs: Refs, reason: Reason, worker: WorkerId | None = None, excused: bool = False, unseen: float = 0.0
    ) -> None:
        if refs:
            now = self._clock.now()
            ends = [AttemptEnd(ref, None, reason, now, excused=excused, unseen=unseen) for ref in refs]
            ended = await self._database.write(lambda store: store.end(ends))
            self._after(ended, {}, worker)

    # -- attempts run --------------------------------------------------------------------------

    def started(self, worker: WorkerId, refs: Sequence[AttemptRef]) -> None:
        member = self._fleet.members.get(worker)
        if member is None:
            return
        now = self._clock.now()
        for ref in refs:
            lease = member.lease(ref)
            if lease is not None:
                lease.started = True
                self._starts.add(ref, now)
                self._publish(ref, "state", JobState.IN_PROGRESS)

    async def _background(self, work: Callable[[Store], object]) -> None:
        """A write that nobody waits for. If it fails, what it would have said comes again or matters little."""
        try:
            await self._database.write(work)
        except HecatonError as error:
            _log.warning("Could not write", error=str(error))

    async def results(self, told: Sequence[tuple[WorkerId, Sequence[Outcome]]]) -> None:
        """Store how attempts of these workers ended, together with the claims for the room that they leave, in one
        transaction. Raises if that failed: nothing is stored then."""
        # hot: benchmarks/throughput.py
        now, limit = self._clock.now(), self._settings.max_result
        told = [(worker, [checked(outcome, self._blobs, limit) for outcome in outcomes]) for worker, outcomes in told]
        said = [(worker, [self._end(worker, outcome, now) for outcome in outcomes]) for worker, outcomes in told]

        def write(store: Store) -> list[EndResult]:
            return store.end([end for _, ends in said for end in ends])

        try:
            ended = await self._scheduler.claiming(self._database, now, write)
        except BaseException:
            for worker, ends in said:
                self._fleet.not_ended(worker, [end.ref for end in ends])
            raise
        for worker, ends in said:
            self._fleet.ended(worker, [end.ref for end in ends], now)
        rest = iter(ended)
        for worker, ends in said:
            theirs = list(islice(rest, len(ends)))
            self._acknowledge(worker, theirs)
            self._after(theirs, {end.ref: end for end in ends}, worker)
        await self.dispatch()

    def _end(self, worker: WorkerId, outcome: Outcome, now: float) -> AttemptEnd:
        """The place is free from now on."""
        at = now - outcome.age
        self._starts.discard(outcome.ref)
        lease = self._fleet.end(worker, outcome.ref, now)
        if lease is not None and outcome.reason is Reason.OK:  # no failure says how many jobs to send ahead
            self._scheduler.ran(lease.lane, outcome.ran)
        started_at = None if outcome.ran is None else at - outcome.ran
        return AttemptEnd(
            outcome.ref, worker, outcome.reason, at, outcome.body, outcome.failure, outcome.exit_code, started_at,
            outcome.log_size,
        )  # fmt: skip

    def _acknowledge(self, worker: WorkerId, ended: Sequence[EndResult]) -> None:
        member = self._fleet.members.get(worker)
        if member is not None and member.link is not None:
            good = tuple(end.ref for end in ended if end.accepted or end.repeated)
            bad = tuple(end.ref for end in ended if not (end.accepted or end.repeated))
            # By the results of what it still holds, or by its end.
            waited_for = member.draining or any(slot.held for slot in member.slots.values())
            (member.link.send if waited_for else member.link.send_along)(Accepted(good, bad))

    def _after(
        self, ended: Sequence[EndResult], said: dict[AttemptRef, AttemptEnd], worker: WorkerId | None = None
    ) -> None:
        """After the commit: wake who waits, and put what must run again back in line."""
        if worker is not None and self._holds.judge(worker, ended, said):
            self._tasks.start(self._background(self._holds.keep(worker)))
        for end in ended:
            if not end.accepted or end.state is None:
                continue
            self.live.pop(end.ref.job, None)
            if end.batch is not None:
                self._hub.wake(end.batch, decided=end.paused)
            if end.state.terminal:
                self._publish(end.ref, "end", Ending(said[end.ref], end) if end.ref in said else None)
            elif end.verdict is not None and end.verdict.event is Event.REQUEUE and end.lane is not None:
                self._publish(end.ref, "state", JobState.IN_QUEUE)
                self._wait_again(end.lane, end.verdict.delay)

    def _wait_again(self, lane: int, delay: float) -> None:
        if not self._scheduler.knows(lane):
            self._tasks.start(self.refresh())
        elif delay > 0:
            self.requeue_later(lane, delay)
        else:
            self._scheduler.again(lane)

    async def refresh(self) -> None:
        """Read from the store what waits. Through the writer's queue, so that it sees every submission before it."""
        now = self._clock.now()
        self._scheduler.recount()
        infos = await self._database.write(lambda store: store.lanes(now))
        self._scheduler.load(infos)
        for info in infos:
            if info.next_run_after is not None:
                self.requeue_later(info.key, max(0.0, info.next_run_after - now))
        await self.dispatch()

    # -- what they report ----------------------------------------------------------------------

    def progress(self, worker: WorkerId, message: Progress) -> None:
        live = self._live(worker, message.ref)
        value = shown_progress(message.value)
        if live is not None and value is not None:
            live.progress = value
            self._publish(message.ref, "progress", value)

    def note(self, worker: WorkerId, message: Note) -> None:
        live = self._live(worker, message.ref)
        if live is not None:
            live.note = message.text[:MAX_NOTE]
            self._publish(message.ref, "note", live.note)

    def log(self, worker: WorkerId, message: Log) -> None:
        """Not waited for: a result comes after its log on the same connection, and so into the same or a later
        commit."""
        if self._live(worker, message.ref) is not None and 0 <= message.offset <= MAX_LOG - len(message.data):
            self._tasks.start(self._append(message))

    async def _append(self, message: Log) -> None:
        await self._background(lambda store: store.append_log(message.ref, message.offset, message.data))
        self._publish(message.ref, "log", None)

    def warm(self, worker: WorkerId, message: Warm) -> None:
        self._fleet.warm(worker, message.slot, message.warm, message.image)

    def _live(self, worker: WorkerId, ref: AttemptRef) -> Live | None:
        """None for attempts that this worker does not hold: whatever it says about them is ignored."""
        member = self._fleet.members.get(worker)
        if member is None or member.lease(ref) is None:
            return None
        live = self.live.get(ref.job)
        if live is None or live.ref != ref:
            live = self.live[ref.job] = Live(ref)
        return live

    def _publish(self, ref: AttemptRef, event: str, value: object) -> None:
        if self._hub.watched(ref.job):
            self._hub.publish(ref.job, JobEvent(event, value, ref.attempt))
