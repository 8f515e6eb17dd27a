"""Which cards, bytes, CPUs and memory of a machine a job gets, and which idle places give way for it. Pure.

Server and worker both ask `giving_way`: the server before it opens a place, the worker before it starts a container
there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from hecaton.core.placement.holds import Holds, Part
from hecaton.core.placement.needs import Needs, nominal, shown, suits


class Card(msgspec.Struct, frozen=True):
    """`memory`: bytes, as the driver reports them. `outside`: bytes of it that somebody else than jobs has."""

    uuid: str
    name: str
    memory: int
    outside: int = 0
    lost: bool = False

    @property
    def room(self) -> int:
        return max(0, self.memory - self.outside)

    @property
    def whole(self) -> bool:
        """May it be given as a whole? Not where somebody else has a part of it that is worth mention."""
        return not self.lost and nominal(self.room) == nominal(self.memory)


class Spot(msgspec.Struct, frozen=True):
    """A place as the packing sees it. `busy`: it has jobs, and keeps what it holds; an idle one with nothing warm holds
    nothing. `fixed`: it is there from the start, and stays."""

    number: int
    holds: Holds
    busy: bool = False
    warm_key: str | None = None
    used_at: float = 0.0
    fixed: bool = False


class Machine(msgspec.Struct, frozen=True):
    """`cpus` and `memory`: what all jobs together may have; 0: it does not say, and nothing can be asked of them."""

    cards: tuple[Card, ...] = ()
    spots: tuple[Spot, ...] = ()
    cpus: float = 0.0
    memory: int = 0


class Fit(NamedTuple):
    """`number`: of the place; None: a new one is opened. `closes`: numbers of idle places whose containers go first.
    `badness`: the lowest first, among machines."""

    number: int | None
    holds: Holds
    closes: tuple[int, ...]
    badness: tuple[int, int, int]


class _Taken:
    """What has been given of a machine so far. Whole cards by their UUID, parts by theirs."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._room = {card.uuid: card.room for card in machine.cards}
        self.whole: set[str] = set()
        self.bytes: dict[str, int] = {}
        self.cpus, self.memory = 0.0, 0

    def takes(self, holds: Holds) -> bool:
        """False, and nothing is taken, if that is more than there is."""
        for part in holds.cards:
            if part.card in self.whole or (part.bytes == 0 and part.card in self.bytes):
                return False
            if part.bytes and self.bytes.get(part.card, 0) + part.bytes > self._room.get(part.card, 0):
                return False
        cpus, memory = self.cpus + holds.cpus, self.memory + holds.memory
        if (holds.cpus and cpus > self._machine.cpus) or (holds.memory and memory > self._machine.memory):
            return False
        self.add(holds)
        return True

    def add(self, holds: Holds) -> None:
        """Also where that is more than there is: it has been given, and the machine is another one since."""
        for part in holds.cards:
            if part.bytes == 0:
                self.whole.add(part.card)
            else:
                self.bytes[part.card] = self.bytes.get(part.card, 0) + part.bytes
        self.cpus += holds.cpus
        self.memory += holds.memory

    def left(self, card: Card) -> int:
        return 0 if card.uuid in self.whole else card.room - self.bytes.get(card.uuid, 0)

    def untouched(self, card: Card) -> bool:
        return card.uuid not in self.whole and card.uuid not in self.bytes


def giving_way(machine: Machine, holds: Holds, but: int | None = None) -> tuple[int, ...] | None:
    """Numbers of the idle places that have to give way before a place (of the number `but`, if it is there) holds this;
    those used last stay longest. None: not even then is there room beside those that are busy."""
    taken = _Taken(machine)
    for spot in machine.spots:
        if spot.busy and spot.number != but:
            taken.add(spot.holds)
    if not taken.takes(holds):
        return None
    idle = [spot for spot in machine.spots if not spot.busy and spot.warm_key is not None and spot.number != but]
    idle.sort(key=lambda spot: -spot.used_at)
    return tuple(spot.number for spot in idle if not taken.takes(spot.holds))


