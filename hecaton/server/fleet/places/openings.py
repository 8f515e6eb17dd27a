"""Which slots have room, kept in the orders in which the matching looks at them. Memory only.

`core.placement.matching.place` fills no more slots than jobs wait, and looks at them in a few orders. So the first of
each order, as many as there are jobs, are enough for the decision that it would make over all of them: it costs what it
hands out, and not what is connected. It does so for each kind of workers (`kinds`), not for each of the workers that
differ.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable, Collection, Container, Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

from hecaton.core.model import WorkerId, WorkerStatus
from hecaton.core.placement.matching import ANYTHING, Ability, Host, Slot, Want
from hecaton.server.fleet.members import Fleet
from hecaton.server.fleet.places.kinds import NO_KIND, HostKind, HostKinds, Work, doable, work_of
from hecaton.server.fleet.places.leases import Member, Place, SlotState

TIDY = 1000
"""Decisions after which what nobody asks for any more stops telling workers apart."""


class _Opening(NamedTuple):
    """Sorts as `place` sorts: the least recently used first, then by member and index."""

    used_at: float
    member_number: int
    slot_index: int
    slot: Slot
    member: Member


class _Indexed(NamedTuple):
    """What is known of a slot, so that it can be taken out again. `ability`: its member's, when it was entered."""

    opening: _Opening | None
    ability: Ability
    kind: HostKind
    owner: int | None
    stacked: bool


_NOTHING = _Indexed(None, ANYTHING, NO_KIND, None, False)


class _Shelf:
    """Sorted rows of openings. Entering and leaving one moves memory, but compares only a few."""

    def __init__(self) -> None:
        self._rows: dict[Hashable, list[_Opening]] = {}

    def row(self, key: Hashable) -> Sequence[_Opening]:
        return self._rows.get(key, ())

    def add(self, key: Hashable, opening: _Opening) -> None:
        insort(self._rows.setdefault(key, []), opening)

    def remove(self, key: Hashable, opening: _Opening) -> None:
        row = self._rows[key]
        del row[bisect_left(row, opening)]
        if not row:
            del self._rows[key]


