"""A worker's slots and the leases on them, as the server remembers them. No I/O; times are monotonic seconds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import msgspec

from hecaton.core.model import AttemptRef, Gpu, JobId, WorkerId, WorkerStatus
from hecaton.core.placement.holds import Holds, Part
from hecaton.core.placement.matching import ANYTHING, Ability, Host, Slot
from hecaton.core.placement.packing import Card, Machine, Spot
from hecaton.server.fleet.checks import MAX_NOTE
from hecaton.wire.channel import CardInfo, SlotInfo, ToWorker


class WorkerLink(Protocol):
    """The way to one connected worker. Never blocks; messages of one loop turn share a frame."""

    def send(self, message: ToWorker) -> None: ...
    def send_along(self, message: ToWorker) -> None:
        """With the next message, or in a moment: nobody waits for it."""

    def close(self, code: int, reason: str) -> None: ...


MAX_HELD = 4096
"""Jobs that one worker has at a time, shared by its slots: 512 for each of eight cards whose jobs take no time."""

Place = tuple[WorkerId, int]
"""A slot, by its worker and index."""


class Lease(msgspec.Struct):
    ref: AttemptRef
    slot: int
    lane: int
    warm_key: str | None
    owner: int | None = None  # None: from before the start of this server
    started: bool = False
    cold_since: float | None = None  # when it was given to a slot that had no warm container for it
    revoking: bool = False
    back: bool = False  # its worker returned with it while its end was being stored


class SlotState(msgspec.Struct):
    index: int
    gpu: Gpu | None = None
    warm_key: str | None = None
    image: str | None = None
    version: str | None = None  # of the image, as its container runs it
    lost: str | None = None  # why its card can be used no more
    reserved: int = 0  # planned, not yet committed
    promised: str | None = None  # warm key of what was planned last
    used_at: float = 0.0
    depth: int = 1
    held: dict[JobId, Lease] = {}
    holds: Holds | None = None  # as a job asked for it; None: its card, as the worker opened it
    fixed: bool = True  # opened by the worker, for as long as it is connected
    blocked: bool = False  # what it holds is another place's now, or kept for a job that needs more

    @property
    def taken(self) -> int:
        """Jobs that it has, or is about to get."""
        return len(self.held) + self.reserved

    @property
    def shown(self) -> bool:
        """One that was opened for jobs is nothing once they and their container are gone."""
        return self.fixed or self.taken > 0 or self.warm_key is not None

    def what(self) -> Holds:
        """What it holds, or would if it had something to do."""
        if self.holds is not None:
            return self.holds
        return Holds() if self.gpu is None else Holds((Part(self.gpu.uuid),))

    def view(self) -> Slot:
        taken = len(self.held) + self.reserved
        if self.lost is not None or self.blocked:
            full = max(1, taken)
            return Slot(self.index, full, full)
        return Slot(self.index, taken, self.depth, self.promised if taken else self.warm_key, self.used_at)


class OutOfService(msgspec.Struct, frozen=True):
    """Why a worker gets nothing new although it is there; nothing of this: it is in service. `until`: end of the
    quarantine."""

    drained: bool = False
    quarantine: str | None = None
    until: float = 0.0


IN_SERVICE = OutOfService()


class Member(msgspec.Struct):
    """A worker that is connected or still holds leases."""

    id: WorkerId
    name: str
    number: int  # rises with each that comes
    link: WorkerLink | None = None
    last_contact: float = 0.0
    suspect: bool = False
    draining: bool = False  # as the worker says
    out_of_service: OutOfService = IN_SERVICE
    boot_id: str = ""
    runtime: str | None = None
    version: str | None = None
    protocol: int = 0
    ability: Ability = ANYTHING
    cards: dict[str, CardInfo] = {}  # as the worker sees them now, by UUID; it may say nothing of them
    cpus: float = 0.0  # what its jobs may have; 0: it does not say
    memory: int = 0
    packed: bool = False  # places have been opened that may be in the way of others
    kept_for: int | None = None  # the lane that waits for more of it than is free
    kept_cards: frozenset[str] = frozenset()  # those that it waits for
    slots: dict[int, SlotState] = {}
    leased: dict[AttemptRef, Lease] = {}  # what the slots hold
    storing: dict[AttemptRef, Lease] = {}  # their place is free, their end is on its way into the store

    @property
    def status(self) -> WorkerStatus:
        if self.link is None:
            return WorkerStatus.OFFLINE
        if self.draining or self.out_of_service.drained:
            return WorkerStatus.DRAINING
        if self.out_of_service.quarantine is not None:
            return WorkerStatus.QUARANTINED
        return WorkerStatus.SUSPECT if self.suspect else WorkerStatus.ONLINE

    def slot(self, index: int) -> SlotState:
        """One of which its worker has said nothing is no place for new work."""
        return self.slots.setdefault(index, SlotState(index, fixed=False))

    def host(self, slots: tuple[Slot, ...] | None = None) -> Host:
        """As the matching sees it: with all the slots that it has opened itself, or with these."""
        if slots is None:
            slots = tuple(self.slots[index].view() for index in sorted(self.slots) if self.slots[index].fixed)
        kind, why, leaves = self.runtime or "unknown", self.out_of_service, self.draining
        return Host(self.id, self.name, self.status, slots, self.ability, why.quarantine, kind, leaves)

    def machine(self) -> Machine:
        """As the packing sees it."""
        cards, spots = [], []
        for slot in self.slots.values():
            busy = slot.taken > 0
            warm = slot.promised if busy else slot.warm_key
            spots.append(Spot(slot.index, slot.what(), busy, warm, slot.used_at, slot.fixed))
            if slot.fixed and slot.gpu is not None:
                gpu, info = slot.gpu, self.cards.get(slot.gpu.uuid)
                outside = 0 if info is None else info.outside
                lost = slot.lost is not None or (info is not None and info.lost is not None)
                cards.append(Card(gpu.uuid, gpu.name, gpu.memory, outside, lost))
        return Machine(tuple(cards), tuple(spots), self.cpus, self.memory)

    def leases(self) -> Iterator[Lease]:
        for slot in self.slots.values():
            yield from slot.held.values()

    def all_leases(self) -> Iterator[Lease]:
        """Those too whose end is on its way into the store."""
        yield from self.leases()
        yield from self.storing.values()

    def by_start(self) -> tuple[tuple[AttemptRef, ...], tuple[AttemptRef, ...]]:
        """What may have begun, and what certainly waits: the first of a slot begins before its news arrives."""
        begun, waiting = list[AttemptRef](), list[AttemptRef]()
        for slot in self.slots.values():
            for position, lease in enumerate(slot.held.values()):
                (begun if lease.started or position == 0 else waiting).append(lease.ref)
        return tuple(begun), tuple(waiting)

    def before(self, job: JobId) -> int:
        """Jobs that were given to the same slot earlier."""
        slot = next((slot for slot in self.slots.values() if job in slot.held), None)
        return list(slot.held).index(job) if slot else 0

    def put(self, lease: Lease) -> None:
        held = self.slot(lease.slot).held
        if (before := held.get(lease.ref.job)) is not None:
            del self.leased[before.ref]
        held[lease.ref.job] = self.leased[lease.ref] = lease

    def take(self, lease: Lease) -> None:
        del self.slot(lease.slot).held[lease.ref.job], self.leased[lease.ref]

    def lease(self, ref: AttemptRef) -> Lease | None:
        return self.leased.get(ref)


def slot_of(info: SlotInfo, fixed: bool) -> SlotState:
    lost = info.lost[:MAX_NOTE] if info.lost is not None else None
    return SlotState(info.index, info.gpu, info.warm_key, info.image, lost=lost, holds=info.holds, fixed=fixed)