def fit(needs: Needs, machine: Machine, warm_key: str | None = None) -> Fit | None:
    """The best place for it on this machine: where its container is warm, else where the fewest warm ones go, else
    where the least is left over. None: there is no room now."""
    warm = _warm(needs, machine, warm_key) if warm_key is not None else None
    if warm is not None:
        return warm
    taken = _Taken(machine)
    for spot in machine.spots:
        if spot.busy:
            taken.add(spot.holds)
    best: Fit | None = None
    for parts, left in _choices(needs, machine, taken):
        holds = Holds(parts, cpus_wanted(needs, machine), needs.memory)
        number = _fixed(machine, holds)
        if number is None and not machine.cards:
            return None  # such a machine has so many places, and all are busy
        closes = giving_way(machine, holds, number)
        if closes is None:
            continue
        here = next((spot for spot in machine.spots if spot.number == number), None)
        gone = len(closes) + (here is not None and here.warm_key is not None)
        found = Fit(number, holds, closes, (1, gone, left))
        if best is None or found.badness < best.badness:
            best = found
    return best


def _warm(needs: Needs, machine: Machine, warm_key: str) -> Fit | None:
    spots = [spot for spot in machine.spots if not spot.busy and spot.warm_key == warm_key]
    for spot in sorted(spots, key=lambda spot: -spot.used_at):
        if holds_enough(needs, machine, spot.holds):
            closes = giving_way(machine, spot.holds, spot.number)
            if closes is not None:
                return Fit(spot.number, spot.holds, closes, (0, len(closes), 0))
    return None


def holds_enough(needs: Needs, machine: Machine, holds: Holds) -> bool:
    """Is a place that holds this one for such a job, neither less nor more?"""
    by_uuid = {card.uuid: card for card in machine.cards}
    cards = [by_uuid.get(part.card) for part in holds.cards]
    if any(card is None or card.lost for card in cards):
        return False
    if (holds.cpus, holds.memory) != (cpus_wanted(needs, machine), needs.memory):
        return False
    if any(card is not None and not suits(needs.cards, card.name, card.memory) for card in cards):
        return False
    if needs.part:
        return len(cards) == 1 and holds.cards[0].bytes == part_of(needs.part, by_uuid[holds.cards[0].card])
    return len(cards) == cards_wanted(needs, machine) and not any(part.bytes for part in holds.cards)


def cards_wanted(needs: Needs, machine: Machine) -> int:
    if needs.count is not None:
        return needs.count
    return 1 if needs.part or machine.cards else 0


def cpus_wanted(needs: Needs, machine: Machine) -> float:
    """On a machine with cards, a place without one takes a CPU where nothing else is said: so many there are."""
    return needs.cpus or (1.0 if machine.cards and cards_wanted(needs, machine) == 0 else 0.0)


def part_of(part: int, card: Card) -> int:
    """Bytes that it gets of this card: whoever asks for all that is printed on the box gets all that is there."""
    return min(part, card.memory) if part <= nominal(card.memory) else part


def _choices(needs: Needs, machine: Machine, taken: _Taken) -> Iterable[tuple[tuple[Part, ...], int]]:
    """Cards that would do and are free beside what is busy, and how many MiB would be left over of them."""
    count = cards_wanted(needs, machine)
    if count == 0:
        return [((), 0)]
    cards = [card for card in machine.cards if not card.lost and suits(needs.cards, card.name, card.memory)]
    if needs.part:
        parts = [(card, part_of(needs.part, card)) for card in cards]
        return [
            ((Part(card.uuid, size),), (taken.left(card) - size) >> 20)
            for card, size in parts
            if taken.left(card) >= size
        ]
    free = [card for card in cards if card.whole and taken.untouched(card)]
    if len(free) < count:
        return []
    if count == 1:
        return [((Part(card.uuid),), card.memory >> 20) for card in free]
    idle = [spot for spot in machine.spots if not spot.busy and spot.warm_key is not None]
    warm = {part.card for spot in idle for part in spot.holds.cards}
    chosen = sorted(free, key=lambda card: (card.memory, card.uuid in warm))[:count]
    return [(tuple(Part(card.uuid) for card in chosen), sum(card.memory for card in chosen) >> 20)]


def _fixed(machine: Machine, holds: Holds) -> int | None:
    """The place that is there for just these cards, if it is idle: of several the one with nothing warm."""
    spots = [spot for spot in machine.spots if spot.fixed and not spot.busy and spot.holds.cards == holds.cards]
    if any(part.bytes for part in holds.cards) or (machine.cards and not holds.cards) or not spots:
        return None
    return min(spots, key=lambda spot: (spot.warm_key is not None, spot.used_at, spot.number)).number


# -- in words --------------------------------------------------------------------------------------


