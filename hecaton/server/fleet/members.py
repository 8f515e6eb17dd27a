"""Which workers are connected and what they hold: the server's memory of leases. No I/O; times are monotonic seconds.

A lease is an attempt that the store has committed to one slot of one worker. It stays here while the worker is away,
until the worker comes back and is asked (`join`) or has been silent for `lost_after` (`silent`). Built anew from
the store when the server starts: every lease then gets one full `lost_after`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import count as numbers

import msgspec

from hecaton.core.errors import Fenced
from hecaton.core.model import AttemptRef, JobId, WorkerId
from hecaton.core.placement.holds import Holds
from hecaton.core.placement.needs import Needs
from hecaton.core.placement.packing import Fit, Machine, giving_way, nobody_could
from hecaton.server.fleet.checks import ability, opened_by_itself, shown_cards, version_of
from hecaton.server.fleet.places.leases import (
    IN_SERVICE,
    MAX_HELD,
    Lease,
    Member,
    OutOfService,
    Place,
    SlotState,
    WorkerLink,
    slot_of,
)
from hecaton.wire.bounds import MAX_SLOTS
from hecaton.wire.channel import CardInfo, Held, Hello, Warm


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
        self._strangers: set[WorkerId] = set()  # enrolled, and not here since the start of this server
        self._machines: dict[str, Machine] = {}  # all that were ever connected, by name

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

    def set_cards(self, worker_id: WorkerId, cards: Iterable[CardInfo]) -> bool:
        """As the worker sees them now. True: of some there is more for jobs than before, or less."""
        member = self.members.get(worker_id)
        if member is None:
            return False
        before, member.cards = member.cards, {info.gpu.uuid: info for info in shown_cards(cards)}
        changed = _usable(before) != _usable(member.cards)
        if changed:
            self._note(member)
        return changed

    def reserve(self, worker_id: WorkerId, index: int, count: int, warm_key: str | None, opened: bool = False) -> None:
        """So many jobs are about to be committed to the slot; `count` below 0: that is over. `opened`: it was opened
        for them, and holds what they need; else it holds its card and nothing else."""
        member = self.members.get(worker_id)
        if member is not None:
            slot = member.slot(index)
            if member.packed and count > 0 and not opened:
                self._clear(member, slot)
            slot.reserved = max(0, slot.reserved + count)
            if count > 0:
                slot.promised = warm_key
            self.changed[worker_id, index] = None
            if member.packed:
                self._shade(member)

    # -- places ---------------------------------------------------------------------------------

    def open(self, worker_id: WorkerId, fit: Fit) -> int | None:
        """A place that holds this, for a job that is about to be reserved there; what is in its way gives way. Returns
        its number; None: the worker has no number left."""
        member = self.members[worker_id]
        for index in fit.closes:
            self._close(member, member.slots[index])
        if fit.number is None:
            for slot in [slot for slot in member.slots.values() if not slot.taken and slot.warm_key is None]:
                self._close(member, slot)
            number = next((n for n in range(MAX_SLOTS) if n not in member.slots), None)
            if number is None:
                return None
            member.slots[number] = SlotState(number, holds=fit.holds, fixed=False)
        else:
            number = fit.number
            if (slot := member.slots[number]).what() != fit.holds:
                slot.holds = fit.holds
        member.packed = True
        self.changed[worker_id, number] = None
        return number

    def _close(self, member: Member, slot: SlotState) -> None:
        """An idle one. What a worker has opened itself stays, and its container goes."""
        if slot.fixed:
            slot.warm_key = slot.image = None
        else:
            del member.slots[slot.index]
        self.changed[member.id, slot.index] = None

    def held_there(self, worker_id: WorkerId, index: int) -> Holds | None:
        """What a place holds as a job asked for it; None: what the worker has opened it with."""
        # hot: benchmarks/throughput.py - with every assignment
        member = self.members.get(worker_id)
        if member is None or not member.packed:
            return None
        slot = member.slots.get(index)
        return None if slot is None else slot.holds

    def keep(self, worker_id: WorkerId, lane: int | None, cards: frozenset[str] = frozenset()) -> None:
        """What of these becomes free there is for this lane alone; None: for everybody, as before."""
        member = self.members.get(worker_id)
        if member is not None and member.kept_for != lane:
            member.kept_for, member.kept_cards, member.packed = lane, cards, True
            self._shade(member)
            self._note(member)

    def _clear(self, member: Member, slot: SlotState) -> None:
        """It gets a job that needs nothing in particular: idle places that hold its card give way."""
        if slot.holds is not None and slot.fixed and not slot.taken:
            slot.holds = Holds(slot.holds.cards)
        for index in giving_way(member.machine(), slot.what(), slot.index) or ():
            self._close(member, member.slots[index])

    def _shade(self, member: Member) -> None:
        """Which places that the worker has opened itself cannot be used, as others hold their cards."""
        used = {part.card: slot.index for slot in member.slots.values() if slot.taken for part in slot.what().cards}
        for slot in member.slots.values():
            if slot.fixed and slot.gpu is not None:
                holder = used.get(slot.gpu.uuid, slot.index)
                blocked = holder != slot.index or slot.gpu.uuid in member.kept_cards
                if blocked != slot.blocked:
                    slot.blocked = blocked
                    self.changed[member.id, slot.index] = None

    # -- come and go ---------------------------------------------------------------------------

    def load(self, leases: Iterable[tuple[WorkerId, str, int, AttemptRef, bool]], now: float) -> None:
        """At start: the leases that the store knows, each with a full `lost_after` from now."""
        for worker_id, name, slot, ref, started in leases:
            member = self._member(worker_id, name)
            member.last_contact = now
            self.changed[worker_id, slot] = None
            member.put(Lease(ref, slot, 0, None, started=started))

    def enrolled(self, workers: Iterable[WorkerId]) -> None:
        """At start: all that there are."""
        self._strangers.update(workers)

    def nobody_could(self, needs: Needs) -> str | None:
        """The sentence that says so; None: one could, or there is one of which nobody knows what it has."""
        return nobody_could(needs, self._machines) if not self._strangers else None

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
        own = set(opened_by_itself(hello))
        self._strangers.discard(worker_id)
        being_given = [slot for slot in member.slots.values() if slot.reserved and slot.holds is not None]
        member.slots = {info.index: slot_of(info, info.index in own) for info in hello.slots}
        member.cards = {info.gpu.uuid: info for info in shown_cards(hello.cards or ())}
        member.cpus, member.memory = hello.cpus, hello.memory
        member.packed = bool(being_given) or any(info.holds is not None for info in hello.slots)
        for slot in being_given:  # a claim is under way, and its jobs need what was opened for them
            again = member.slot(slot.index)
            again.holds, again.reserved, again.promised = slot.holds, slot.reserved, slot.promised
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
        if member.packed:
            self._shade(member)
        self._machines[name] = member.machine()
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
        if member.packed:
            self._shade(member)
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
        if member.packed:
            self._shade(member)
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
                if member.packed:
                    self._shade(member)

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


def _usable(cards: Mapping[str, CardInfo]) -> dict[str, tuple[int, bool]]:
    return {uuid: (info.outside, info.lost is not None) for uuid, info in cards.items()}
