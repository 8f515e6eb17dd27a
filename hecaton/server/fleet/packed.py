"""Lanes whose jobs need more than a place has anyway, or another one: places are opened for them. Memory only.

Decided by `core.placement.packing.fit`, machine by machine. Who found no room is not looked at again until something
has changed there.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

from hecaton.core.errors import BadRequest
from hecaton.core.model import Image, WorkerId, WorkerStatus
from hecaton.core.option_kinds import Changes
from hecaton.core.options import FOLDER, NOTHING_ASKED, OPTIONS, Asks, given
from hecaton.core.placement.matching import Lane, Want, unable
from hecaton.core.placement.needs import Needs, needs_of, suits
from hecaton.core.placement.packing import Fit, Machine, cards_wanted, fit, holds_enough, never, not_now
from hecaton.server.fleet.lanes import LaneState, defaults_of
from hecaton.server.fleet.members import Fleet
from hecaton.server.fleet.places.leases import Member, Place

ENOUGH = 64
"""Machines with room that are compared: the best of so many is hardly worse than the best of all."""

Give = Callable[[Want, WorkerId, int, int], None]


class Ranking(NamedTuple):
    """Who comes first, as `core.placement.matching` has it: who has the fewest places, then who waits longest since he
    was served. `max_running`: places for one owner. `least`: only who has no more than that; None: all, but nothing is
    kept free for them."""

    running: Mapping[int, int]
    served: Mapping[int, float]
    max_running: int | None
    least: float | None

    @property
    def below(self) -> float:
        """Who has fewer has a turn."""
        most = math.inf if self.max_running is None else self.max_running
        return most if self.least is None else min(most, self.least + 1)

    def rank(self, want: Want) -> tuple[float, ...]:
        since = max(want.since, self.served.get(want.owner, 0.0))
        return self.running.get(want.owner, 0), since, want.owner, -want.priority, want.since


def fewest(waiting: Iterable[LaneState], running: Mapping[int, int]) -> float:
    """Places that work for him of the owners of these lanes who has the fewest."""
    return min((running.get(state.lane.owner_id, 0) for state in waiting), default=math.inf)


def needs_asked(lane: Lane, image: Image | None) -> Needs | None:
    """What its jobs ask for, and its image where they ask for nothing; None: nothing that a place does not have."""
    defaults = defaults_of(image)
    if not lane.asks and defaults is NOTHING_ASKED:
        return None
    own = tuple((o.name, str(value)) for o, value in given(defaults) if Changes.PLACEMENT in o.changes)
    return _needs(lane.asks, own)


@lru_cache(4096)
def _needs(asks: Asks, defaults: Asks) -> Needs | None:
    placing = {name: text for name, text in asks if name != FOLDER and Changes.PLACEMENT in OPTIONS[name].changes}
    try:
        return needs_of({**dict(defaults), **placing})
    except BadRequest:  # they contradict each other: what the job says is meant
        return needs_of(placing)


def why_not(needs: Needs, member: Member) -> str:
    """Which one condition this worker does not meet, in words; it is in service."""
    machine = member.machine()
    why = never(needs, member.name, machine) or not_now(needs, machine)
    if why is None and member.kept_for is not None:
        return "is kept free for a job that needs more than is free there now"
    return why or "has room: the job goes there next"


class PackedLanes:
    """On the server's event loop; nothing awaits. `_maybe`: by what is needed, the workers that may have room.
    `_cannot`: by lane, those of them that cannot run its jobs for another reason, which holds for no other lane."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._lanes: dict[int, tuple[LaneState, Needs]] = {}
        self._maybe: dict[Needs, set[WorkerId]] = {}
        self._cannot: dict[int, set[WorkerId]] = {}
        self._groups: Counter[Needs] = Counter()  # lanes that need the same
        self._kept: tuple[int, WorkerId] | None = None
        self._machines: dict[WorkerId, Machine] = {}

    def __bool__(self) -> bool:
        return bool(self._lanes)

    def add(self, state: LaneState, needs: Needs) -> None:
        known = self._lanes.get(state.key)
        if known is not None and known[1] != needs:  # its image has other defaults now
            self.remove(state)
        if state.key not in self._lanes:
            self._groups[needs] += 1
            self._cannot[state.key] = set()
        self._lanes[state.key] = state, needs
        if needs not in self._maybe:
            self._maybe[needs] = set(self._fleet.members)

    def remove(self, state: LaneState) -> None:
        """Also one that is not among them."""
        known = self._lanes.pop(state.key, None)
        if known is not None:
            del self._cannot[state.key]
            self._groups[known[1]] -= 1
            if not self._groups[known[1]]:
                del self._groups[known[1]], self._maybe[known[1]]
            self._let_go(state.key)

    def stirred(self, places: Iterable[Place]) -> None:
        """Something has changed there."""
        # hot: benchmarks/throughput.py - mostly no such lane waits
        if not self._lanes:
            self._machines.clear()
            return
        for worker in {worker for worker, _ in places}:
            self._machines.pop(worker, None)
            for maybe in self._maybe.values():
                maybe.add(worker)
            for cannot in self._cannot.values():
                cannot.discard(worker)

    def candidates(self, without: frozenset[int]) -> list[LaneState]:
        """Lanes for which there may be room, but not those of these owners, for whom nothing is kept free either."""
        kept = self._lanes.get(self._kept[0]) if self._kept is not None else None
        if kept is not None and kept[0].lane.owner_id in without:
            self._let_go(kept[0].key)
        found = [state for state, needs in self._lanes.values() if not self._maybe[needs] <= self._cannot[state.key]]
        return [state for state in found if state.lane.owner_id not in without]

    def place(self, wants: Mapping[int, Want], order: Ranking, give: Give) -> None:
        """One after the other to whose turn it is, which may be another's with what is given. For the first that gets
        nothing a machine is kept free."""
        turns = [(order.rank(want), key, want.count) for key, want in wants.items()]
        heapq.heapify(turns)
        while turns:
            known, key, left = heapq.heappop(turns)
            want = wants[key]
            if (now := order.rank(want)) != known:
                heapq.heappush(turns, (now, key, left))
                continue
            if known[0] >= order.below or left <= 0:
                if order.least is not None:
                    self._let_go(key)
                continue
            needs = self._lanes[key][1]
            if self._open(want, needs, give):
                if left > 1:
                    heapq.heappush(turns, (known, key, left - 1))
            elif not self._beside(want, needs, left, give) and order.least is not None:
                self._keep(want, needs)

    def _open(self, want: Want, needs: Needs, give: Give) -> bool:
        """For one job."""
        best: tuple[tuple[object, ...], Member, Fit] | None = None
        maybe, cannot, looked = self._maybe[needs], self._cannot[want.lane], 0
        for worker in sorted(maybe - cannot):
            member = self._fleet.members.get(worker)
            if member is None or not self._has(member, needs):
                maybe.discard(worker)
            elif unable(want, member.ability) is not None:
                cannot.add(worker)
            elif worker not in want.barred and member.kept_for in (None, want.lane):
                found = fit(needs, self._machine(member), want.warm_key)
                if found is None:
                    maybe.discard(worker)
                    continue
                badness = (worker in want.shunned, *found.badness, member.number)
                if best is None or badness < best[0]:
                    best = badness, member, found
                looked += 1
                if looked == ENOUGH:
                    break
        if best is None:
            return False
        _, member, found = best
        number = self._fleet.open(member.id, found)
        self._machines.pop(member.id, None)
        if number is None:
            maybe.discard(member.id)
            return False
        self._let_go(want.lane)
        give(want, member.id, number, 1)
        self._machines.pop(member.id, None)
        return True

    def _has(self, member: Member, needs: Needs) -> bool:
        """Once it is free."""
        online = member.status is WorkerStatus.ONLINE
        return online and never(needs, member.name, self._machine(member)) is None

    def _machine(self, member: Member) -> Machine:
        machine = self._machines.get(member.id)
        if machine is None:
            machine = self._machines[member.id] = member.machine()
        return machine

    def _beside(self, want: Want, needs: Needs, left: int, give: Give) -> bool:
        """Jobs wait beside one that runs where the container is the same."""
        if want.warm_key is None:
            return False
        before = left
        for member in self._fleet.members.values():
            if member.status is not WorkerStatus.ONLINE or member.kept_for not in (None, want.lane):
                continue
            for slot in [*member.slots.values()]:
                alike = 0 < slot.taken < slot.depth and slot.promised == want.warm_key
                if alike and left > 0 and holds_enough(needs, self._machine(member), slot.what()):
                    count = min(slot.depth - slot.taken, left)
                    give(want, member.id, slot.index, count)
                    self._machines.pop(member.id, None)
                    left -= count
        return left < before

    def _keep(self, want: Want, needs: Needs) -> None:
        """What becomes free on one machine is for this, until it is enough: else small jobs would always be first."""
        if self._kept is not None:
            member = self._fleet.members.get(self._kept[1])
            if self._kept[0] in self._lanes and member is not None and member.status is WorkerStatus.ONLINE:
                return
            self._let_go(self._kept[0])
        able = [
            member
            for member in self._fleet.members.values()
            if member.id not in want.barred and unable(want, member.ability) is None and self._has(member, needs)
        ]
        if able:
            chosen = min(able, key=lambda one: (sum(slot.taken for slot in one.slots.values()), one.number))
            self._kept = want.lane, chosen.id
            machine = self._machine(chosen) if cards_wanted(needs, self._machine(chosen)) else Machine()
            able_cards = [card for card in machine.cards if suits(needs.cards, card.name, card.memory)]
            self._fleet.keep(chosen.id, want.lane, frozenset(card.uuid for card in able_cards))

    def _let_go(self, lane: int) -> None:
        if self._kept is not None and self._kept[0] == lane:
            self._fleet.keep(self._kept[1], None)
            self._kept = None