def never(needs: Needs, name: str, machine: Machine) -> str | None:
    """Why nothing will ever run there that needs this, as what follows the machine's name; None: it could."""
    if (needs.on and name not in needs.on) or name in needs.off:
        return "is not asked for (--on)"
    count = cards_wanted(needs, machine)
    if count and not machine.cards:
        return "has no card"
    able = [card for card in machine.cards if suits(needs.cards, card.name, card.memory)]
    if count and not able:
        return _unfit(needs, machine)
    largest = max((card.memory for card in able), default=0)
    if needs.part and nominal(largest) < needs.part:
        return f"is too small for {shown(needs.part)}: it has {cards_shown(machine)}"
    if not needs.part and len(able) < count:
        return f"has {len(able)} of {count} such cards: it has {cards_shown(machine)}"
    for asked, has, what in (
        (cpus_wanted(needs, machine), machine.cpus, "CPUs"),
        (needs.memory, machine.memory, "memory"),
    ):
        if asked > has:
            said = f"{has:g} CPUs" if what == "CPUs" else f"{shown(int(has))} of memory"
            return f"has {said} for jobs" if has else f"does not say how much of its {what} jobs may have"
    return None


def _unfit(needs: Needs, machine: Machine) -> str:
    cards = needs.cards
    sizes = [nominal(card.memory) for card in machine.cards]
    if cards.low and max(sizes) < cards.low:
        return f"is too small for {shown(cards.low)}: it has {cards_shown(machine)}"
    if cards.high and min(sizes) > cards.high:
        return f"is larger than {shown(cards.high)}: it has {cards_shown(machine)}"
    return f"has no such card: it has {cards_shown(machine)}"


def not_now(needs: Needs, machine: Machine) -> str | None:
    """Which one condition is not met there now, with figures; None: there is room. It could run there (`never`)."""
    if fit(needs, machine) is not None:
        return None
    taken = _Taken(machine)
    for spot in machine.spots:
        if spot.busy:
            taken.add(spot.holds)
    count = cards_wanted(needs, machine)
    able = [card for card in machine.cards if suits(needs.cards, card.name, card.memory)]
    if needs.part:
        best = max((card for card in able if not card.lost), key=taken.left, default=None)
        free = 0 if best is None else max(0, taken.left(best))
        if best is None or free < part_of(needs.part, best):
            return f"has at most {shown(free)} free on one card, of {shown(needs.part)}"
    elif count:
        free = sum(1 for card in able if card.whole and taken.untouched(card))
        if free < count:
            outside = sum(1 for card in able if not card.lost and not card.whole)
            more = f"; {outside} used outside Hecaton" if outside else ""
            return f"has {free} of {count} cards free{more}"
    if (cpus := cpus_wanted(needs, machine)) and cpus > machine.cpus - taken.cpus:
        return f"has {machine.cpus - taken.cpus:g} of {machine.cpus:g} CPUs free, of {cpus:g}"
    if needs.memory and needs.memory > machine.memory - taken.memory:
        return f"has {shown(max(0, machine.memory - taken.memory))} of memory free, of {shown(needs.memory)}"
    return "is busy: all of its places run other jobs"


def cards_shown(machine: Machine) -> str:
    """'2 x Tesla T4 16 GB, NVIDIA A100 80 GB'."""
    kinds: dict[str, int] = {}
    for card in machine.cards:
        size = shown(nominal(card.memory))
        kind = card.name if size.replace(" ", "") in card.name.replace(" ", "") else f"{card.name} {size}"
        kinds[kind] = kinds.get(kind, 0) + 1
    return ", ".join(kind if number == 1 else f"{number} x {kind}" for kind, number in kinds.items())


def nobody_could(needs: Needs, machines: Mapping[str, Machine]) -> str | None:
    """The sentence that comes first where no machine that was ever here could run it; None: one could, or there has
    been none yet."""
    reasons = {name: never(needs, name, machine) for name, machine in machines.items()}
    if not machines or None in reasons.values():
        return None
    wanted = needs.part or needs.cards.low
    sized = [(nominal(card.memory), name) for name, machine in machines.items() for card in machine.cards]
    if wanted and sized and max(sized)[0] < wanted:
        size, name = max(sized)
        return f"no machine here has {shown(wanted)}; the largest is {name}, {shown(size)}"
    return f"no machine here has {needs}: " + _summary(reasons)


def _summary(reasons: Mapping[str, str | None]) -> str:
    some: Sequence[str] = [f"{name} {why}" for name, why in sorted(reasons.items())]
    return "; ".join(some[:3]) + ("; and others" if len(some) > 3 else "")
