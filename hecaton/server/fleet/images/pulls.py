"""Which image cannot be had on which machine, until when, and whether that is reason enough to give a job up.

A failed pull counts for its image and its registry on that machine: it says nothing of other images, which the machine
may have, and nobody is charged. In memory: after a start of the server everything is tried once more. Kept is since
when an image can be had nowhere, or a server that is started again and again would be patient for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeVar

import msgspec

from hecaton.core.model import Reason, WorkerId
from hecaton.core.references import registry_of

RETRY = (1.0, 5.0, 15.0, 30.0)
"""Seconds until the next try of a machine at a registry, by how many failed in a row; the last one repeats."""

REFUSED = 60.0
"""Seconds for which the answer holds that a machine cannot have an image: no access, no such name, another platform."""

NOWHERE = "nowhere"
"""Key of `meta` under which the store has what `Pulls` keeps."""

KEPT = 200
"""So many images that can be had nowhere are kept over a start of the server, the latest ones."""

K = TypeVar("K")

NOTHING: Mapping[WorkerId, str] = MappingProxyType({})


class _Mark(msgspec.Struct):
    """Of an image on a machine. `until`: it is not tried there before. `refused_until`: so long it holds that the
    machine cannot have it; None: it may pass. `why`: in the machine's words."""

    until: float
    refused_until: float | None
    why: str

    def is_stale(self, now: float) -> bool:
        return self.refused_until is not None and self.refused_until <= now


class _Streak(msgspec.Struct):
    """Failures in a row: how many, since when, and when the last one was."""

    count: int
    since: float
    at: float


class Pulls:
    """On the server's event loop; nothing here awaits. `keep` hears what `load` wants after the next start."""

    def __init__(
        self, now: Callable[[], float], patience: float, keep: Callable[[str], None] = lambda text: None
    ) -> None:
        self._now, self._patience, self._keep = now, patience, keep
        self._marks: dict[str, dict[WorkerId, _Mark]] = {}  # by the image's name
        self._at_registry: dict[tuple[WorkerId, str], _Streak] = {}
        self._nowhere: dict[str, _Streak] = {}  # of images that nobody has got since
        self._had: dict[str, set[WorkerId]] = {}  # who has run it

    def load(self, kept: str | None) -> None:
        """What another process of this server kept."""
        self._nowhere = msgspec.json.decode(kept, type=dict[str, _Streak]) if kept else {}

    def _say(self) -> None:
        latest = sorted(self._nowhere.items(), key=lambda item: item[1].at)[-KEPT:]
        self._keep(msgspec.json.encode(dict(latest)).decode())

    def barred(self, image: str) -> frozenset[WorkerId]:
        """The machines on which it is not to be tried now."""
        # hot: benchmarks/throughput.py - asked for each lane that waits; as a rule there are no marks at all
        marks = self._marks.get(image)
        if not marks:
            return frozenset()
        now = self._now()
        return frozenset(worker for worker, mark in marks.items() if mark.until > now)

    def why(self, image: str) -> Mapping[WorkerId, str]:
        """For people: what keeps it from these machines now."""
        now = self._now()
        return {
            worker: f"cannot get the image: {mark.why}; tries again in {max(1.0, mark.until - now):.0f} s"
            for worker, mark in self._marks.get(image, {}).items()
            if mark.until > now
        } or NOTHING

    def failed(self, worker: WorkerId, image: str, reason: Reason, why: str) -> float:
        """A machine could not get it. Returns the seconds until it may be tried there again."""
        now = self._now()
        at_registry = _longer(self._at_registry, (worker, registry_of(image)), now, 2 * RETRY[-1])
        _longer(self._nowhere, image, now, max(self._patience, 2 * RETRY[-1]))
        refused = reason is Reason.IMAGE_DENIED
        delay = REFUSED if refused else RETRY[min(at_registry.count, len(RETRY)) - 1]
        self._marks.setdefault(image, {})[worker] = _Mark(now + delay, now + REFUSED if refused else None, why)
        self._had.get(image, set()).discard(worker)
        self._say()
        return delay

    def hopes(self, image: str, reason: Reason, submitted_at: float, others: frozenset[WorkerId]) -> bool:
        """Is a job of this image, which a machine has just failed to get, to wait? `others`: the machines beside that
        one that are there and take such jobs.

        As long as one of them may have it. A registry that is away, and a machine that is away and has had the image,
        are waited for as long as the patience goes, from when the image could be had nowhere."""
        now = self._now()
        marks = self._marks.get(image, {})
        if any(other not in marks or marks[other].is_stale(now) for other in others):
            return True
        nowhere = self._nowhere.get(image)
        waited = now - max(submitted_at, nowhere.since if nowhere is not None else now)
        passing = reason is Reason.IMAGE_PULL or any(marks[other].refused_until is None for other in others)
        if waited < self._patience and (passing or self._had.get(image, set()) - others):
            return True
        for mark in marks.values():  # the next job may find that somebody has mended it
            mark.until = min(mark.until, now)
        return False

    def has(self, worker: WorkerId, image: str) -> None:
        """It runs there, or is there now."""
        self._had.setdefault(image, set()).add(worker)
        if self._nowhere.pop(image, None) is not None:
            self._say()
        self._at_registry.pop((worker, registry_of(image)), None)
        marks = self._marks.get(image)
        if marks is not None:
            marks.pop(worker, None)
            if not marks:
                del self._marks[image]

    def forget(self, worker: WorkerId) -> None:
        """A machine comes anew: what could not be had may be had now."""
        for image in [image for image, marks in self._marks.items() if worker in marks]:
            del self._marks[image][worker]
            if not self._marks[image]:
                del self._marks[image]
        for key in [key for key in self._at_registry if key[0] == worker]:
            del self._at_registry[key]

    def gone(self, image: str) -> None:
        """Its name means nothing here any more, and registries that failed long ago are nobody's either."""
        self._marks.pop(image, None)
        self._had.pop(image, None)
        if self._nowhere.pop(image, None) is not None:
            self._say()
        now = self._now()
        for key in [key for key, streak in self._at_registry.items() if now - streak.at > 2 * RETRY[-1]]:
            del self._at_registry[key]

    def removed(self, worker: WorkerId) -> None:
        """It comes back never: what it had is no hope."""
        self.forget(worker)
        for had in self._had.values():
            had.discard(worker)


def _longer(streaks: dict[K, _Streak], key: K, now: float, gap: float) -> _Streak:
    """One failure more; after a longer gap it is the first of another row."""
    streak = streaks.get(key)
    if streak is None or now - streak.at > gap:
        streak = streaks[key] = _Streak(0, now, now)
    streak.count, streak.at = streak.count + 1, now
    return streak
