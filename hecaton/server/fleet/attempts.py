"""What becomes of attempts: they start, say how far they are, and end. Used by `channel` and `workers`.

Every change of a job goes to the store first and to memory, waiters and workers after the commit; only the *place* on
the slot is free the moment the news arrives, because the worker's container is already at the next job by then.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice

import msgspec
import structlog

from hecaton.core.errors import HecatonError
from hecaton.core.lifecycle import NO_IMAGE, Event
from hecaton.core.model import AttemptRef, Failure, JobId, JobState, Reason, WorkerId, WorkerStatus
from hecaton.core.placement.matching import Want, unable
from hecaton.server.clock import submitted_at
from hecaton.server.fleet.checks import MAX_LOG, MAX_NOTE, checked, shown_progress, version_of, without_content
from hecaton.server.fleet.dispatcher import Dispatcher
from hecaton.server.fleet.members import Fleet
from hecaton.server.fleet.quarantine import Quarantine
from hecaton.server.fleet.scheduler import Scheduler
from hecaton.server.fleet.unwritten_starts import UnwrittenStarts
from hecaton.server.hub import Hub
from hecaton.server.resources import Resources
from hecaton.server.tasks import Tasks
from hecaton.store.port import AttemptEnd, EndResult, Store
from hecaton.wire.api import JobEvent
from hecaton.wire.channel import (
    Accepted,
    Log,
    Note,
    Outcome,
    Progress,
)

Refs = Sequence[AttemptRef]

_log = structlog.get_logger("hecaton.attempts")


_TAKES_WORK = (WorkerStatus.ONLINE, WorkerStatus.SUSPECT, WorkerStatus.QUARANTINED)
"""Of a worker that does, or will soon."""


TRY_AGAIN = (1.0, 5.0, 25.0)
"""Seconds until a result that could not be stored is tried again; then its worker's connection is cut, and it comes
anew."""

MAX_UNSTORED = 64
"""Results of one worker that are tried again at a time."""


MAX_LACKING = 1000
"""Jobs of which is known which workers have no room for their payload: of others it is asked anew."""


ASKED_AGAIN = (0.0, 60.0, 300.0)
"""Seconds until a job whose payload had no room is tried again, by how often the same machine has said so: those that
may have room are busy for long, and each try is kept. The last one repeats."""


class Live(msgspec.Struct):
    """What a running attempt reported last. In memory only: it means nothing once the attempt is over."""

    ref: AttemptRef
    progress: object = None
    note: str | None = None
    log: int = 0  # bytes of it that have come


class EndNews(msgspec.Struct, frozen=True):
    """What the event `end` carries where a worker's news ended the job: its news, and what the store made of it."""

    said: AttemptEnd
    stored: EndResult


