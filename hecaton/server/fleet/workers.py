"""Workers come and go: joined, away, draining, lost or removed, and what becomes of the attempts that they had.

The store first, memory and workers after the commit. Used by `channel`, `duties` and `web`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import structlog

from hecaton.core.model import AttemptRef, JobState, Reason, WorkerId, WorkerRecord
from hecaton.server.fleet.attempts import Attempts, Refs
from hecaton.server.fleet.checks import enrolled, opened_by_itself
from hecaton.server.fleet.dispatcher import Dispatcher
from hecaton.server.fleet.members import Fleet
from hecaton.server.fleet.places.leases import Lease, Member, WorkerLink
from hecaton.server.fleet.quarantine import Quarantine
from hecaton.server.hub import Hub
from hecaton.server.resources import Resources
from hecaton.store.port import Store
from hecaton.wire.channel import CLOSE_UNAUTHENTICATED, PROTOCOL, Cancel, CardInfo, Hello, Retire, Welcome

_log = structlog.get_logger("hecaton.workers")


class Workers:
    """On the server's event loop. What a worker holds changes in `Fleet` in one step, without an `await` in between;
    what it held then is known to the store a moment later or, where the store fails, is found by `end_orphans`."""

    def __init__(
        self,
        resources: Resources,
        fleet: Fleet,
        dispatcher: Dispatcher,
        attempts: Attempts,
        quarantine: Quarantine,
        hub: Hub,
    ) -> None:
        self._database, self._clock = resources.database, resources.clock
        self._settings, self._server_id = resources.settings, resources.server_id
        self._fleet, self._dispatcher, self._attempts, self._quarantine = fleet, dispatcher, attempts, quarantine
        self._hub = hub
        self._links: dict[WorkerId, set[WorkerLink]] = {}
        self._removed: set[WorkerId] = set()

    @contextmanager
    def connection(self, worker: WorkerId, link: WorkerLink) -> Iterator[None]:
        """For the length of a connection, whatever has been said on it: it ends when the worker is removed, which may
        have happened since its token was looked up."""
        links = self._links.setdefault(worker, set())
        links.add(link)
        if worker in self._removed:
            _send_home(link)
        try:
            yield
        finally:
            links.discard(link)
            if not links:
                self._links.pop(worker, None)

    async def enrolled(self, worker: WorkerRecord, hello: Hello) -> Hello:
        """What it says, with as many slots to be used as when it was here first."""
        slots = len(opened_by_itself(hello))
        if worker.slots is None and slots:
            await self._database.write(lambda store: store.enrol_slots(worker.id, slots))
        if worker.slots is None or slots <= worker.slots:
            return hello
        _log.warning("A worker has more slots than it was enrolled with", worker=worker.name, slots=slots)
        return enrolled(hello, worker.slots, worker.name)

    async def join(self, worker: WorkerRecord, link: WorkerLink, hello: Hello, restored: Sequence[Lease]) -> None:
        """`restored`: what `Quarantine.restore` gave for the same hello."""
        now = self._clock.now()
        reconciled = self._fleet.join(worker.id, worker.name, link, hello, now, restored)
        limits = self._settings.heartbeat, self._settings.max_result
        lost_after, drained = self._settings.lost_after, self._fleet.is_drained(worker.id)
        spoken = min(PROTOCOL, hello.protocol)
        link.send(Welcome(spoken, self._server_id, *limits, reconciled.keep, reconciled.drop, lost_after, drained))
        # The worker knows what it keeps before anything else is sent to it. New work comes last, by `dispatch`: what it
        # has lost waits again by then.
        await self._database.write(lambda store: store.seen([worker.id], now))
        for lease in restored:
            self._attempts.publish(lease.ref, "state", JobState.IN_PROGRESS if lease.started else JobState.ASSIGNED)
        await self._ask_again(link, reconciled.keep)
        await self._attempts.end_lost(reconciled.lost_started, Reason.WORKER_LOST, worker.id, reconciled.rebooted)
        await self._attempts.end_lost(reconciled.lost_waiting, Reason.RELEASED)
        _log.info("Worker connected", worker=worker.name, slots=len(hello.slots), runtime=hello.runtime)
        await self._dispatcher.dispatch()

    async def _ask_again(self, link: WorkerLink, kept: Sequence[AttemptRef]) -> None:
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
        await self._attempts.end_lost(
            [ref for ref in again if orphans[ref] is JobState.IN_PROGRESS], Reason.WORKER_LOST
        )
        await self._attempts.end_lost([ref for ref in again if orphans[ref] is JobState.ASSIGNED], Reason.RELEASED)
        return frozenset(orphans)

    async def take_out_of_service(self, name: str) -> WorkerRecord:
        """By an admin: `Quarantine.drain`. NotFound."""
        return await self._quarantine.drain(name)

    async def put_into_service(self, name: str) -> WorkerRecord:
        """By an admin; ends a quarantine too, and lets it use all slots that it has now. NotFound."""
        record = await self._quarantine.undrain(name)
        member = self._fleet.members.get(record.id)
        if member is not None and member.link is not None and record.slots is not None:
            slots = len(member.slots)
            if slots > record.slots:
                await self._database.write(lambda store: store.enrol_slots(record.id, slots, more=True))
                member.link.close(1012, "it may use all its slots now: what has it?")
        await self._dispatcher.dispatch()
        return record

    def leave(self, worker: WorkerRecord, link: WorkerLink) -> None:
        if self._fleet.leave(worker.id, link):
            _log.info("Worker disconnected", worker=worker.name)

    def heard(self, worker: WorkerId) -> None:
        # hot: benchmarks/throughput.py - with every frame of a worker
        if self._fleet.contact(worker, self._clock.now()):
            self._dispatcher.kick()  # for what came while it was suspect nobody else asks

    def see_cards(self, worker: WorkerId, cards: Sequence[CardInfo]) -> None:
        if self._fleet.set_cards(worker, cards):
            self._dispatcher.kick()  # what waited for memory that others held may start

    def drain(self, worker: WorkerId, active: bool) -> None:
        self._fleet.set_draining(worker, active)
        if not active:
            self._dispatcher.kick()

    async def remove(self, record: WorkerRecord) -> None:
        """An admin removed the worker: what it held waits again; a no-overlap job until it must have been stopped."""
        self._removed.add(record.id)
        self._quarantine.removed(record.id)
        for link in self._links.get(record.id, ()):
            _send_home(link)
        self._hub.revoke(record.id)
        member = self._fleet.members.get(record.id)
        if member is None:
            return
        held = tuple(lease.ref for lease in member.leases())
        await self._give_up(member, (), held, unseen=self._settings.lost_after)
        await self._dispatcher.read_waiting()  # what was planned for it meanwhile was not claimed, and waits

    async def lose(self, member: Member) -> None:
        """The worker was silent for `lost_after`: its jobs wait again, and it is fenced. Jobs that only waited beside
        another are not charged: they did not bring it down."""
        begun, waiting = member.by_start()
        excused = self._quarantine.excused(member)
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
            await self._attempts.end_lost(begun, Reason.WORKER_LOST, member.id, excused)
            await self._attempts.end_lost(waiting, Reason.RELEASED, unseen=unseen)
        except BaseException:
            self._fleet.not_ended(member.id, refs)
            raise
        back = [ref for ref in refs if ref in member.storing and member.storing[ref].back]
        self._fleet.ended(member.id, refs, self._clock.now())
        if member.link is not None and back:
            member.link.close(1012, "you were given up while you came back: what do you hold now?")
        await self._dispatcher.dispatch()


def _send_home(link: WorkerLink) -> None:
    link.send(Retire("this worker was removed from the server by an admin"))
    link.close(CLOSE_UNAUTHENTICATED, "the worker was removed")
