"""How jobs end, with a result or without one, and what becomes of results until the server has them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import msgspec

from hecaton.core.model import AttemptRef, Failure, Reason
from hecaton.wire.channel import Outcome, Released
from hecaton.worker.brain import events as ev
from hecaton.worker.brain.failures.words import CUT_OFF, UNHEARD, card_failure, timeout_failure
from hecaton.worker.brain.holdings import Holdings
from hecaton.worker.brain.slots import Container, Done, EarlyEnd, HeldJob, Phase, WorkerSlot
from hecaton.worker.brain.steps import Steps


class Ends:
    """A job ends once: it is removed, and either there is a result of it in `done` and a `Deliver`, or it is handed
    back or dropped and there is none. Nothing that may run in a container ends before the container has stopped, or
    has said that it will not begin it."""

    def __init__(self, holdings: Holdings, orders: ev.Orders, steps: Steps) -> None:
        self._holdings = holdings
        self._orders = orders
        self._steps = steps

    # -- a job ---------------------------------------------------------------------------------------

    def end_early(self, job: HeldJob, ending: EarlyEnd, now: float) -> None:
        """End a held job: at once if nothing of it runs, else when its container is gone."""
        slot = self._holdings.slot_of(job)
        if job.ending not in (None, EarlyEnd.REVOKED):
            if ending is EarlyEnd.DROPPED or (ending is EarlyEnd.CANCELLED and job.ending is not EarlyEnd.DROPPED):
                job.ending = ending
            return
        job.ending = ending
        if slot.container is not None and job in slot.container.ahead:
            self._steps.withdraw(slot.container)
        elif slot.container is not None and self._holdings.may_have_started(job):
            self._steps.stop(slot.container, self._grace(job, ending))
        else:
            self._settle(job, now)
            self._steps.advance(slot, now)

    def _grace(self, job: HeldJob, ending: EarlyEnd) -> float:
        """That of a no-overlap job which others may get is the rest of its lease."""
        hurried = job.assignment.options.no_overlap and ending in (EarlyEnd.UNHEARD, EarlyEnd.DROPPED)
        return min(self._holdings.grace, self._holdings.no_overlap_grace) if hurried else self._holdings.grace

    def _settle(self, job: HeldJob, now: float, container: str | None = None) -> None:
        """End a job for the reason for which it was stopped."""
        if job.ending is EarlyEnd.CANCELLED:
            self.finish(job, Reason.CANCELLED, now, container=container)
        elif job.ending is EarlyEnd.TIMEOUT:
            failure = timeout_failure(job.assignment.options.timeout or 0.0)
            self.finish(job, Reason.TIMEOUT, now, failure, container=container)
        elif job.ending is EarlyEnd.MISBEHAVED and job.fault is not None:
            self.finish(job, job.fault[0], now, job.fault[1], container=container)
        elif job.ending is EarlyEnd.GPU_LOST:
            failure = card_failure(self._holdings.slot_of(job).lost or "")
            self.finish(job, Reason.GPU_LOST, now, failure, container=container)
        elif job.ending is EarlyEnd.UNHEARD:
            self.finish(job, Reason.RELEASED, now, UNHEARD, container=container)
        else:
            self.release(job)
            if job.ending in (EarlyEnd.RELEASED, EarlyEnd.REVOKED, EarlyEnd.REPLACED):
                self._orders.report(Released((job.ref,)))

    def release(self, job: HeldJob) -> None:
        """Hold it no longer, without a result."""
        self._holdings.remove(job)
        self._orders.do(ev.Forget(job.ref))

    def revoke_ahead(self, job: HeldJob) -> None:
        """It was given ahead: it is withdrawn unless it has begun; then it goes on."""
        container = self._holdings.slot_of(job).container
        if container is not None and job.ending is None:
            job.ending = EarlyEnd.REVOKED
            self._steps.withdraw(container)

    def hand_back(self, now: float) -> None:
        """All that has not begun."""
        holdings = self._holdings
        for job in [job for job in holdings.jobs.values() if not holdings.may_have_started(job)]:
            self.end_early(job, EarlyEnd.RELEASED, now)
        for container in holdings.containers.values():
            for job in container.ahead:
                self.revoke_ahead(job)

    def finish(
        self,
        job: HeldJob,
        reason: Reason,
        now: float,
        failure: Failure | None = None,
        *,
        container: str | None = None,
        exit_code: int | None = None,
        output: str = "",
    ) -> None:
        """End it with a result that its handler has not given. `container`: which keeps its log, if one does."""
        self._holdings.remove(job)
        outcome = Outcome(job.ref, reason, None, failure, exit_code, job.ran(now), image=job.image)
        self._deliver(outcome, Done(outcome, job.assignment.slot, now, container), output)

    def answered(self, job: HeldJob, answer: ev.JobAnswered) -> None:
        """End it with what its container says, which gets the next job before anything else is done about this one."""
        # hot: benchmarks/throughput.py
        self._holdings.remove(job)
        self._steps.advance(self._holdings.slot_of(job), answer.now)
        ran = job.ran(answer.now)
        outcome = Outcome(job.ref, answer.reason, answer.body, answer.failure, None, ran, image=job.image)
        self._deliver(outcome, Done(outcome, job.assignment.slot, answer.now, answer.container))

    # -- a container ---------------------------------------------------------------------------------

    def replace(self, container: Container, ending: EarlyEnd, now: float) -> None:
        """It gets no more jobs; those that it has are handed back, at nobody's charge."""
        for job in container.begun():
            self.end_early(job, ending, now)
        self._steps.stop(container)

    def misbehaved(self, event: ev.ContainerMisbehaved) -> None:
        """What it has begun ends for that; a container that has had no job yet is its first one's."""
        container = self._holdings.containers.get(event.container)
        if container is None or container.phase is Phase.STOPPING:
            return
        job = container.running if container.served else self._holdings.find(container.started_for)
        self._steps.stop(container)
        if job is not None and job.ending is None:
            job.fault = (event.reason, event.failure)
            self.end_early(job, EarlyEnd.MISBEHAVED, event.now)

    def clear(self, container: Container, now: float) -> WorkerSlot:
        """The container is no more: so are the jobs that were stopped with it, and one that had just begun."""
        slot = self._holdings.clear(container)
        for job in container.begun():
            if job.ending is None:
                self.finish(job, Reason.WORKER_ERROR, now, CUT_OFF, container=container.id)
        container.running = None
        self._orders.report(slot.news())
        for job in [job for job in slot.jobs if job.ending is not None]:
            self._settle(job, now, container.id)
        if slot.own is None:
            slot.lost = None  # with what it held: the server gives its number again, for other cards
        return slot

    def emptied(self, container: Container, never_began: Iterable[AttemptRef], now: float) -> list[HeldJob]:
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

    def withdrawn(self, container: Container, refs: Iterable[AttemptRef], now: float) -> None:
        """It will not begin these; what else it had ahead, it has begun or will begin."""
        container.withdrawing = False
        given, back = container.begun(), set(refs)
        container.ahead = deque(job for job in container.ahead if job.ref not in back)
        if (next_one := container.running) is not None and next_one.ref in back:
            # The answer before it was heard, and it was withdrawn before the container had come to it.
            container.running = next_one.started_at = None
            container.since = now
        for job in given:
            if job.ref in back:
                if job.ending is not None:
                    self._settle(job, now)
            elif job.ending is EarlyEnd.REVOKED:
                job.ending = None
            elif job.ending is not None and job is not next_one:
                self._steps.stop(container)

    def lost_on_its_way(self, container: Container, busy: tuple[AttemptRef, ...], now: float) -> None:
        """A connection broke, and the container comes back with `busy`. What else it was given never reached it: that
        goes again, or elsewhere if its payload went with an earlier process of this worker."""
        for job in [job for job in container.ahead if job.ref not in busy]:
            container.ahead.remove(job)
            if job.adopted:
                self.finish(job, Reason.RELEASED, now, container=container.id)
        running = container.running
        if running is None or running.ref in busy:
            return
        if not running.adopted:
            self._orders.do(ev.GiveJob(container.id, running.assignment))
        elif running.ending is None:
            container.running = None
            container.since = now
            if container.ahead:
                self._steps.next_begins(container, now)
            self.finish(running, Reason.RELEASED, now, container=container.id)

    # -- a result ------------------------------------------------------------------------------------

    def _deliver(self, outcome: Outcome, done: Done, output: str = "") -> None:
        self._holdings.done[outcome.ref] = done
        self._orders.do(ev.Deliver(outcome, done.container, output))

    def lost(self, event: ev.AttemptLost) -> None:
        """An attempt of an earlier process ended unseen."""
        outcome = Outcome(event.ref, event.reason, failure=event.failure)
        self._deliver(outcome, Done(outcome, event.slot, event.now))

    def deliver_again(self, done: Done, now: float) -> None:
        age = max(0.0, now - done.ended_at)
        self._orders.do(ev.Deliver(msgspec.structs.replace(done.outcome, age=age), done.container, again=True))

    def forget_result(self, ref: AttemptRef) -> None:
        done = self._holdings.done.pop(ref, None)
        if done is not None:
            self.acknowledge(done)
            self._orders.do(ev.Forget(ref))

    def acknowledge(self, done: Done) -> None:
        if not done.acknowledged and done.container in self._holdings.containers:
            self._orders.do(ev.Acknowledge(done.container, done.outcome.ref))
        done.acknowledged = True
