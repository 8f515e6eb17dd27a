"""The places of this machine: those that it opens itself, one for each card or a number without cards, and those that
an assignment opens. What is given to one place is given to no other, as long as a container lives there.
"""

from __future__ import annotations

from collections.abc import Iterable

from hecaton.core.model import Gpu
from hecaton.core.placement.holds import Holds, Part
from hecaton.core.placement.packing import Card, Machine, Spot, giving_way
from hecaton.wire.bounds import MAX_SLOTS
from hecaton.wire.channel import Assignment, CardInfo
from hecaton.worker.brain.settings import WorkerSettings
from hecaton.worker.brain.slots import NOTHING, Phase, WorkerSlot

CARDS_CAME = "this machine has cards now: its jobs go to these"
"""Why places without a card take nothing more."""


class Places:
    """`by_number`: the number travels as `slot`. `gpus`: all cards, by UUID; `lost`: why some can be used no more.
    `cpus` and `memory`: what jobs may have, all together. `waiting`: numbers of places with a job and no room for its
    container yet, the first came first. `opened`: by assignments, to be closed when they are empty."""

    def __init__(self, gpus: tuple[Gpu, ...], settings: WorkerSettings) -> None:
        cards: tuple[Gpu | None, ...] = gpus or (None,) * settings.slots
        self.by_number = {number: WorkerSlot(number, gpu, _own(gpu)) for number, gpu in enumerate(cards)}
        self.gpus = {gpu.uuid: gpu for gpu in gpus}
        self.lost: dict[str, str] = {}
        self.waiting: dict[int, None] = {}
        self.opened: set[int] = set()
        self.cpus, self.memory = settings.cpus, settings.memory

    def holds_of(self, assignment: Assignment) -> Holds | None:
        """What its place holds. None: there is no such place, and none can be opened."""
        slot, holds = self.by_number.get(assignment.slot), assignment.holds
        if slot is not None and slot.own is not None and slot.lost is not None:
            return None
        if holds is None or (slot is not None and holds == slot.own):
            return None if slot is None else slot.own
        able, asked = self.gpus.keys() - self.lost.keys(), set(holds.uuids)
        if assignment.slot >= MAX_SLOTS or not asked <= able or len(asked) < len(holds.cards):
            return None
        return None if giving_way(self._machine(()), holds) is None else holds

    def without_card(self) -> list[WorkerSlot]:
        """The places of a machine that has no card, as far as it has opened them itself and they are used."""
        if self.gpus:
            return []
        return [slot for slot in self.by_number.values() if slot.own == NOTHING and slot.lost is None]

    def add(self, gpus: tuple[Gpu, ...]) -> None:
        """Cards that came: a place for each."""
        for number, gpu in enumerate(gpus, max(self.by_number, default=-1) + 1):
            self.by_number[number] = WorkerSlot(number, gpu, _own(gpu))
            self.gpus[gpu.uuid] = gpu

    def open(self, number: int) -> WorkerSlot:
        """The place of this number, which is there from now on."""
        if number not in self.by_number:
            self.by_number[number] = WorkerSlot(number, None, None)
            self.opened.add(number)
        return self.by_number[number]

    def close_empty(self) -> None:
        """Of those that assignments have opened."""
        for number in [one for one in self.opened if self.by_number[one].empty]:
            self.opened.discard(number)
            del self.by_number[number]

    def in_the_way(self, slot: WorkerSlot, holds: Holds) -> list[WorkerSlot] | None:
        """The places without jobs whose containers have to go before one that holds this starts here. None: not even
        then is there room, as long as the others work."""
        others = [other for other in self.by_number.values() if other.container is not None and other is not slot]
        numbers = giving_way(self._machine(others), holds)
        return None if numbers is None else [self.by_number[number] for number in numbers]

    def _machine(self, taken: Iterable[WorkerSlot]) -> Machine:
        cards = tuple(Card(gpu.uuid, gpu.name, gpu.memory) for gpu in self.gpus.values())
        spots = tuple(spot for slot in taken if (spot := _spot(slot)) is not None)
        return Machine(cards, spots, self.cpus, self.memory)

    def infos(self) -> tuple[CardInfo, ...]:
        """For Hello."""
        return tuple(CardInfo(gpu, lost=self.lost.get(uuid)) for uuid, gpu in self.gpus.items())

    def gpus_of(self, holds: Holds) -> tuple[Gpu, ...]:
        return tuple(self.gpus[uuid] for uuid in holds.uuids)


def _own(gpu: Gpu | None) -> Holds:
    return NOTHING if gpu is None else Holds((Part(gpu.uuid),))


def _spot(slot: WorkerSlot) -> Spot | None:
    """What is being stopped goes first: it needs no further order."""
    container = slot.container
    if container is None:
        return None
    used_at = float("-inf") if container.phase is Phase.STOPPING else container.since
    return Spot(
        slot.index,
        container.holds,
        busy=any(job.ending is None for job in slot.jobs),
        warm_key=container.id,
        used_at=used_at,
    )
