"""Workers that no work in demand tells apart are of one kind: a decision looks at kinds, however much workers differ.

A worker that serves images A and B and one that serves A and C are of one kind until somebody asks for B or C. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from hecaton.core.model import Mode
from hecaton.core.placement.matching import Ability, Want, unable


class Work(NamedTuple):
    """What of a want an ability may have something against."""

    image: str
    mode: Mode
    asks: frozenset[str]


def work_of(want: Want) -> Work:
    return Work(want.image, want.mode, want.asks)


class HostKind:
    """Is itself alone. `works`: those in demand that its workers can do, in the order in which they were asked for."""

    __slots__ = ("works",)

    def __init__(self, works: Iterable[Work]) -> None:
        self.works: dict[Work, None] = dict.fromkeys(works)


NO_KIND = HostKind(())


class HostKinds:
    """Abilities in kinds. Two abilities are of one kind exactly when they can do the same of the works asked for."""

    def __init__(self, works: Iterable[Work] = ()) -> None:
        self._of: dict[Ability, HostKind] = {}
        self._able: dict[Work, set[HostKind]] = {work: set() for work in works}

    def of(self, ability: Ability) -> HostKind:
        kind = self._of.get(ability)
        if kind is None:
            works = [work for work in self._able if unable(work, ability) is None]
            kind = next((kind for kind in set(self._of.values()) if kind.works.keys() == set(works)), None) or HostKind(
                works
            )
            self._of[ability] = kind
            for work in works:
                self._able[work].add(kind)
        return kind

    def __len__(self) -> int:
        """Abilities and works that are known."""
        return len(self._of) + len(self._able)

    @property
    def works(self) -> Collection[Work]:
        return self._able.keys()

    def able(self, work: Work) -> set[HostKind]:
        """Those that can do it. KeyError unless it has been asked for."""
        return self._able[work]

    def ask(self, work: Work) -> Collection[Ability]:
        """Tell the kinds apart by this work, too. Gives the abilities whose kind is another from now on."""
        members: dict[HostKind, list[Ability]] = {}
        apart: dict[HostKind, list[Ability]] = {}
        for ability, kind in self._of.items():
            members.setdefault(kind, []).append(ability)
            if unable(work, ability) is None:
                apart.setdefault(kind, []).append(ability)
        able = self._able[work] = set()
        moved = []
        for kind, abilities in apart.items():
            if len(abilities) == len(members[kind]):
                kind.works[work] = None
                able.add(kind)
            else:
                moved += abilities
                able.add(self._split(kind, work, abilities))
        return moved

    def _split(self, kind: HostKind, work: Work, abilities: Iterable[Ability]) -> HostKind:
        new = HostKind((*kind.works, work))
        for known in kind.works:
            self._able[known].add(new)
        self._of.update(dict.fromkeys(abilities, new))
        return new


def doable(waiting: Mapping[Work, object], kinds: Collection[HostKind], able: HostKinds) -> Iterable[Work]:
    """Works that wait and that one of these kinds can do, in an order that each run repeats. All have been asked for.

    The shorter way round: the most of what waits may have nobody, and the most that somebody can do does not wait."""
    if len(waiting) <= len(kinds):
        return [work for work in waiting if not able.able(work).isdisjoint(kinds)]
    found: dict[Work, None] = {}
    for kind in kinds:
        shorter, longer = (kind.works, waiting) if len(kind.works) < len(waiting) else (waiting, kind.works)
        found.update((work, None) for work in shorter if work in longer)
    return found
