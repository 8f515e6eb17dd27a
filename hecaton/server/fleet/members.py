"""Which workers are connected and what they hold: the server's memory of leases. No I/O; times are monotonic seconds.

A lease is an attempt that the store has committed to one slot of one worker. It stays here while the worker is away,
until the worker comes back and is asked (`join`) or has been silent for `lost_after` (`silent`). Built anew from
the store when the server starts: every lease then gets one full `lost_after`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import count as numbers

import msgspec

from hecaton.core.errors import Fenced
from hecaton.core.model import AttemptRef, JobId, WorkerId
from hecaton.server.fleet.checks import ability, version_of
from hecaton.server.fleet.places.leases import (
    IN_SERVICE,
    MAX_HELD,
    Lease,
    Member,
    OutOfService,
    Place,
    WorkerLink,
    slot_of,
)
from hecaton.wire.channel import Held, Hello, Warm


class Reconciled(msgspec.Struct, frozen=True):
    """What a returning worker still owns, must drop, and has lost (by whether it had started)."""

    keep: tuple[AttemptRef, ...]
    drop: tuple[AttemptRef, ...]
    lost_started: tuple[AttemptRef, ...]
    lost_waiting: tuple[AttemptRef, ...]
    rebooted: bool = False  # the machine, since it was here last, or nobody knows


class Fleet:
    """The only one that changes what decides about new work: it notes for `openings` which slots are others now. On the
    server's event loop, and nothing here awaits: each method is atomic. A lease stands in one place, a slot's `held` or
    its member's `storing`; a member is here while it is connected or something of it stands in one of these."""

    def __init__(self) -> None:
        self.members: dict[WorkerId, Member] = {}
        self.out_of_service: dict[WorkerId, OutOfService] = {}
        self.changed: dict[Place, None] = {}  # in order: what is decided from it is the same in each run
        self._numbers = numbers()

    def take_changed(self) -> dict[Place, None]:
        """The slots that changed since the last call, in the order in which they did."""
        changed, self.changed = self.changed, {}
        return changed

    def _note(self, member: Member) -> None:
        """About the whole member something has changed."""
        self.changed.update(((member.id, index), None) for index in member.slots)

    def _member(self, worker_id: WorkerId, name: str) -> Member:
        if worker_id not in self.members:
            self.members[worker_id] = Member(worker_id, name, next(self._numbers))
        return self.members[worker_id]

    # -- what they may get ---------------------------------------------------------------------

    def set_out_of_service(self, worker_id: WorkerId, why: OutOfService) -> None:
        self.out_of_service[worker_id] = why
        if member := self.members.get(worker_id):
            member.out_of_service = why
            self._note(member)

    def is_drained(self, worker_id: WorkerId) -> bool:
        return self.out_of_service.get(worker_id, IN_SERVICE).drained

    def set_draining(self, worker_id: WorkerId, active: bool) -> None:
        """As the worker says."""
        if member := self.members.get(worker_id):
            member.draining = active
            self._note(member)

    def set_warm(self, worker_id: WorkerId, news: Warm) -> None:
        """Which container lives on a slot."""
        member = self.members.get(worker_id)
        slot = member.slots.get(news.slot) if member is not None else None
        if slot is not None:
            slot.warm_key, slot.image, slot.version = news.warm_key, news.image, version_of(news.version)
            self.changed[worker_id, news.slot] = None

    def reserve(self, worker_id: WorkerId, index: int, count: int, warm_key: str | None) -> None:
        """So many jobs are about to be committed to the slot; `count` below 0: that is over."""
        member = self.members.get(worker_id)
        if member is not None:
            slot = member.slot(index)
            slot.reserved = max(0, slot.reserved + count)
            if count > 0:
                slot.promised = warm_key
            self.changed[worker_id, index] = None

    # -- come and go ---------------------------------------------------------------------------

    def load(self, leases: Iterable[tuple[WorkerId, str, int, AttemptRef, bool]], now: float) -> None:
        """At start: the leases that the store knows, each with a full `lost_after` from now."""
        for worker_id, name, slot, ref, started in leases:
            member = self._member(worker_id, name)
            member.last_contact = now
            self.changed[worker_id, slot] = None
            member.put(Lease(ref, slot, 0, None, started=started))

    def unknown(self, worker_id: WorkerId, held: Sequence[Held]) -> dict[AttemptRef, int]:
        """What a returning worker holds without a lease, and on which slot: only the store can say what it is."""
        member = self.members.get(worker_id)
        known = {lease.ref for lease in member.all_leases()} if member else set()
        return {one.ref: one.slot for one in held if one.ref not in known}

    def join(
        self, worker_id: WorkerId, name: str, link: WorkerLink, hello: Hello, now: float, restored: Sequence[Lease] = ()
    ) -> Reconciled:
        """A worker connected. The caller ends what was lost and tells the worker what to keep and drop. `restored`:
        what the store has given back to it."""
        member = self._member(worker_id, name)
        self._note(member)
        owned = {lease.ref: lease for lease in (*restored, *member.leases())}
        member.name, member.link, member.last_contact = name, link, now
        member.suspect = member.draining = False
        member.out_of_service = self.out_of_service.get(worker_id, IN_SERVICE)
        # Unknown after a start of the server: the power may have gone for both of them.
        rebooted = member.boot_id != hello.boot_id
        member.boot_id = hello.boot_id
        member.runtime, member.version, member.protocol = hello.runtime, hello.version, hello.protocol
        member.ability = ability(hello)
        member.slots = {info.index: slot_of(info) for info in hello.slots}
        member.leased = {}
        keep, drop = [], []
        for held in hello.held:
            lease = owned.pop(held.ref, None)
            if held.ref in member.storing:
                member.storing[held.ref].back = True
                keep.append(held.ref)  # to be forgotten once it is stored, and not before
                continue
            if lease is None:
                drop.append(held.ref)
                continue
            keep.append(held.ref)
            lease.slot, lease.revoking = held.slot, False
            lease.started = lease.started or held.phase != "queued"
            member.put(lease)
        self._note(member)
        started = tuple(ref for ref, lease in owned.items() if lease.started)
        waiting = tuple(ref for ref, lease in owned.items() if not lease.started)
        return Reconciled(tuple(keep), tuple(drop), started, waiting, rebooted)

    def leave(self, worker_id: WorkerId, link: WorkerLink) -> bool:
        """The connection ended; False if a newer one has taken over. Leases stay."""
        member = self.members.get(worker_id)
        if member is None or member.link is not link:
            return False
        member.link = None
        self._note(member)
        self._forget_if_done(member)
        return True

    def _forget_if_done(self, member: Member) -> None:
        """A claim under way (`reserved`) becomes a lease in a moment: it must find its member."""
        if member.link is None and not member.storing and not any(s.held or s.reserved for s in member.slots.values()):
            self._note(member)
            self.members.pop(member.id, None)

    def contact(self, worker_id: WorkerId, now: float) -> bool:
        """True: it was suspect until now, and is to be offered what waits."""
        member = self.members.get(worker_id)
        if member is None:
            return False
        member.last_contact = now
        was_suspect, member.suspect = member.suspect, False
        if was_suspect:
            self._note(member)
        return was_suspect

    # -- leases --------------------------------------------------------------------------------

    def grant(self, worker_id: WorkerId, lease: Lease, depth: int) -> Member | None:
        """A claim was committed, and the slot may hold so many jobs now. None: the worker is gone; its lease waits for
        it all the same."""
        member = self.members.get(worker_id)
        if member is None:
            return None
        member.put(lease)
        slot = member.slots[lease.slot]
        slot.promised, slot.depth = lease.warm_key, max(1, min(depth, MAX_HELD // len(member.slots)))
        self.changed[worker_id, lease.slot] = None
        return member

    def lose_slot(self, worker_id: WorkerId, index: int, why: str) -> bool:
        """Its card can be used no more. What the worker held there it ends or hands back itself. False: no news."""
        member = self.members.get(worker_id)
        slot = member.slots.get(index) if member is not None else None
        if slot is None or slot.lost is not None:
            return False
        slot.lost = why
        self.changed[worker_id, index] = None
        return True

    def release(self, worker_id: WorkerId, ref: AttemptRef, now: float) -> Lease | None:
        """The attempt is over on this worker; its place on the slot is free."""
        member = self.members.get(worker_id)
        lease = member.lease(ref) if member else None
        if member is None or lease is None:
            return None
        member.take(lease)
        member.slots[lease.slot].used_at = now
        self.changed[worker_id, lease.slot] = None
        self._forget_if_done(member)
        return lease

    def end(self, worker_id: WorkerId, ref: AttemptRef, now: float) -> Lease | None:
        """Its end is being stored: the place is free from now on, the attempt the worker's until `ended`."""
        member = self.members.get(worker_id)
        lease = member.lease(ref) if member else None
        if member is not None and lease is not None:
            member.storing[ref] = lease
            self.release(worker_id, ref, now)
        return lease

    def give_up(self, member: Member, now: float) -> tuple[AttemptRef, ...]:
        """It was lost or removed: all that it holds is about to be ended. Returns what that is."""
        refs = tuple(lease.ref for lease in member.leases())
        member.link = None
        self._note(member)
        for ref in refs:
            self.end(member.id, ref, now)
        return refs

    def ended(self, worker_id: WorkerId, refs: Iterable[AttemptRef], now: float) -> None:
        """The store knows how these ended, whoever said so."""
        member = self.members.get(worker_id)
        if member is not None:
            for ref in refs:
                self.release(worker_id, ref, now)
                member.storing.pop(ref, None)
            self._forget_if_done(member)

    def not_ended(self, worker_id: WorkerId, refs: Iterable[AttemptRef]) -> None:
        """Their end could not be stored: they are leased as before, and the worker will say it again."""
        member = self.members.get(worker_id)
        for ref in refs:
            lease = member.storing.pop(ref, None) if member else None
            if member is not None and lease is not None:
                member.put(lease)
                self.changed[worker_id, lease.slot] = None

    def silent(self, now: float, suspect_after: float, lost_after: float) -> list[Member]:
        """Mark workers that have not been heard from, until `contact`; return those whose leases are over."""
        for member in self.members.values():
            if now - member.last_contact > suspect_after and not member.suspect:
                member.suspect = True
                self._note(member)
        return [member for member in self.members.values() if now - member.last_contact > lost_after]

    def require_holder(self, worker: WorkerId, job: JobId) -> None:
        """Raises Fenced unless this worker holds an attempt at the job: the guard of payload and result transfers."""
        member = self.members.get(worker)
        if member is None or not any(lease.ref.job == job for lease in member.all_leases()):
            raise Fenced(f"job {job} is not assigned to this worker")
