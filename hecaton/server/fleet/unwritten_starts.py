"""News that attempts have started, until it is written: most end before, which saves a write."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from hecaton.core.model import AttemptRef
from hecaton.server.clock import Clock
from hecaton.store.port import Store

DELAY = 0.05
"""Seconds between two looks. At the first one that finds a start older than half of this, it is written."""

_Start = tuple[float, str | None]
"""When, and by which version of its image."""


class UnwrittenStarts:
    """On the server's event loop; nothing here awaits. While anything waits, a look is due."""

    # hot: benchmarks/throughput.py

    def __init__(self, clock: Clock, write: Callable[[Callable[[Store], object]], object]) -> None:
        """`write` takes a write that nobody waits for."""
        self._clock, self._write = clock, write
        self._waiting: dict[AttemptRef, _Start] = {}
        self._looking = False

    def add(self, ref: AttemptRef, at: float, version: str | None) -> None:
        """`version`: of the image, as its container runs it."""
        self._waiting[ref] = at, version
        self._look_soon()

    def discard(self, ref: AttemptRef) -> None:
        """It has ended: that says it all."""
        self._waiting.pop(ref, None)

    def _look_soon(self) -> None:
        if not self._looking:
            self._looking = True
            asyncio.get_running_loop().call_later(DELAY, self._look)

    def _look(self) -> None:
        self._looking = False
        before = self._clock.now() - DELAY / 2
        due: dict[_Start, list[AttemptRef]] = {}
        for ref, start in self._waiting.items():
            if start[0] <= before:
                due.setdefault(start, []).append(ref)
        if due:
            self._send(due)
        if self._waiting:
            self._look_soon()

    def _send(self, due: dict[_Start, list[AttemptRef]]) -> None:
        for refs in due.values():
            for ref in refs:
                del self._waiting[ref]

        def write(store: Store) -> None:
            for (at, version), refs in due.items():
                store.start(refs, at, version)

        self._write(write)