class Attempts:
    """On the server's event loop. `live` has at most one report for each job, of the attempt that was heard from last;
    it goes when the attempt ends."""

    def __init__(
        self,
        resources: Resources,
        fleet: Fleet,
        scheduler: Scheduler,
        dispatcher: Dispatcher,
        quarantine: Quarantine,
        hub: Hub,
    ) -> None:
        self._database, self._blobs = resources.database, resources.blobs
        self._clock, self._settings, self._statistics = resources.clock, resources.settings, resources.statistics
        self._fleet, self._scheduler, self._dispatcher = fleet, scheduler, dispatcher
        self._quarantine, self._hub = quarantine, hub
        self.live: dict[JobId, Live] = {}
        self._tasks = Tasks()
        self._unstored: Counter[WorkerId] = Counter()
        self._lacking: dict[JobId, Counter[WorkerId]] = {}  # room for its payload, said so often; the newest last
        self._starts = UnwrittenStarts(resources.clock, lambda work: self._tasks.start(self._background(work)))

    # -- they start and end --------------------------------------------------------------------

    def started(self, worker: WorkerId, refs: Sequence[AttemptRef]) -> None:
        member = self._fleet.members.get(worker)
        if member is None:
            return
        now = self._clock.now()
        for ref in refs:
            lease = member.lease(ref)
            if lease is not None:
                lease.started = True
                if self.live and (live := self.live.get(ref.job)) is not None:
                    live.note = None  # what was done to start it
                self._starts.add(ref, now, member.slots[lease.slot].version)
                self.publish(ref, "state", JobState.IN_PROGRESS)

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

        def check() -> list[tuple[WorkerId, list[Outcome]]]:
            return [(worker, [checked(one, self._blobs, limit) for one in outcomes]) for worker, outcomes in told]

        large = any([one.body is not None and one.body.blob is not None for _, outcomes in told for one in outcomes])
        if large:
            told = await self._database.read(partial(_announced, told))
        told = await asyncio.to_thread(check) if large else check()
        too_long = self._too_long(told) if self.live else {}
        said = [(worker, [self._end(worker, outcome, now) for outcome in outcomes]) for worker, outcomes in told]

        def write(store: Store) -> list[EndResult]:
            ended = store.end([end for _, ends in said for end in ends])
            for end in ended:
                if too_long and end.accepted and end.ref in too_long:
                    store.cut_log(end.ref, too_long[end.ref])
            return ended

        try:
            ended = await self._scheduler.claiming(self._database, now, write)
        except BaseException:
            for worker, ends in said:
                self._fleet.not_ended(worker, [end.ref for end in ends])
            raise
        for worker, ends in said:
            self._fleet.ended(worker, [end.ref for end in ends], now)
        # The next jobs have left (`claiming`): the acknowledgement follows them in the same frame, and only then hear
        # those who wait, who may be many. What must run again waits before the last look for room.
        rest = iter(ended)
        for worker, ends in said:
            theirs = list(islice(rest, len(ends)))
            self._acknowledge(worker, theirs)
            self._after(theirs, {end.ref: end for end in ends}, worker)
        await self._dispatcher.dispatch()

    def _end(self, worker: WorkerId, outcome: Outcome, now: float) -> AttemptEnd:
        """The place is free from now on."""
        at = now - outcome.age
        self._starts.discard(outcome.ref)
        lease = self._fleet.end(worker, outcome.ref, now)
        if lease is not None and outcome.reason is Reason.OK:  # no failure says how many jobs to send ahead
            self._scheduler.ran(lease.lane, outcome.ran)
        started_at = None if outcome.ran is None else at - outcome.ran
        if started_at is not None and lease is not None and lease.cold_since is not None:
            self._statistics.cold_start(started_at - lease.cold_since)
        reason, failure, hope, wait = outcome.reason, outcome.failure, False, 0.0
        if reason in NO_IMAGE:
            failure, hope = self._without_image(worker, outcome, lease.lane if lease is not None else None)
        elif reason is Reason.RELEASED and failure is not None and failure.type == Reason.NO_ROOM and lease is not None:
            reason = Reason.NO_ROOM
            failure, hope, wait = self._without_room(worker, outcome.ref.job, failure.message, lease.lane)
        return AttemptEnd(
            outcome.ref, worker, reason, at, outcome.body, failure, outcome.exit_code, started_at,
            image_version=version_of(outcome.image),
            hope=hope, wait=wait,
        )  # fmt: skip

    def _too_long(self, told: Sequence[tuple[WorkerId, Sequence[Outcome]]]) -> dict[AttemptRef, int]:
        """Where logs end of which more came: a worker of the release before sends lines of the next job as well. What
        is 0 may just be unknown, unless the worker has heard the end from the container."""
        found = {}
        for _, outcomes in told:
            for outcome in outcomes:
                live = self.live.get(outcome.ref.job)
                known = outcome.log_size > 0 or outcome.reason is Reason.OK
                if known and live is not None and live.ref == outcome.ref and live.log > outcome.log_size:
                    found[outcome.ref] = outcome.log_size
        return found

    def _without_image(self, worker: WorkerId, outcome: Outcome, lane: int | None) -> tuple[Failure | None, bool]:
        """The worker could not get the image: where and when is it tried again, if anywhere?"""
        want = None if lane is None else self._scheduler.want(lane)
        if want is None:  # given before the start of this server: it is tried once more
            return outcome.failure, True
        failure = outcome.failure or Failure("the image could not be had")
        pulls = self._scheduler.pulls
        why = failure.message.partition("\n")[0][:MAX_NOTE]
        self._dispatcher.kick_in(pulls.failed(worker, want.image, outcome.reason, why))
        if pulls.hopes(want.image, outcome.reason, submitted_at(outcome.ref.job), self._others(worker, want)):
            return failure, True
        if outcome.reason is Reason.IMAGE_PULL:
            said = f"{failure.message} (no machine could get it for {self._settings.pull_patience:g} s)"
            failure = msgspec.structs.replace(failure, message=said)
        return failure, False

    def _others(self, worker: WorkerId, want: Want) -> frozenset[WorkerId]:
        """Who could run it in its place, now or soon."""
        return frozenset(
            member.id
            for member in self._fleet.members.values()
            if member.id != worker and member.status in _TAKES_WORK and unable(want, member.ability) is None
        )

    def _without_room(self, worker: WorkerId, job: JobId, why: str, lane: int) -> tuple[Failure, bool, float]:
        """The job's payload is too large for the worker's disk: may it have room elsewhere, and in how many seconds?"""
        lacking = self._lacking.pop(job, Counter[WorkerId]())
        lacking[worker] += 1
        want = self._scheduler.want(lane)
        self._scheduler.shun(lane, worker)
        if want is not None and self._others(worker, want) <= lacking.keys():
            return Failure(f"{why}; no machine that could run the job has more"), False, 0.0
        self._lacking[job] = lacking
        if len(self._lacking) > MAX_LACKING:
            del self._lacking[next(iter(self._lacking))]
        return Failure(why), True, ASKED_AGAIN[min(lacking[worker], len(ASKED_AGAIN)) - 1]

    def _acknowledge(self, worker: WorkerId, ended: Sequence[EndResult]) -> None:
        member = self._fleet.members.get(worker)
        if member is not None and member.link is not None:
            good = tuple([end.ref for end in ended if end.accepted or end.repeated])
            bad = tuple([end.ref for end in ended if not (end.accepted or end.repeated)])
            # By the results of what it still holds, or by its end.
            waited_for = member.draining or any(slot.held for slot in member.slots.values())
            (member.link.send if waited_for else member.link.send_along)(Accepted(good, bad))

    def _after(
        self, ended: Sequence[EndResult], said: dict[AttemptRef, AttemptEnd], worker: WorkerId | None = None
    ) -> None:
        """After the commit: wake who waits, and put what must run again back in line."""
        if worker is not None and self._quarantine.count_failures(worker, ended, said):
            self._tasks.start(self._background(self._quarantine.keep(worker)))
        self._statistics.attempts(ended, said)
        for end in ended:
            if not end.accepted or end.state is None:
                continue
            self.live.pop(end.ref.job, None)
            if end.batch is not None:
                self._hub.wake(end.batch, decided=end.paused)
            if end.state.terminal:
                self.publish(end.ref, "end", EndNews(said[end.ref], end) if end.ref in said else None)
            elif end.verdict is not None and end.verdict.event is Event.REQUEUE and end.lane is not None:
                self.publish(end.ref, "state", JobState.IN_QUEUE)
                self._dispatcher.wait_again(end.lane, end.verdict.delay)

    async def end_lost(
        self, refs: Refs, reason: Reason, worker: WorkerId | None = None, excused: bool = False, unseen: float = 0.0
    ) -> None:
        """These ended without a word of their worker. `unseen`: seconds for which a job that may share its machine with
        no other must wait, as it may still run where nobody sees it."""
        if refs:
            now = self._clock.now()
            ends = [AttemptEnd(ref, None, reason, now, excused=excused, unseen=unseen) for ref in refs]
            ended = await self._database.write(lambda store: store.end(ends))
            self._after(ended, {}, worker)

    # -- what they report ----------------------------------------------------------------------

    def progress(self, worker: WorkerId, message: Progress) -> None:
        live = self._live(worker, message.ref)
        value = shown_progress(message.value) if live is not None else None
        if live is not None and value is not None:
            live.progress = value
            self.publish(message.ref, "progress", value)

    def note(self, worker: WorkerId, message: Note) -> None:
        live = self._live(worker, message.ref)
        if live is not None:
            live.note = message.text[:MAX_NOTE]
            self.publish(message.ref, "note", live.note)

    def log(self, worker: WorkerId, message: Log) -> None:
        """Not waited for: a result comes after its log on the same connection, and so into the same or a later
        commit."""
        live, end = self._live(worker, message.ref), message.offset + len(message.data)
        if live is not None and 0 <= message.offset <= end <= MAX_LOG:
            live.log = max(live.log, end)
            self._tasks.start(self._append(message))

    async def require_store(self, worker: WorkerId, refused: Exception) -> None:
        """Raises if the store takes nothing at all, or has `refused` too much of what this worker says."""
        now = self._clock.now()
        await self._database.write(lambda store: store.seen([worker], now))
        if self._unstored[worker] >= MAX_UNSTORED:
            raise refused

    async def try_again(self, worker: WorkerId, outcome: Outcome, over: asyncio.Event) -> None:
        """Store a result that was refused although it was alone and the store works: later, until it can be, while its
        worker's other results are served. Raises after the last try. `over`: its worker has gone, and says it anew."""
        _log.warning("A result cannot be stored: it is tried again", worker=worker, job=outcome.ref.job)
        self.note(worker, Note(outcome.ref, "the server could not store its result: it tries again"))
        self._unstored[worker] += 1
        heard_at = self._clock.now()
        try:
            for pause in TRY_AGAIN:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(over.wait(), pause)
                    return None
                said = msgspec.structs.replace(outcome, age=outcome.age + self._clock.now() - heard_at)
                try:
                    return await self.results([(worker, [said])])
                except Exception:
                    if pause == TRY_AGAIN[-1]:
                        raise
        finally:
            self._unstored -= Counter((worker,))  # which keeps no zeros

    async def caught_up(self) -> None:
        """What was handed to the store before is in it. Raises what the store raises."""
        await self._database.write(lambda store: None)

    async def _append(self, message: Log) -> None:
        await self._background(lambda store: store.append_log(message.ref, message.offset, message.data))
        self.publish(message.ref, "log", None)

    def _live(self, worker: WorkerId, ref: AttemptRef) -> Live | None:
        """None for attempts that this worker does not hold: whatever it says about them is ignored."""
        member = self._fleet.members.get(worker)
        if member is None or member.lease(ref) is None:
            return None
        live = self.live.get(ref.job)
        if live is None or live.ref != ref:
            live = self.live[ref.job] = Live(ref)
        return live

    def publish(self, ref: AttemptRef, event: str, value: object) -> None:
        if self._hub.watched(ref.job):
            self._hub.publish(ref.job, JobEvent(event, value, ref.attempt))


def _announced(
    told: Sequence[tuple[WorkerId, Sequence[Outcome]]], store: Store
) -> list[tuple[WorkerId, list[Outcome]]]:
    """A large result is what was sent for a job of its owner: whoever knows the hash of something else has nothing by
    it. The same answer as for content that is not there."""

    def allowed(outcome: Outcome) -> Outcome:
        if outcome.body is None or outcome.body.blob is None:
            return outcome
        job = store.job(outcome.ref.job)
        known = job is not None and store.has_blob(outcome.body.blob, job.owner_id)
        return outcome if known else without_content(outcome)

    return [(worker, [allowed(outcome) for outcome in outcomes]) for worker, outcomes in told]
