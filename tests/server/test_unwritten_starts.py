"""Which starts of jobs are worth a write."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

from hecaton.core.model import AttemptRef, JobId
from hecaton.server.clock import Clock
from hecaton.server.fleet.unwritten_starts import DELAY, UnwrittenStarts
from hecaton.store.port import Store
from tests.server.people import eventually

LONG, FRESH, SHORT = (AttemptRef(JobId(name), 1) for name in ("long", "fresh", "short"))


class _Clock(Clock):
    time = 0.0

    def now(self) -> float:
        return self.time


class _Written:
    """Notes what would be written."""

    def __init__(self) -> None:
        self.starts: list[tuple[AttemptRef, float, str | None]] = []

    def start(self, refs: Sequence[AttemptRef], at: float, image_version: str | None) -> None:
        self.starts += [(ref, at, image_version) for ref in refs]


async def test_a_start_is_written_when_it_has_lasted_and_not_with_others() -> None:
    clock, written = _Clock(), _Written()

    def write(work: Callable[[Store], object]) -> None:
        work(cast(Store, written))

    async def count() -> int:
        return len(written.starts)

    starts = UnwrittenStarts(clock, write)
    starts.add(LONG, 0.0, "an id")
    starts.add(FRESH, DELAY, None)
    starts.add(SHORT, 0.0, "an id")
    starts.discard(SHORT)
    clock.time = DELAY
    await eventually(count, 1)
    assert written.starts == [(LONG, 0.0, "an id")]
    clock.time = 2 * DELAY
    await eventually(count, 2)
    assert written.starts == [(LONG, 0.0, "an id"), (FRESH, DELAY, None)]
