"""What the worker holds (slots, containers, jobs, results) and the moves on it. The lower half of the brain: `state`.

After every event `advance` looks at the slot concerned and orders the one next step; so there is no order of events
that leaves a slot waiting.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import islice

import msgspec

from hecaton.core.model import AttemptRef, Body, Failure, Gpu, JobId, Reason
from hecaton.wire.channel import Assignment, FromWorker, Lost, Outcome, Released, Started, Warm
from hecaton.worker.brain import events as ev
from hecaton.worker.brain.slots import AHEAD_SECONDS, Container, Done, Ending, Job, Phase, Slot, WorkerSettings

_CUT_OFF = "its container was stopped for the sake of another job as this one began"
_RESET = "Look at the machine: nvidia-smi, the kernel's log for NVRM and Xid; then hecaton-gpu restart."


class Holding:
    """`prefix` makes ids of containers unique over restarts. `done`: results of an earlier process of this worker."""

    def __init__(
        self, gpus: tuple[Gpu, ...], settings: WorkerSettings, prefix: str = "c", done: Iterable[Done] = ()
    ) -> None:
        cards: tuple[Gpu | None, ...] = gpus or (None,) * settings.slots
        self.settings = settings
        self.slots = [Slot(index, gpu) for index, gpu in enumerate(cards)]
        self.jobs: dict[JobId, Job] = {}
        self.containers: dict[str, Container] = {}
        self.done: dict[AttemptRef, Done] = {result.outcome.ref: result for result in done}
        self.connected = False
        self.leaving: tuple[int, str] | None = None  # exit code and message; not None: nothing new is started
        self.disk_full = False  # nothing new is taken
        self.no_overlap: set[JobId] = set()
        self.no_overlap_until = 0.0  # then they stop
        self.actions: list[ev.Action] = []
        self._prefix = prefix
        self._made = 0

    # -- words ---------------------------------------------------------------------------------------

    def do(self, action: ev.Action) -> None:
        self.actions.append(action)

    def report(self, message: FromWorker) -> None:
        """Said only while there is a connection: the next Hello says the same of everything that still matters."""
        if self.connected:
            self.do(ev.Report(message))

    def report_refs(self, kind: type[Released] | type[Started], refs: list[AttemptRef]) -> None:
        if refs:
            self.report(kind(tuple(refs)))

    # -- one slot ------------------------------------------------------------------------------------

    def advance(self, slot: Slot, now: float) -> None:
        """Order the next step of a slot, if there is one to take."""
        container = slot.container
        job = slot.jobs[0] if slot.jobs else None
        if container is None:
            if job is not None and self.leaving is None and slot.lost is None:
                self._start(slot, job, now)
            return
        if container.phase is Phase.STOPPING:
            return
        if container.running is None:
            self._give_next(slot, container, job, now)
        if container.running is not None and len(slot.jobs) > len(container.ahead) + 1:
            self._give_ahead(container, container.running, slot, now)

    def _give_next(self, slot: Slot, container: Container, job: Job | None, now: float) -> None:
        if job is None:
            # A container that is not up and that nobody waits for, or that nobody can ever use again.
            if container.phase < Phase.READY or container.warm is None or self.leaving is not None:
                self.stop(container)
        elif not container.suits(job):
            self.stop(container)
        elif container.phase is Phase.READY and job.here and (self.leaving is None or self.may_have_started(job)):
            self._give(container, job, now)

    def _give_ahead(self, container: Container, running: Job, slot: Slot, now: float) -> None:
        """As soon as half of what it may have is done: many jobs then share a way into the container."""
        # hot: benchmarks/batch.py
        there, room = len(container.ahead), container.room_ahead()
        late = running.started_at is None or now - running.started_at > AHEAD_SECONDS
        if 2 * there > room or late or self.leaving is not None:
            return
        jobs = []
        for job in islice(slot.jobs, there + 1, room + 1):
            plain = job.here and job.assignment.payload.blob is None and not job.assignment.options.no_overlap
            if not plain or not container.suits(job):
                break
            jobs.append(job)
        if jobs:
            container.ahead.extend(jobs)
            self.do(ev.GiveAhead(container.id, tuple(job.assignment for job in jobs)))

    def _start(self, slot: Slot, job: Job, now: float) -> None:
        self._made += 1
        name = f"{self._prefix}-{self._made}"
        container = Container(name, slot.index, job.warm, job.assignment.image.name, job.ref, now)
        slot.container = self.containers[name] = container
        self.do(ev.StartContainer(name, slot.index, job.assignment))

    def _give(self, container: Container, job: Job, now: float) -> None:
        job.started_at = now
        container.running = job
        container.served = True
        self.do(ev.GiveJob(container.id, job.assignment))
        self.report(Started((job.ref,)))

    def next_begins(self, container: Container, now: float) -> None:
        """The container has done one job, and goes on with what it was given ahead."""
        job = container.ahead.popleft()
        job.started_at = now
        container.running = job
        self.report(Started((job.ref,)))

    def take_back(self, job: Job) -> None:
        """It was given ahead: it comes back unless it has begun; then it goes on."""
        container = self.slot_of(job).container
        if container is not None and job.ending is None:
            job.ending = Ending.REVOKED
            self._ask_back(container)

    def _ask_back(self, container: Container) -> None:
        if not container.asked_back:
            container.asked_back = True
            self.do(ev.TakeBack(container.id))

    def taken_back(self, event: ev.TakenBack) -> None:
        container = self.containers.get(event.container)
        if container is None:
            return
        container.asked_back = False
        given, back = container.begun(), set(event.refs)
        container.ahead = deque(job for job in container.ahead if job.ref not in back)
        if (next_one := container.running) is not None and next_one.ref in back:
            # The answer before it was heard, and it was taken back before the container had come to it.
            container.running = next_one.started_at = None
            container.since = event.now
        for job in given:
            if job.ref in back:
                if job.ending is not None:
                    self._settle(job, event.now)
            elif job.ending is Ending.REVOKED:
                job.ending = None
            elif job.ending is not None and job is not next_one:
                self.stop(container)
        self.advance(self.slots[container.slot], event.now)

    def never_came(self, container: Container, job: Job, now: float) -> None:
        """It was given ahead on a connection that broke."""
        container.ahead.remove(job)
        if job.adopted:
            self.finish(job, Reason.RELEASED, now, container=container.id)

    def give_again(self, container: Container, job: Job, now: float) -> None:
        if not job.adopted:
            self.do(ev.GiveJob(container.id, job.assignment))
        elif job.ending is None:  # its payload went with the earlier process; it never began
            container.running = None
            container.since = now
            if container.ahead:
                self.next_begins(container, now)
            self.finish(job, Reason.RELEASED, now, container=container.id)

    def emptied(self, container: Container, never_began: Iterable[AttemptRef], now: float) -> list[Job]:
        """It has ended. Returns the jobs that ended with it."""
        waiting = set(never_began)
        given = container.begun()
        container.running = None
        container.ahead.clear()
        for job in given:
            if job.ref in waiting:
                job.started_at = None  # its turn may have come
                if job.ending is not None:
                    self._settle(job, now)
        return [job for job in given if job.ref not in waiting]

    def usable(self, index: int) -> bool:
        return index < len(self.slots) and self.slots[index].lost is None

    def adopt(self, event: ev.ContainerAdopted) -> None:
        """Go on with a container of an earlier process. One without a job has to ask for work as a new one has."""
        first, slot = event.first, self.slots[event.slot]
        container = Container(event.container, slot.index, first.warm, first.image.name, first.ref, event.now)
        container.phase, container.served = Phase.BOOTING, True
        slot.container = self.containers[container.id] = container
        if event.job is not None:
            container.running = Job(event.job, here=True, started_at=event.started_at, adopted=True)
            container.ahead.extend(Job(ahead, here=True, adopted=True) for ahead in event.ahead)
            container.phase = Phase.READY
            for job in (container.running, *container.ahead):
                self._add(job)

    def stop(self, container: Container) -> None:
        if container.phase is not Phase.STOPPING:
            container.phase = Phase.STOPPING
            if container.ahead:
                self._ask_back(container)
            self.do(ev.StopContainer(container.id))

    def clear(self, container: Container, now: float) -> None:
        """The container is no more: so are the jobs that were stopped with it, and one that had just begun."""
        slot = self.slots[container.slot]
        del self.containers[container.id]
        slot.container = None
        for job in container.begun():
            if job.ending is None:
                self.finish(job, Reason.WORKER_ERROR, now, failure=Failure(_CUT_OFF), container=container.id)
        container.running = None
        self.report(Warm(slot.index, None, None))
        for job in [job for job in slot.jobs if job.ending is not None]:
            self._settle(job, now, container.id)

    def hand_back(self, now: float) -> None:
        """All that has not begun."""
        waiting = [job for job in self.jobs.values() if not self.may_have_started(job)]
        for job in waiting:
            self.end_early(job, Ending.RELEASED, now)
        for container in self.containers.values():
            for job in container.ahead:
                self.take_back(job)

    def lose_card(self, event: ev.GpuLost) -> None:
        """What runs there fails, what waits goes elsewhere; the other slots go on."""
        for slot in self.slots:
            if slot.gpu is None or slot.gpu.uuid != event.uuid or slot.lost is not None:
                continue
            slot.lost = event.message
            self.report(Lost(slot.index, event.message))
            for job in list(slot.jobs):
                begun = self.may_have_started(job) and not self.is_ahead(job)
                self.end_early(job, Ending.GPU_LOST if begun else Ending.RELEASED, event.now)
            if slot.container is not None:
                self.stop(slot.container)

    # -- one job -------------------------------------------------------------------------------------

    def find(self, ref: AttemptRef) -> Job | None:
        job = self.jobs.get(ref.job)
        return job if job is not None and job.ref == ref else None

    def slot_of(self, job: Job) -> Slot:
        return self.slots[job.assignment.slot]

    def hold(self, assignment: Assignment) -> None:
        job = Job(assignment, here=assignment.payload.blob is None)
        self._add(job)
        if not job.here:
            self.do(ev.Fetch(assignment))

    def _add(self, job: Job) -> None:
        self.jobs[job.ref.job] = job
        self.slot_of(job).jobs.append(job)
        if job.assignment.options.no_overlap:
            self.no_overlap.add(job.ref.job)

    def remove(self, job: Job) -> None:
        del self.jobs[job.ref.job]
        self.no_overlap.discard(job.ref.job)
        self.slot_of(job).jobs.remove(job)

    def release(self, job: Job) -> None:
        """Hold it no longer, without a result."""
        self.remove(job)
        self.do(ev.Forget(job.ref))

    def may_have_started(self, job: Job) -> bool:
        """A fresh container is its job: once the engine is at it, code of the job may run."""
        container = self.slot_of(job).container
        if container is None:
            return False
        fresh = container.warm is None and container.started_for == job.ref and container.phase > Phase.PREPARING
        return container.running is job or fresh or job in container.ahead

    def is_ahead(self, job: Job) -> bool:
        container = self.slot_of(job).container
        return container is not None and job in container.ahead

    def end_early(self, job: Job, ending: Ending, now: float) -> None:
        """End a held job: at once if nothing of it runs, else when its container is gone."""
        slot = self.slot_of(job)
        if job.ending not in (None, Ending.REVOKED):
            if ending is Ending.DROPPED or (ending is Ending.CANCELLED and job.ending is not Ending.DROPPED):
                job.ending = ending
            return
        job.ending = ending
        if slot.container is not None and job in slot.container.ahead:
            self._ask_back(slot.container)
        elif self.may_have_started(job) and slot.container is not None:
            self.stop(slot.container)
        else:
            self._settle(job, now)
            self.advance(slot, now)

    def _settle(self, job: Job, now: float, container: str | None = None) -> None:
        """End a job for the reason for which it was stopped."""
        if job.ending is Ending.CANCELLED:
            self.finish(job, Reason.CANCELLED, now, container=container)
        elif job.ending is Ending.TIMEOUT:
            message = f"the job ran longer than its timeout of {job.assignment.options.timeout:g} s and was stopped"
            self.finish(job, Reason.TIMEOUT, now, failure=Failure(message), container=container)
        elif job.ending is Ending.GPU_LOST:
            self.finish(
                job,
                Reason.GPU_LOST,
                now,
                failure=Failure(self.slot_of(job).lost or "", hint=_RESET),
                container=container,
            )
        elif job.ending is Ending.UNHEARD:
            self.finish(job, Reason.RELEASED, now, container=container)
        else:
            self.release(job)
            if job.ending in (Ending.RELEASED, Ending.REVOKED):
                self.report(Released((job.ref,)))

    # -- one result ----------------------------------------------------------------------------------

    def finish(
        self,
        job: Job,
        reason: Reason,
        now: float,
        *,
        body: Body | None = None,
        failure: Failure | None = None,
        exit_code: int | None = None,
        container: str | None = None,
        output: str = "",
        advance: bool = False,
    ) -> None:
        self.remove(job)
        if advance:  # the next job goes to the container before anything else is done about this one
            self.advance(self.slot_of(job), now)
        ran = None if job.started_at is None else now - job.started_at
        outcome = Outcome(job.ref, reason, body, failure, exit_code, ran)
        done = self.done[job.ref] = Done(outcome, job.assignment.slot, now, container)
        self.do(ev.Deliver(done.outcome, done.container, output))

    def lost(self, event: ev.AttemptLost) -> None:
        """An attempt of an earlier process ended unseen."""
        outcome = Outcome(event.ref, event.reason, failure=event.failure)
        self.done[event.ref] = Done(outcome, event.slot, event.now)
        self.do(ev.Deliver(outcome))

    def deliver_again(self, done: Done, now: float) -> None:
        age = max(0.0, now - done.ended_at)
        self.do(ev.Deliver(msgspec.structs.replace(done.outcome, age=age), done.container, again=True))

    def forget_result(self, ref: AttemptRef) -> None:
        done = self.done.pop(ref, None)
        if done is not None:
            self.acknowledge(done)
            self.do(ev.Forget(ref))

    def acknowledge(self, done: Done) -> None:
        if not done.acknowledged and done.container in self.containers:
            self.do(ev.Acknowledge(done.container, done.outcome.ref))
        done.acknowledged = True