class Openings:
    """Slots that the fleet has noted as changed are looked at anew when somebody asks. On the server's event loop;
    nothing here awaits. `_entries` has of each slot what was entered, so that it is taken out from where it was put."""

    # hot: benchmarks/growth.py - a walk over 1,000 members with every decision cost twelve times the rest of a job

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._entries: dict[Place, _Indexed] = {}
        self._kinds = HostKinds()
        self._asked: set[Work] = set()  # since the last tidying
        self._decisions = 0
        self._open: Counter[HostKind] = Counter()  # openings of members of a kind
        self._idle_kinds: Counter[HostKind] = Counter()
        self._idle = _Shelf()  # by the member's kind and what is warm
        self._used = _Shelf()  # by the member's kind: the idle ones where something is warm
        self._beside = _Shelf()  # busy, but not full: by the member's kind and what is warm
        self._running: Counter[int] = Counter()
        self._stacked: dict[Place, None] = {}
        self.stirred: Callable[[Iterable[Place]], None] = lambda places: None  # told which have changed

    def any(self) -> bool:
        if self._fleet.changed:
            self._look()
        return bool(self._open)

    def ask(self, work: Work) -> None:
        """Somebody wants this: from now on the kinds know who can do it."""
        if work not in self._kinds.works:
            moved = self._kinds.ask(work)
            for place, entry in self._entries.items() if moved else ():
                if entry.ability in moved:
                    self._take_out(entry)
                    self._entries[place] = entry = entry._replace(kind=self._kinds.of(entry.ability))
                    self._put_in(entry)

    def doable(self, waiting: Mapping[Work, object]) -> Iterable[Work]:
        """The works for which there is an opening, of those that wait, which all have been asked for."""
        if self._fleet.changed:
            self._look()
        self._decisions += 1
        if self._decisions % TIDY == 0:
            self._tidy(waiting.keys())
        return doable(waiting, self._open, self._kinds)

    def hosts(self, wants: Sequence[Want]) -> list[Host]:
        """So much of the members that are online and have room as `place` needs for these."""
        if self._fleet.changed:
            self._look()
        chosen: dict[tuple[int, int], _Opening] = {}
        total = sum([want.count for want in wants])
        barred = frozenset().union(*[want.barred for want in wants])
        # All are asked for first: whom another want outranks on a worker depends on what that worker can do of it, too.
        works = [self._ask_for(want) for want in wants]
        for want, work in zip(wants, works, strict=True):
            for kind in self._open.keys() & self._kinds.able(work):
                ready = _enough(self._ready(want, kind), want.shunned, total, barred)
                beside = self._beside.row((kind, want.warm_key)) if want.warm_key is not None else ()
                for opening in chain(ready, _enough(beside, want.shunned, want.count, barred)):
                    chosen[opening.member_number, opening.slot_index] = opening
        return _as_hosts(chosen)

    def _ask_for(self, want: Want) -> Work:
        work = work_of(want)
        self._asked.add(work)
        self.ask(work)
        return work

    def _ready(self, want: Want, kind: HostKind) -> Iterator[_Opening]:
        """Idle ones in the order of the matching."""
        warm = reversed(self._idle.row((kind, want.warm_key)))
        empty = self._idle.row((kind, None)) if want.warm_key is not None else ()
        return chain(warm, empty, (o for o in self._used.row(kind) if o.slot.warm_key != want.warm_key))

    def idle_for(self, want: Want) -> bool:
        """Is there an idle slot that may take it?"""
        self._look()
        able = self._kinds.able(self._ask_for(want))
        if not want.barred:
            return not able.isdisjoint(self._idle_kinds)
        rows = chain.from_iterable((self._idle.row((kind, None)), self._used.row(kind)) for kind in able)
        return any(opening.member.id not in want.barred for opening in chain.from_iterable(rows))

    def idle(self) -> int:
        """How many slots have nothing to do."""
        self._look()
        return self._idle_kinds.total()

    def running(self) -> Mapping[int, int]:
        """Slots that work for each owner."""
        self._look()
        return self._running

    def may_be_stacked(self) -> bool:
        """Whether a slot may hold more than one job: nothing is looked at anew for it."""
        members = self._fleet.members
        for worker, index in self._fleet.changed:
            slot = members[worker].slots.get(index) if worker in members else None
            if slot is not None and len(slot.held) > 1:
                return True
        return bool(self._stacked)

    def stacked(self) -> Iterator[tuple[Member, SlotState]]:
        """Slots of connected members that hold more than one job."""
        self._look()
        for worker, index in list(self._stacked):
            member = self._fleet.members[worker]
            yield member, member.slots[index]

    def _look(self) -> None:
        changed = self._fleet.take_changed()
        self.stirred(changed)
        for place in changed:
            member = self._fleet.members.get(place[0])
            slot = member.slots.get(place[1]) if member is not None else None
            old = self._entries.pop(place, _NOTHING)
            new = self._entry(member, slot) if member is not None and slot is not None else _NOTHING
            if new.opening != old.opening or new.ability != old.ability:  # a job takes its room when it is planned
                self._take_out(old)
                self._put_in(new)
            if old.owner is not None:
                _less(self._running, old.owner)
            if new.owner is not None:
                self._running[new.owner] += 1
            if old.stacked and not new.stacked:
                del self._stacked[place]
            elif new.stacked:
                self._stacked[place] = None
            if new is not _NOTHING:
                self._entries[place] = new

    def _entry(self, member: Member, slot: SlotState) -> _Indexed:
        view = slot.view()
        opening = None
        if slot.fixed and member.status is WorkerStatus.ONLINE and (view.held == 0 or view.held < view.depth):
            opening = _Opening(view.used_at, member.number, view.index, view, member)
        owner = next(iter(slot.held.values())).owner if slot.held else None
        stacked = len(slot.held) > 1 and member.link is not None
        return _Indexed(opening, member.ability, self._kinds.of(member.ability), owner, stacked)

    def _put_in(self, entry: _Indexed) -> None:
        if entry.opening is not None:
            for shelf, key in self._shelves(entry.opening, entry.kind):
                shelf.add(key, entry.opening)
            self._open[entry.kind] += 1
            if entry.opening.slot.held == 0:
                self._idle_kinds[entry.kind] += 1

    def _take_out(self, entry: _Indexed) -> None:
        if entry.opening is not None:
            for shelf, key in self._shelves(entry.opening, entry.kind):
                shelf.remove(key, entry.opening)
            _less(self._open, entry.kind)
            if entry.opening.slot.held == 0:
                _less(self._idle_kinds, entry.kind)

    def _shelves(self, opening: _Opening, kind: HostKind) -> Sequence[tuple[_Shelf, Hashable]]:
        warm = opening.slot.warm_key
        if opening.slot.held:
            return ((self._beside, (kind, warm)),)
        if warm is None:
            return ((self._idle, (kind, warm)),)
        return (self._idle, (kind, warm)), (self._used, kind)

    def _tidy(self, waiting: Collection[Work]) -> None:
        """Forget what nobody has asked for since the last time, and workers that have gone."""
        wanted = [work for work in self._kinds.works if work in self._asked or work in waiting]
        abilities = {entry.ability for entry in self._entries.values()}
        self._asked.clear()
        if len(wanted) + len(abilities) < len(self._kinds):
            for entry in self._entries.values():
                self._take_out(entry)
            self._kinds = HostKinds(wanted)
            for place, entry in self._entries.items():
                self._entries[place] = entry = entry._replace(kind=self._kinds.of(entry.ability))
                self._put_in(entry)


def _enough(
    openings: Iterable[_Opening], shunned: Container[WorkerId], count: int, barred: Collection[WorkerId]
) -> Iterator[_Opening]:
    """The first so many; those of shunned workers come as they stand between, and do not count.

    And all of workers that are barred for any of what is wanted: the members of a kind are alike but for that, and who
    outranks whom there is another question than elsewhere."""
    for opening in openings:
        apart = opening.member.id in barred
        if count <= 0 and not apart:
            if not barred:
                return
            continue
        count -= not apart and opening.member.id not in shunned
        yield opening


def _as_hosts(openings: Mapping[tuple[int, int], _Opening]) -> list[Host]:
    members: dict[int, tuple[Member, list[Slot]]] = {}
    for number, index in sorted(openings):
        opening = openings[number, index]
        members.setdefault(number, (opening.member, []))[1].append(opening.slot)
    return [member.host(tuple(slots)) for member, slots in members.values()]


def _less(counter: Counter[Any], key: Hashable) -> None:
    counter[key] -= 1
    if counter[key] <= 0:
        del counter[key]
