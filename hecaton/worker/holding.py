"""What the worker holds (slots, containers, jobs, results) and the moves on it. The lower half of the brain: `state`.

After every event `advance` looks at the slot concerned and orders the one next step; so there is no order of events
that leaves a slot waiting.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from hecaton.core.model import AttemptRef, Body, Failure, Gpu, JobId, Reason
from hecaton.wire.channel import Assignment, FromWorker, Lost, Outcome, Released, Started, Warm
from hecaton.worker import events as ev
from hecaton.worker.slots import Container, Done, Ending, Job, Phase, Slot, WorkerSettings

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
        self.exclusive: set[JobId] = set()
        self.exclusive_until = 0.0  # then they stop
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
        if container.phase is Phase.STOPPING or container.running is not None:
            return
        if job is None:
            # A container that is not up and that nobody waits for, or that nobody can ever use again.
            if container.phase < Phase.READY or container.warm is None or self.leaving is not None:
                self.stop(container)
        elif not container.suits(job):
            self.stop(container)
        elif container.phase is Phase.READY and job.here and (self.leaving is None or self.may_have_started(job)):
            self._give(container, job, now)

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

    def usable(self, index: int) -> bool:
        return index < len(self.slots) and self.slots[index].lost is None

    def adopt(self, event: ev.ContainerAdopted) -> None:
        """Go on with a container of an earlier process. One without a job has to ask for work as a new one has."""
        first, slot = event.first, self.slots[event.slot]
        container = Container(event.container, slot.index, first.warm, first.image.name, first.ref, event.now)
        container.phase, container.served = Phase.BOOTING, True
        slot.container = self.containers[container.id] = container
        if event.job is not None:
            job = Job(event.job, here=True, started_at=event.started_at, adopted=True)
            self._add(job)
            container.running = job
            container.phase = Phase.READY

    def stop(self, container: Container) -> None:
        if container.phase is not Phase.STOPPING:
            container.phase = Phase.STOPPING
            self.do(ev.StopContainer(container.id))

    def clear(self, container: Container, now: float) -> None:
        """The container is no more: so are the jobs that were stopped with it."""
        slot = self.slots[container.slot]
        del self.containers[container.id]
        slot.container = None
        container.running = None
        self.report(Warm(slot.index, None, None))
        for job in [job for job in slot.jobs if job.ending is not None]:
            self._settle(job, now, container.id)

    def lose_card(self, event: ev.GpuLost) -> None:
        """What runs there fails, what waits goes elsewhere; the other slots go on."""
        for slot in self.slots:
            if slot.gpu is None or slot.gpu.uuid != event.uuid or slot.lost is not None:
                continue
            slot.lost = event.message
            self.report(Lost(slot.index, event.message))
            for job in list(slot.jobs):
                self.end_early(job, Ending.GPU_LOST if self.may_have_started(job) else Ending.RELEASED, event.now)
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
        if job.assignment.exclusive:
            self.exclusive.add(job.ref.job)

    def remove(self, job: Job) -> None:
        del self.jobs[job.ref.job]
        self.exclusive.discard(job.ref.job)
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
        return container.running is job or fresh

    def end_early(self, job: Job, ending: Ending, now: float) -> None:
        """End a held job: at once if nothing of it runs, else when its container is gone."""
        slot = self.slot_of(job)
        if job.ending is not None:
            if ending is Ending.DROPPED or (ending is Ending.CANCELLED and job.ending is not Ending.DROPPED):
                job.ending = ending
            return
        job.ending = ending
        if self.may_have_started(job) and slot.container is not None:
            self.stop(slot.container)
        else:
            self._settle(job, now)
            self.advance(slot, now)

    def _settle(self, job: Job, now: float, container: str | None = None) -> None:
        """End a job for the reason for which it was stopped."""
        if job.ending is Ending.CANCELLED:
            self.finish(job, Reason.CANCELLED, now, container=container)
        elif job.ending is Ending.TIMEOUT:
            message = f"the job ran longer than its timeout of {job.assignment.timeout:g} s and was stopped"
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
            if job.ending is Ending.RELEASED:
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
