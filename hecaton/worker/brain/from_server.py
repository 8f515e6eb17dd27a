"""What the server says: jobs, what has become of them meanwhile, whether this worker is in service."""

from __future__ import annotations

from hecaton.core.model import AttemptRef
from hecaton.wire.channel import Draining, Released, Started
from hecaton.worker.brain import events as ev
from hecaton.worker.brain.ends import Ends
from hecaton.worker.brain.holdings import Holdings
from hecaton.worker.brain.slots import EarlyEnd, HeldJob, WorkerSlot
from hecaton.worker.brain.steps import Steps


class FromServer:
    """One method per event."""

    def __init__(self, holdings: Holdings, orders: ev.Orders, steps: Steps, ends: Ends) -> None:
        self._holdings = holdings
        self._orders = orders
        self._steps = steps
        self._ends = ends

    def assigned(self, event: ev.Assigned) -> None:
        held = self._holdings
        full = held.leaving is not None or held.disk_full
        refused = []
        slots: dict[int, WorkerSlot] = {}
        for assignment in event.jobs:
            ref = assignment.ref
            earlier = held.jobs.get(ref.job)
            if earlier is not None and earlier.ref.attempt >= ref.attempt:
                continue  # said twice, or overtaken by a newer attempt
            if ref in held.done:
                self._ends.deliver_again(held.done[ref], event.now)
                continue
            if earlier is not None:
                self._ends.end_early(earlier, EarlyEnd.DROPPED, event.now)
            holds = None if full or ref.job in held.jobs else held.places.holds_of(assignment)
            if holds is None:
                refused.append(ref)
                continue
            job = HeldJob(assignment, here=assignment.payload.blob is None, holds=holds)
            held.add(job)
            if not job.here:
                self._orders.do(ev.Fetch(assignment))
            slots[assignment.slot] = held.slots[assignment.slot]
        for slot in slots.values():
            self._steps.advance(slot, event.now)
        self._orders.report_refs(Released, refused)

    def revoked(self, event: ev.Revoked) -> None:
        held = self._holdings
        released, started = [], []
        for ref in event.refs:
            job = held.find(ref)
            if job is None:
                if ref in held.done:
                    self._ends.deliver_again(held.done[ref], event.now)
                else:
                    released.append(ref)
            elif held.is_ahead(job):
                self._ends.revoke_ahead(job)
            elif not held.may_have_started(job):
                self._ends.release(job)
                released.append(ref)
                self._steps.advance(held.slot_of(job), event.now)
            elif job.started_at is not None:
                started.append(ref)
        self._orders.report_refs(Released, released)
        self._orders.report_refs(Started, started)

    def cancel(self, event: ev.CancelAsked) -> None:
        unknown = []
        for ref in event.refs:
            job = self._holdings.find(ref)
            if job is not None:
                self._ends.end_early(job, EarlyEnd.CANCELLED, event.now)
            elif ref in self._holdings.done:
                self._ends.deliver_again(self._holdings.done[ref], event.now)
            else:
                unknown.append(ref)
        self._orders.report_refs(Released, unknown)

    def accepted(self, event: ev.ResultsAccepted) -> None:
        for ref in event.refs:
            self._ends.forget_result(ref)
        for ref in event.fenced:
            self._fence(ref, event.now)

    def welcomed(self, event: ev.Welcomed) -> None:
        self._orders.connected = True
        for ref in event.drop:
            self._fence(ref, event.now)
        if self._holdings.leaving is not None or self._holdings.disk_full:
            self._orders.report(Draining())
        for slot in self._holdings.slots.values():  # what changed between Hello and Welcome was said to nobody
            self._orders.report(slot.news())
        started = [job.ref for job in self._holdings.jobs.values() if job.started_at is not None]
        self._orders.report_refs(Started, started)
        for done in list(self._holdings.done.values()):
            self._ends.deliver_again(done, event.now)
        self._drain(event.drained, event.now)

    def drained(self, event: ev.Drained) -> None:
        self._drain(event.active, event.now)

    def _drain(self, active: bool, now: float) -> None:
        self._holdings.drained = active
        for slot in self._holdings.slots.values() if active else ():
            self._steps.advance(slot, now)

    def guarded(self, event: ev.Guarded) -> None:
        self._holdings.guarded = event.guarded
        for slot in self._holdings.slots.values():
            self._steps.advance(slot, event.now)

    def link_lost(self, event: ev.LinkLost) -> None:
        self._orders.connected = False

    def _fence(self, ref: AttemptRef, now: float) -> None:
        job = self._holdings.find(ref)
        if job is not None:
            self._ends.end_early(job, EarlyEnd.DROPPED, now)
        self._ends.forget_result(ref)
