"""The steps of a slot: a container is started, given its job, given the next ones ahead, stopped."""

from __future__ import annotations

from itertools import islice

from hecaton.wire.channel import Started
from hecaton.worker.brain import events as ev
from hecaton.worker.brain.holdings import Holdings
from hecaton.worker.brain.slots import AHEAD_BYTES, AHEAD_SECONDS, Container, HeldJob, Phase, WorkerSlot


class Steps:
    """After every event `advance` looks at the slot concerned and orders the one next step; so there is no order of
    events that leaves a slot waiting. No job ends here: that is for `ends`."""

    def __init__(self, holdings: Holdings, orders: ev.Orders, prefix: str) -> None:
        """`prefix` makes ids of containers unique over restarts."""
        self._holdings = holdings
        self._orders = orders
        self._prefix = prefix
        self._made = 0

    def advance(self, slot: WorkerSlot, now: float) -> None:
        """Order the next step of a slot, if there is one to take."""
        container = slot.container
        job = slot.jobs[0] if slot.jobs else None
        if container is None:
            free = self._holdings.leaving is None and slot.lost is None
            if job is not None and free and self._holdings.may_begin(job) and self._has_room(slot, job):
                self._start(slot, job, now)
            return
        if container.phase is Phase.STOPPING:
            return
        if container.running is None:
            self._give_next(container, job, now)
        if container.running is not None and len(slot.jobs) > len(container.ahead) + 1:
            self._give_ahead(container, container.running, slot, now)

    def advance_waiting(self, now: float) -> None:
        """Places that had no room: one of the others may have none of it any more."""
        waiting = list(self._holdings.places.waiting)
        self._holdings.places.waiting.clear()
        for number in waiting:
            if number in self._holdings.slots:
                self.advance(self._holdings.slots[number], now)

    def _has_room(self, slot: WorkerSlot, job: HeldJob) -> bool:
        """Now; else it waits until idle containers that are in the way have gone, or others have done their work."""
        places = self._holdings.places
        way = places.in_the_way(slot, job.holds)
        for other in way or ():
            if other.container is not None:
                self.stop(other.container)
        if way != []:
            places.waiting[slot.index] = None
        return way == []

    def said(self, event: ev.ContainerSaid) -> None:
        container = self._holdings.containers.get(event.container)
        if container is not None:
            container.words = event.text

    def unready(self, event: ev.ContainerUnready) -> None:
        container = self._holdings.containers.get(event.container)
        if container is not None:
            container.hint = event.hint

    def _give_next(self, container: Container, job: HeldJob | None, now: float) -> None:
        leaving, stays = self._holdings.leaving is not None, self._holdings.stays
        if job is None:
            # A container that is not up and that nobody waits for, or that nobody can ever use again. One that was
            # adopted is up, and comes back.
            comes_up = container.phase < Phase.READY and not container.served
            useless = comes_up or container.shared is None or leaving or self._holdings.drained
            if container.phase is Phase.PREPARING if stays else useless:
                self.stop(container)
        elif not container.suits(job):
            self.stop(container)
        elif container.phase is Phase.READY and job.here and self._may_be_given(job):
            job.started_at, job.image = now, container.runs
            container.running = job
            container.served = True
            self._orders.do(ev.GiveJob(container.id, job.assignment))
            self._orders.report(Started((job.ref,)))

    def _may_be_given(self, job: HeldJob) -> bool:
        held = self._holdings
        return (held.leaving is None and held.may_begin(job)) or held.may_have_started(job)

    def _give_ahead(self, container: Container, running: HeldJob, slot: WorkerSlot, now: float) -> None:
        """As soon as half of what it may have is done: many jobs then share a way into the container."""
        # hot: benchmarks/batch.py
        there, room = len(container.ahead), container.room_ahead()
        late = running.started_at is None or now - running.started_at > AHEAD_SECONDS
        if 2 * there > room or late or self._holdings.leaving is not None:
            return
        jobs, size = [], 0
        for job in islice(slot.jobs, there + 1, room + 1):
            plain = job.here and job.assignment.payload.blob is None and not job.assignment.options.no_overlap
            size += job.assignment.payload.size
            if not plain or size > AHEAD_BYTES or not container.suits(job):
                break
            jobs.append(job)
        if jobs:
            container.ahead.extend(jobs)
            self._orders.do(ev.GiveAhead(container.id, tuple(job.assignment for job in jobs)))

    def next_begins(self, container: Container, now: float) -> None:
        """The container has done one job, and goes on with what it was given ahead."""
        job = container.ahead.popleft()
        job.started_at, job.image = now, container.runs
        container.running = job
        self._orders.report(Started((job.ref,)))

    def _start(self, slot: WorkerSlot, job: HeldJob, now: float) -> None:
        self._made += 1
        name = f"{self._prefix}-{self._made}"
        container = Container(name, slot.index, job.warm_key, job.assignment.image.name, job.ref, now)
        container.holds = job.holds
        self._holdings.place(container)
        self._orders.do(ev.StartContainer(name, slot.index, job.assignment))

    def stop(self, container: Container, grace: float | None = None) -> None:
        """`grace`: seconds between SIGTERM and SIGKILL, other than what all get."""
        if container.phase is not Phase.STOPPING:
            container.phase = Phase.STOPPING
            if container.ahead:
                self.withdraw(container)
            self._orders.do(ev.StopContainer(container.id, self._holdings.grace if grace is None else grace))

    def withdraw(self, container: Container) -> None:
        """All that it has ahead; once."""
        if not container.withdrawing:
            container.withdrawing = True
            self._orders.do(ev.Withdraw(container.id))
