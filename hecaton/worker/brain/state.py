"""The worker's brain: events in, actions out. Pure: no I/O, no clock, no randomness; `agent` carries the actions out.

Here: what each event means; of those that the server causes: `from_server`. What is done about it: `steps` and `ends`,
on what is in `holdings`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from hecaton.core.doors import WAYS
from hecaton.core.model import Failure, Gpu, Reason
from hecaton.core.options import NOTHING_ASKED
from hecaton.wire.channel import Draining, Lost, Note
from hecaton.worker.brain import events as ev
from hecaton.worker.brain.departure import Departure
from hecaton.worker.brain.ends import Ends
from hecaton.worker.brain.events import row
from hecaton.worker.brain.failures.shortage import hinted
from hecaton.worker.brain.failures.sticky import StickyErrors, explained
from hecaton.worker.brain.failures.words import UNHEARD, exit_failure, no_room, payload_failure, startup_failure
from hecaton.worker.brain.from_server import FromServer
from hecaton.worker.brain.holdings import Holdings
from hecaton.worker.brain.limits import Limits
from hecaton.worker.brain.places import CARDS_CAME
from hecaton.worker.brain.settings import WorkerSettings
from hecaton.worker.brain.slots import NOTHING, Container, Done, EarlyEnd, HeldJob, Phase
from hecaton.worker.brain.steps import Steps


class WorkerState:
    """`holdings` is there to be looked at: it changes in `handle` only, and `invariants` holds after each event."""

    def __init__(
        self,
        gpus: tuple[Gpu, ...],
        settings: WorkerSettings,
        prefix: str = "c",
        done: Iterable[Done] = (),
        no_overlap_until: float = 0.0,
    ) -> None:
        """`prefix` makes ids of containers unique over restarts. `done`: results of an earlier process of this worker.
        `no_overlap_until`: monotonic seconds until which no-overlap jobs may run, as that process knew it."""
        self.settings = settings
        self.holdings = Holdings(gpus, settings, done)
        self._places = self.holdings.places
        self._orders = ev.Orders()
        self._steps = Steps(self.holdings, self._orders, prefix)
        self._ends = Ends(self.holdings, self._orders, self._steps)
        self._server = FromServer(self.holdings, self._orders, self._steps, self._ends)
        self._sticky = StickyErrors()
        self._departure = Departure(self.holdings, self._orders, self._steps, self._ends, settings.drain_timeout)
        self._limits = Limits(self.holdings, settings, self._steps, self._ends, no_overlap_until)
        self._table: dict[type[msgspec.Struct], Callable[[Any], None]] = dict(self._rows())

    def handle(self, event: ev.Event) -> list[ev.Action]:
        """What to do now, in this order."""
        # hot: benchmarks/throughput.py
        if self._departure.left:
            return []
        self._table[type(event)](event)
        places = self._places
        if places.waiting or places.opened:
            self._settle_places(event.now)
        if self.holdings.leaving is not None:
            self._departure.leave_if_done(event.now)
        orders = self._orders
        actions, orders.actions = orders.actions, []
        return actions

    def _settle_places(self, now: float) -> None:
        self._steps.advance_waiting(now)
        self.holdings.places.close_empty()

    def _rows(self) -> Iterable[tuple[type[msgspec.Struct], Callable[[Any], None]]]:
        return (
            row(ev.Assigned, self._server.assigned),
            row(ev.Revoked, self._server.revoked),
            row(ev.CancelAsked, self._server.cancel),
            row(ev.ResultsAccepted, self._server.accepted),
            row(ev.Welcomed, self._server.welcomed),
            row(ev.Drained, self._server.drained),
            row(ev.Assured, self._limits.assured),
            row(ev.Guarded, self._server.guarded),
            row(ev.LinkLost, self._server.link_lost),
            row(ev.ImageReady, self._on_image_ready),
            row(ev.ImageMoved, self._on_image_moved),
            row(ev.ContainerStarted, self._on_started),
            row(ev.ContainerNote, self._on_note),
            row(ev.ContainerSaid, self._steps.said),
            row(ev.ContainerUnready, self._steps.unready),
            row(ev.ContainerFailed, self._on_failed),
            row(ev.ContainerReady, self._on_ready),
            row(ev.JobAnswered, self._on_answered),
            row(ev.Withdrawn, self._on_withdrawn),
            row(ev.ContainerExited, self._on_exited),
            row(ev.ContainerMisbehaved, self._ends.misbehaved),
            row(ev.ContainerGone, self._on_gone),
            row(ev.ContainerAdopted, self._on_adopted),
            row(ev.AttemptLost, self._ends.lost),
            row(ev.DiskFull, self._on_disk_full),
            row(ev.GpuLost, self._on_gpu_lost),
            row(ev.GpusCame, self._on_gpus_came),
            row(ev.Fetched, self._on_fetched),
            row(ev.FetchFailed, self._on_fetch_failed),
            row(ev.ResultsSafe, self._on_safe),
            row(ev.Tick, self._on_tick),
            row(ev.StopAsked, self._departure.stop),
            row(ev.LeaveAsked, self._departure.leave),
            row(ev.PowerOffAsked, self._departure.power_off),
            row(ev.ShutdownAsked, self._departure.shut_down),
        )

    @property
    def connected(self) -> bool:
        return self._orders.connected

    def deadline(self) -> float | None:
        """When a `Tick` is due at the latest; None: never, as things stand."""
        # hot: benchmarks/throughput.py
        due = self._limits.due()
        if self.holdings.leaving is not None:
            due += self._departure.due()
        return min(due, default=None)

    # -- from the containers -------------------------------------------------------------------------

    def _on_image_ready(self, event: ev.ImageReady) -> None:
        container = self.holdings.containers.get(event.container)
        if container is not None and container.phase is Phase.PREPARING:
            container.phase, container.runs = Phase.STARTING, event.image
            self._orders.report(self.holdings.slots[container.slot].news())

    def _on_image_moved(self, event: ev.ImageMoved) -> None:
        """What it has been given it goes on with; the next job gets the image that the name means now."""
        container = self.holdings.containers.get(event.container)
        if container is not None and container.shared is not None and container.phase is not Phase.STOPPING:
            container.outdated = True
            slot = self.holdings.slots[container.slot]
            self._orders.report(slot.news())
            self._steps.advance(slot, event.now)

    def _on_started(self, event: ev.ContainerStarted) -> None:
        container = self.holdings.containers.get(event.container)
        if container is not None and container.phase < Phase.BOOTING:
            container.phase = Phase.BOOTING
            container.since = event.now
            if container.warm_key is not None:  # a script asks for nothing
                self._note(container, "the container runs; waiting for it to ask for work")

    def _on_note(self, event: ev.ContainerNote) -> None:
        container = self.holdings.containers.get(event.container)
        if container is not None and container.phase < Phase.READY:
            self._note(container, event.text)

    def _on_failed(self, event: ev.ContainerFailed) -> None:
        container = self.holdings.containers.get(event.container)
        if container is None:
            return
        job = self.holdings.find(container.started_for)
        slot = self._ends.clear(container, event.now)
        if job is not None and job.ending is None:
            failure = no_room(event.message) if event.no_room else Failure(event.message, hint=event.hint)
            self._ends.finish(job, event.reason, event.now, failure)
        self._steps.advance(slot, event.now)

    def _on_ready(self, event: ev.ContainerReady) -> None:
        container = self.holdings.containers.get(event.container)
        if container is None or container.phase is Phase.STOPPING:
            return
        container.takes_ahead = event.takes_ahead
        if container.phase is not Phase.READY:
            container.phase = Phase.READY
            container.since = event.now
            if container.shared is not None:
                self._orders.report(self.holdings.slots[container.slot].news())
        else:
            self._ends.lost_on_its_way(container, event.busy, event.now)
        self._steps.advance(self.holdings.slots[container.slot], event.now)

    def _on_answered(self, event: ev.JobAnswered) -> None:
        container = self.holdings.containers.get(event.container)
        if container is None:
            return
        job = container.running
        if job is None or job.ref != event.ref:
            done = self.holdings.done.get(event.ref)
            if done is None or done.acknowledged:  # a repetition: it was safe before the container heard of it
                self._orders.do(ev.Acknowledge(container.id, event.ref))
            return
        if job.ending not in (None, EarlyEnd.RELEASED, EarlyEnd.UNHEARD):
            return  # too late: it is being stopped, and ends for that reason
        container.ended_one(event.now)
        if container.ahead:
            self._steps.next_begins(container, event.now)
        if (ending := self._sticky.judge(container, event)) is not None:
            self._ends.replace(container, ending, event.now)
            event = explained(event) if ending is EarlyEnd.REPLACED else event
        if event.reason is Reason.HANDLER_ERROR and event.failure is not None:
            failure = hinted(event.failure, job.assignment.options, self.settings.memory)
            event = msgspec.structs.replace(event, failure=failure)
        self._ends.answered(job, event)

    def _on_withdrawn(self, event: ev.Withdrawn) -> None:
        container = self.holdings.containers.get(event.container)
        if container is not None:
            self._ends.withdrawn(container, event.refs, event.now)
            self._steps.advance(self.holdings.slots[container.slot], event.now)

    def _on_exited(self, event: ev.ContainerExited) -> None:
        container = self.holdings.containers.get(event.container)
        if container is None or container.phase is Phase.STOPPING:
            return
        begun = self._ends.emptied(container, event.never_began, event.now)
        noun = WAYS[begun[0].assignment.mode].noun if begun else "container"
        asked = begun[0].assignment.options if begun else NOTHING_ASKED
        reason, failure = exit_failure(event.exit, event.output, noun, asked)
        if not begun and not container.served:
            first = self.holdings.find(container.started_for)
            begun = [] if first is None else [first]
            for job in begun:
                job.image, asked = container.runs, job.assignment.options
            reason, failure = startup_failure(event.exit, event.output, event.how, event.hint, asked)
        if event.unheard:
            reason, failure = Reason.RELEASED, UNHEARD
        for job in begun:
            if job.ending is None:
                self._ends.finish(
                    job, reason, event.now, failure,
                    container=container.id, exit_code=event.exit.code, output=event.output,
                )  # fmt: skip
        self._steps.stop(container)

    def _on_gone(self, event: ev.ContainerGone) -> None:
        container = self.holdings.containers.get(event.container)
        if container is not None:
            self._steps.advance(self._ends.clear(container, event.now), event.now)

    def _note(self, container: Container, text: str) -> None:
        job = self.holdings.find(container.started_for)
        if job is not None:
            self._orders.report(Note(job.ref, text))

    # -- from this machine ---------------------------------------------------------------------------

    def _on_adopted(self, event: ev.ContainerAdopted) -> None:
        """Go on with a container of an earlier process. One without a job has to ask for work as a new one has."""
        first = event.first
        container = Container(event.container, event.slot, first.warm_key, first.image.name, first.ref, event.now)
        container.phase, container.served, container.runs = Phase.BOOTING, True, event.image
        holds = container.holds = event.first.holds or self.holdings.places.open(event.slot).own or NOTHING
        self.holdings.place(container)
        if event.job is not None:
            container.running = HeldJob(
                event.job, here=True, started_at=event.started_at, adopted=True, image=event.image, holds=holds
            )
            container.ahead.extend(HeldJob(ahead, here=True, adopted=True, holds=holds) for ahead in event.ahead)
            container.phase = Phase.READY
            for job in container.begun():
                self.holdings.add(job)

    def _on_disk_full(self, event: ev.DiskFull) -> None:
        """Results wait in memory; work that has not started goes where there is room."""
        if event.full is self.holdings.disk_full or self.holdings.leaving is not None:
            return
        self.holdings.disk_full = event.full
        self._orders.report(Draining(event.full))
        if event.full:
            self._ends.hand_back(event.now)

    def _on_gpu_lost(self, event: ev.GpuLost) -> None:
        """What runs there fails, what waits goes elsewhere; the other slots go on."""
        held = self.holdings
        if event.uuid in held.places.lost:
            return
        held.places.lost[event.uuid] = event.message
        for slot in list(held.slots.values()):
            for job in [job for job in slot.jobs if event.uuid in job.holds.uuids and job.holds != slot.holds]:
                self._ends.end_early(job, EarlyEnd.RELEASED, event.now)  # behind a container that holds others
            own = slot.own or NOTHING
            if event.uuid not in (*own.uuids, *slot.holds.uuids) or slot.lost is not None:
                continue
            slot.lost = event.message
            self._orders.report(Lost(slot.index, event.message))
            for job in list(slot.jobs):
                begun = held.may_have_started(job) and not held.is_ahead(job)
                self._ends.end_early(job, EarlyEnd.GPU_LOST if begun else EarlyEnd.RELEASED, event.now)
            if slot.container is not None:
                self._steps.stop(slot.container)

    def _on_gpus_came(self, event: ev.GpusCame) -> None:
        """Each opens a place. Places without a card, on a machine that had none, take nothing more: what runs there
        ends as it would have."""
        held = self.holdings
        for slot in held.places.without_card():
            slot.lost = CARDS_CAME
            self._orders.report(Lost(slot.index, CARDS_CAME))
            for job in list(slot.jobs):
                if not held.may_have_started(job) or held.is_ahead(job):
                    self._ends.end_early(job, EarlyEnd.RELEASED, event.now)
            if slot.container is not None and not slot.jobs:
                self._steps.stop(slot.container)
        held.places.add(event.gpus)

    def _on_fetched(self, event: ev.Fetched) -> None:
        job = self.holdings.find(event.ref)
        if job is not None:
            job.here = True
            self._steps.advance(self.holdings.slot_of(job), event.now)

    def _on_fetch_failed(self, event: ev.FetchFailed) -> None:
        job = self.holdings.find(event.ref)
        if job is not None and job.ending is None and not job.here:
            if event.no_room:
                self._ends.finish(job, Reason.RELEASED, event.now, no_room(event.message))
            else:
                self._ends.finish(job, Reason.WORKER_ERROR, event.now, payload_failure(event.message))
            self._steps.advance(self.holdings.slot_of(job), event.now)

    def _on_safe(self, event: ev.ResultsSafe) -> None:
        for ref in event.refs:
            done = self.holdings.done.get(ref)
            if done is not None:
                self._ends.acknowledge(done)

    def _on_tick(self, event: ev.Tick) -> None:
        self._limits.tick(event.now)
        self._departure.tick(event.now)
