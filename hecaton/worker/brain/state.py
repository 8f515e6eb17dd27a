"""The worker's brain: events in, actions out. Pure: no I/O, no clock, no randomness; `agent` carries the actions out.

Here: what each event means. The moves themselves: `holding`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from hecaton.core.model import AttemptRef, Failure, Gpu, Reason
from hecaton.wire.channel import Draining, Held, Note, Released, SlotInfo, Started, Warm
from hecaton.worker.brain import events as ev
from hecaton.worker.brain import invariants
from hecaton.worker.brain.failures import exit_failure, no_hello_failure, startup_failure
from hecaton.worker.brain.holding import Holding
from hecaton.worker.brain.slots import Container, Done, Ending, Phase, Slot, WorkerSettings

DELIVERY_GRACE = 5.0
"""Seconds that a worker that stops waits for the server to accept its last results; they are on disk anyway."""


class WorkerState(Holding):
    def __init__(
        self, gpus: tuple[Gpu, ...], settings: WorkerSettings, prefix: str = "c", done: Iterable[Done] = ()
    ) -> None:
        super().__init__(gpus, settings, prefix, done)
        self.drain_by: float | None = None  # what runs may go on until then
        self.leave_by: float | None = None
        self.left = False
        self._handlers: dict[type[ev.Event], Callable[[Any], None]] = {
            ev.Assigned: self._on_assigned,
            ev.Revoked: self._on_revoked,
            ev.CancelAsked: self._on_cancel,
            ev.ResultsAccepted: self._on_accepted,
            ev.Welcomed: self._on_welcomed,
            ev.Assured: self._on_assured,
            ev.LinkLost: self._on_link_lost,
            ev.ImageReady: self._on_image_ready,
            ev.ContainerStarted: self._on_started,
            ev.ContainerNote: self._on_note,
            ev.ContainerFailed: self._on_failed,
            ev.ContainerReady: self._on_ready,
            ev.ContainerExited: self._on_exited,
            ev.ContainerGone: self._on_gone,
            ev.JobAnswered: self._on_answered,
            ev.TakenBack: self.taken_back,
            ev.ContainerAdopted: self.adopt,
            ev.AttemptLost: self.lost,
            ev.DiskFull: self._on_disk_full,
            ev.GpuLost: self.lose_card,
            ev.Fetched: self._on_fetched,
            ev.FetchFailed: self._on_fetch_failed,
            ev.ResultsSafe: self._on_safe,
            ev.Tick: self._on_tick,
            ev.StopAsked: self._on_stop,
            ev.ShutdownAsked: self._on_shutdown,
        }

    def handle(self, event: ev.Event) -> list[ev.Action]:
        """What to do now, in this order. Nobody else calls the other methods, except to look."""
        self._handlers[type(event)](event)
        if self.leaving is not None:
            self._try_to_leave(event.now)
        actions, self.actions = self.actions, []
        return actions

    def deadline(self) -> float | None:
        """When a `Tick` is due at the latest; None: never, as things stand."""
        due = []
        if self.leaving is not None and not self.left:
            due += [at for at in (self.drain_by, self.leave_by) if at is not None]
        if self.no_overlap and any(self.jobs[name].ending is None for name in self.no_overlap):
            due.append(self.no_overlap_until)
        for container in self.containers.values():
            at = self._container_deadline(container)
            if at is not None:
                due.append(at)
        return min(due, default=None)

    def slot_infos(self) -> tuple[SlotInfo, ...]:
        """For Hello: the slots and what is warm on them."""
        return tuple(SlotInfo(slot.index, slot.gpu, *slot.warm, slot.lost) for slot in self.slots)

    def held(self, now: float) -> tuple[Held, ...]:
        """For Hello: every job that is still here, running, waiting or with a result to deliver."""
        held = [
            Held(job.ref, job.assignment.slot, "queued")
            if job.started_at is None
            else Held(job.ref, job.assignment.slot, "running", now - job.started_at)
            for job in self.jobs.values()
        ]
        held += [Held(ref, done.slot, "done", done.outcome.ran or 0.0) for ref, done in self.done.items()]
        return tuple(held)

    def holds(self, ref: AttemptRef) -> bool:
        return self.find(ref) is not None or ref in self.done

    def check(self) -> None:
        """Raises AssertionError when an invariant is broken: for tests."""
        invariants.check(self)

    # -- from the server -----------------------------------------------------------------------------

    def _on_assigned(self, event: ev.Assigned) -> None:
        refused = []
        slots: dict[int, Slot] = {}
        for assignment in event.jobs:
            ref = assignment.ref
            held = self.jobs.get(ref.job)
            if held is not None and held.ref.attempt >= ref.attempt:
                continue  # said twice, or overtaken by a newer attempt
            if ref in self.done:
                self.deliver_again(self.done[ref], event.now)
                continue
            if held is not None:
                self.end_early(held, Ending.DROPPED, event.now)
            unfit = self.leaving is not None or self.disk_full
            if unfit or not self.usable(assignment.slot) or ref.job in self.jobs:
                refused.append(ref)
                continue
            self.hold(assignment)
            slots[assignment.slot] = self.slots[assignment.slot]
        for slot in slots.values():
            self.advance(slot, event.now)
        self.report_refs(Released, refused)

    def _on_revoked(self, event: ev.Revoked) -> None:
        released, started = [], []
        for ref in event.refs:
            job = self.find(ref)
            if job is None:
                if ref in self.done:
                    self.deliver_again(self.done[ref], event.now)
                else:
                    released.append(ref)
            elif self.is_ahead(job):
                self.take_back(job)
            elif not self.may_have_started(job):
                self.release(job)
                released.append(ref)
                self.advance(self.slot_of(job), event.now)
            elif job.started_at is not None:
                started.append(ref)
        self.report_refs(Released, released)
        self.report_refs(Started, started)

    def _on_cancel(self, event: ev.CancelAsked) -> None:
        unknown = []
        for ref in event.refs:
            job = self.find(ref)
            if job is not None:
                self.end_early(job, Ending.CANCELLED, event.now)
            elif ref in self.done:
                self.deliver_again(self.done[ref], event.now)
            else:
                unknown.append(ref)
        self.report_refs(Released, unknown)

    def _on_accepted(self, event: ev.ResultsAccepted) -> None:
        for ref in event.refs:
            self.forget_result(ref)
        for ref in event.fenced:
            self._fence(ref, event.now)

    def _on_welcomed(self, event: ev.Welcomed) -> None:
        self.connected = True
        for ref in event.drop:
            self._fence(ref, event.now)
        if self.leaving is not None or self.disk_full:
            self.report(Draining())
        for slot in self.slots:  # what changed between Hello and Welcome was said to nobody
            self.report(Warm(slot.index, *slot.warm))
        self.report_refs(Started, [job.ref for job in self.jobs.values() if job.started_at is not None])
        for done in list(self.done.values()):
            self.deliver_again(done, event.now)

    def _on_assured(self, event: ev.Assured) -> None:
        self.no_overlap_until = event.until

    def _on_link_lost(self, event: ev.LinkLost) -> None:
        self.connected = False

    def _fence(self, ref: AttemptRef, now: float) -> None:
        job = self.find(ref)
        if job is not None:
            self.end_early(job, Ending.DROPPED, now)
        self.forget_result(ref)

    # -- from the containers -------------------------------------------------------------------------

    def _on_image_ready(self, event: ev.ImageReady) -> None:
        container = self.containers.get(event.container)
        if container is not None and container.phase is Phase.PREPARING:
            container.phase = Phase.STARTING

    def _on_started(self, event: ev.ContainerStarted) -> None:
        container = self.containers.get(event.container)
        if container is not None and container.phase < Phase.BOOTING:
            container.phase = Phase.BOOTING
            container.since = event.now
            if container.warm is not None:  # a script asks for nothing
                self._note(container, "the container runs; waiting for it to ask for work")

    def _on_note(self, event: ev.ContainerNote) -> None:
        container = self.containers.get(event.container)
        if container is not None and container.phase < Phase.READY:
            self._note(container, event.text)

    def _on_failed(self, event: ev.ContainerFailed) -> None:
        container = self.containers.get(event.container)
        if container is None:
            return
        job = self.find(container.started_for)
        self.clear(container, event.now)
        if job is not None and job.ending is None:
            self.finish(job, event.reason, event.now, failure=Failure(event.message, hint=event.hint))
        self.advance(self.slots[container.slot], event.now)

    def _on_ready(self, event: ev.ContainerReady) -> None:
        container = self.containers.get(event.container)
        if container is None or container.phase is Phase.STOPPING:
            return
        container.takes_ahead = event.takes_ahead
        for job in [job for job in container.ahead if job.ref not in event.busy]:
            self.never_came(container, job, event.now)
        if container.phase is not Phase.READY:
            container.phase = Phase.READY
            container.since = event.now
            if container.warm is not None:
                self.report(Warm(container.slot, container.warm, container.image))
        elif container.running is not None and container.running.ref not in event.busy:
            # The connection broke before the job reached the handler.
            self.give_again(container, container.running, event.now)
        self.advance(self.slots[container.slot], event.now)

    def _on_answered(self, event: ev.JobAnswered) -> None:
        container = self.containers.get(event.container)
        if container is None:
            return
        job = container.running
        if job is None or job.ref != event.ref:
            done = self.done.get(event.ref)
            if done is None or done.acknowledged:  # a repetition: it was safe before the container heard of it
                self.do(ev.Acknowledge(container.id, event.ref))
            return
        if job.ending not in (None, Ending.RELEASED):
            return  # too late: it is being stopped, and ends for that reason
        container.ended_one(event.now)
        if container.ahead:
            self.next_begins(container, event.now)
        self.finish(
            job, event.reason, event.now, body=event.body, failure=event.failure, container=container.id, advance=True
        )

    def _on_exited(self, event: ev.ContainerExited) -> None:
        container = self.containers.get(event.container)
        if container is None or container.phase is Phase.STOPPING:
            return
        begun = self.emptied(container, event.never_began, event.now)
        reason, failure = exit_failure(event.exit, event.output)
        if not begun and not container.served:
            first = self.find(container.started_for)
            begun = [] if first is None else [first]
            reason, failure = startup_failure(event.exit, event.output)
        for job in begun:
            if job.ending is None:
                self.finish(
                    job, reason, event.now, failure=failure, exit_code=event.exit.code, container=container.id,
                    output=event.output,
                )  # fmt: skip
        self.stop(container)

    def _on_gone(self, event: ev.ContainerGone) -> None:
        container = self.containers.get(event.container)
        if container is None:
            return
        self.clear(container, event.now)
        self.advance(self.slots[container.slot], event.now)

    # -- from this machine ---------------------------------------------------------------------------

    def _on_disk_full(self, event: ev.DiskFull) -> None:
        """Results wait in memory; work that has not started goes where there is room."""
        if event.full is self.disk_full or self.leaving is not None:
            return
        self.disk_full = event.full
        self.report(Draining(event.full))
        if event.full:
            self.hand_back(event.now)

    def _on_fetched(self, event: ev.Fetched) -> None:
        job = self.find(event.ref)
        if job is not None:
            job.here = True
            self.advance(self.slot_of(job), event.now)

    def _on_fetch_failed(self, event: ev.FetchFailed) -> None:
        job = self.find(event.ref)
        if job is not None and job.ending is None and not job.here:
            failure = Failure(f"the payload could not be brought to the worker: {event.message}")
            self.finish(job, Reason.WORKER_ERROR, event.now, failure=failure)
            self.advance(self.slot_of(job), event.now)

    def _on_safe(self, event: ev.ResultsSafe) -> None:
        for ref in event.refs:
            done = self.done.get(ref)
            if done is not None:
                self.acknowledge(done)

    def _on_tick(self, event: ev.Tick) -> None:
        now = event.now
        for container in list(self.containers.values()):
            due = self._container_deadline(container)
            if due is None or now < due:
                continue
            if container.running is not None:
                self.end_early(container.running, Ending.TIMEOUT, now)
            else:
                if container.phase is Phase.BOOTING:
                    self._give_up_start(container, now)
                self.stop(container)
        if now >= self.no_overlap_until:
            for job in [self.jobs[name] for name in self.no_overlap]:
                self.end_early(job, Ending.UNHEARD, now)
        if self.drain_by is not None and now >= self.drain_by:
            self._end_all(Ending.RELEASED, now)

    def _give_up_start(self, container: Container, now: float) -> None:
        job = self.find(container.started_for)
        if job is not None and job.ending is None:
            failure = no_hello_failure(self.settings.startup_timeout)
            self.finish(job, Reason.STARTUP_EXIT, now, failure=failure, container=container.id)

    def _container_deadline(self, container: Container) -> float | None:
        if container.phase is Phase.BOOTING:
            return container.since + self.settings.startup_timeout
        if container.phase is not Phase.READY:
            return None
        job = container.running
        if job is None:
            return None if self.slots[container.slot].jobs else container.since + self.settings.idle_timeout
        if job.assignment.options.timeout is None or job.started_at is None:
            return None
        return job.started_at + job.assignment.options.timeout

    # -- the end of the worker -----------------------------------------------------------------------

    def _on_stop(self, event: ev.StopAsked) -> None:
        asked_again = self.leaving is not None
        if not asked_again:
            self.leaving = (0, "stopped")
            self.report(Draining())
            self.hand_back(event.now)
            self.drain_by = event.now + self.settings.drain_timeout
        if asked_again or event.at_once:
            self._end_all(Ending.RELEASED, event.now)
        for slot in self.slots:
            self.advance(slot, event.now)

    def _on_shutdown(self, event: ev.ShutdownAsked) -> None:
        self.leaving = (event.code, event.message)
        self._end_all(Ending.DROPPED, event.now)
        self.leave_by = event.now
        for slot in self.slots:
            self.advance(slot, event.now)

    def _end_all(self, ending: Ending, now: float) -> None:
        self.drain_by = None
        for job in list(self.jobs.values()):
            self.end_early(job, ending, now)

    def _try_to_leave(self, now: float) -> None:
        if self.left or self.containers or self.jobs or self.leaving is None:
            return
        if self.leave_by is None:
            self.leave_by = now + DELIVERY_GRACE
        if not self.done or not self.connected or now >= self.leave_by:
            self.left = True
            self.do(ev.Leave(*self.leaving))

    def _note(self, container: Container, text: str) -> None:
        job = self.find(container.started_for)
        if job is not None:
            self.report(Note(job.ref, text))
