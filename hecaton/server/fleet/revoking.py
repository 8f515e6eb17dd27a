"""Which given jobs are asked back, of those that have not started. Memory only."""

from __future__ import annotations

from collections.abc import Callable, Container

from hecaton.core.model import AttemptRef, WorkerId
from hecaton.server.fleet.members import Fleet
from hecaton.server.fleet.places.leases import Lease, Member, SlotState
from hecaton.server.fleet.places.openings import Openings
from hecaton.wire.channel import Revoke


def ask_back(fleet: Fleet, openings: Openings, would_run: Callable[[int], bool], depth: Callable[[int], int]) -> int:
    """As `Scheduler.revoke`, which says of a lane whether an idle slot would take its jobs, and how many."""
    # hot: benchmarks/growth.py
    room: float = openings.idle()
    asked: dict[WorkerId, list[AttemptRef]] = {}
    runs: dict[int, bool] = {}
    asked_back = ((member, lease) for member, slot in openings.stacked() for lease in half(behind(slot)))
    for member, lease in asked_back if room else ():
        if lease.lane not in runs:
            runs[lease.lane] = would_run(lease.lane)
        if runs[lease.lane]:
            lease.revoking = True
            asked.setdefault(member.id, []).append(lease.ref)
            room -= 1 / depth(lease.lane)
        if room <= 0:
            break
    for worker, refs in asked.items():
        link = fleet.members[worker].link
        if link is not None:
            link.send(Revoke(tuple(refs)))
    return sum(len(refs) for refs in asked.values())


def withdraw(member: Member, owners: Container[int] | None = None) -> None:
    """Ask it for all (of these owners) that has not started: the worker is to run nothing new of it."""
    waiting = unstarted(member, owners)
    for lease in waiting:
        lease.revoking = True
    if waiting and member.link is not None:
        member.link.send(Revoke(tuple(lease.ref for lease in waiting)))


def behind(slot: SlotState) -> list[Lease]:
    """What waits there beside another job, the last first. The first of a slot is about to start, if none has."""
    waiting = [lease for lease in slot.held.values() if not lease.started and not lease.revoking]
    first = 0 if any(lease.started for lease in slot.held.values()) else 1
    return waiting[first:][::-1]


def half(leases: list[Lease]) -> list[Lease]:
    return leases[: (len(leases) + 1) // 2]


def is_cold(member: Member, lease: Lease) -> bool:
    """Whether a container has to be started for it: none on its slot would do, and it is the first there."""
    slot = member.slots[lease.slot]
    return slot.warm_key != lease.warm_key and len(slot.held) == 1


def unstarted(member: Member, owners: Container[int] | None) -> list[Lease]:
    """All of the member (of these owners) that may yet be asked for."""
    leases = (lease for lease in member.leases() if not lease.started and not lease.revoking)
    return [lease for lease in leases if owners is None or lease.owner in owners]
