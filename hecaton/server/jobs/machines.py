"""A machine with its cards, what they do, and who works there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from hecaton.core.model import JobId, WorkerRecord
from hecaton.server.fleet.places.leases import Member, SlotState
from hecaton.server.jobs.views import Seen, worker_view
from hecaton.server.jobs.waits import holder
from hecaton.server.resources import Resources
from hecaton.wire import api

_Holders = Mapping[JobId, api.Holder]


async def machine_view(
    resources: Resources, record: WorkerRecord, member: Member | None, last_seen: float, seen: Seen | None
) -> api.MachineView:
    """Everybody may know who works on which card. `seen`: as of `worker_view`."""
    shown = msgspec.structs.asdict(worker_view(record, member, last_seen, seen))
    if member is None:
        return api.MachineView(**shown)
    at_work = [(slot, next(iter(slot.held))) for slot in member.slots.values() if slot.held]
    found = await resources.database.read(lambda store: [store.job(job) for _, job in at_work])
    holders = {job.id: holder(job) for job in found if job is not None}
    without = tuple(holders[job] for slot, job in at_work if not slot.what().uuids and job in holders)
    return api.MachineView(**shown, cards=_cards(member, at_work, holders), without_card=without)


def _cards(member: Member, at_work: Sequence[tuple[SlotState, JobId]], holders: _Holders) -> tuple[api.CardView, ...]:
    """In the order of its slots; a worker of an older release names the cards, and says no more of them."""
    known = {slot.gpu.uuid: slot.gpu for slot in member.slots.values() if slot.gpu is not None}
    known |= {uuid: info.gpu for uuid, info in member.cards.items()}
    cards = []
    for uuid, gpu in known.items():
        jobs = tuple(holders[job] for slot, job in at_work if uuid in slot.what().uuids and job in holders)
        info = member.cards.get(uuid)
        if info is None:
            cards.append(api.CardView(gpu, jobs=jobs))
        else:
            said = (info.used, info.outside, info.holder, info.lost, info.use, info.temperature, info.power)
            cards.append(api.CardView(gpu, *said, jobs=jobs))
    return tuple(cards)


__all__ = ["machine_view"]
