"""What the scheduler knows of a lane, and which lanes wait for which work. Memory only, no rules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from hecaton.core.matching import Lane
from hecaton.core.model import WorkerId
from hecaton.server.fleet.kinds import Work


class LaneState(msgspec.Struct):
    key: int
    lane: Lane
    count: int = 0
    priority: int = 0
    since: float = 0.0
    waiting: dict[int, int] = {}  # how many of each priority; may name too many, as `count`
    claims: int = 0  # planned, and neither settled nor undone: it must not be forgotten now
    fresh: int = 0  # added since `recount`
    raised: int | None = None  # highest priority added since the last plan took from the lane
    shunned: dict[WorkerId, float] = {}  # machines that failed one of its jobs, and until when others go first
    pace: float | None = None  # seconds that a job of this lane runs, exponentially averaged: how many to prefetch
    used_at: float = 0.0
    asks: frozenset[str] = frozenset()  # names of the options that tell the lane apart
    waits: Work | None = None  # while it waits: what its worker is asked for


class WaitingLanes:
    """Lanes with waiting jobs, by what their worker is asked for."""

    def __init__(self) -> None:
        self._lanes: dict[Work, dict[int, LaneState]] = {}

    @property
    def works(self) -> Mapping[Work, object]:
        return self._lanes

    def of(self, works: Iterable[Work]) -> list[LaneState]:
        return [state for work in works for state in self._lanes[work].values()]

    def add(self, state: LaneState, work: Work) -> None:
        state.waits = work
        self._lanes.setdefault(work, {})[state.key] = state

    def remove(self, state: LaneState) -> None:
        """Also one that is not among them."""
        if state.waits is not None:
            alike = self._lanes[state.waits]
            del alike[state.key]
            if not alike:
                del self._lanes[state.waits]
            state.waits = None
