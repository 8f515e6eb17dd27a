"""Who waits for what: events of jobs and batches, published in memory to the requests that watch them. Nobody polls."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from hecaton.core.model import JobId
from hecaton.wire.api import JobEvent

QUEUE_LIMIT = 256
"""Events that a slow reader may lag behind; then logs and progress are skipped (the reader reads logs from the
store)."""


Watched = JobId | int
"""A job, or a batch by its index."""


class Watch:
    """One request that watches one job or batch. `next()` returns what happened since, at least one event."""

    def __init__(self) -> None:
        self.events: deque[JobEvent] = deque(maxlen=QUEUE_LIMIT)
        self._wake = asyncio.Event()
        self.ended = False

    def put(self, event: JobEvent) -> None:
        self.events.append(event)
        self.ended = self.ended or event.event == "end"
        self._wake.set()

    def wake(self) -> None:
        self._wake.set()

    async def wait(self, seconds: float) -> bool:
        """True when something happened within that time."""
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return False
        self._wake.clear()
        return True


class Hub:
    def __init__(self) -> None:
        self._watches: dict[Watched, set[Watch]] = {}
        self.closing = False
        self.decided = asyncio.Event()  # something about a batch, which `sweeper` has to carry out

    @contextmanager
    def watching(self, job: Watched) -> Iterator[Watch]:
        watch = Watch()
        self._watches.setdefault(job, set()).add(watch)
        try:
            yield watch
        finally:
            watches = self._watches[job]
            watches.discard(watch)
            if not watches:
                del self._watches[job]

    def watched(self, job: JobId) -> bool:
        return job in self._watches

    def publish(self, job: JobId, event: JobEvent) -> None:
        for watch in self._watches.get(job, ()):
            watch.put(event)

    def wake(self, batch: int, *, decided: bool = False) -> None:
        """Something in it has ended: who watches looks. `decided`: it was also paused, resumed or cancelled."""
        if decided:
            self.decided.set()
        for watch in self._watches.get(batch, ()):
            watch.wake()

    def close(self) -> None:
        """The server stops: everyone who waits gets an answer now."""
        self.closing = True
        for watches in self._watches.values():
            for watch in watches:
                watch.wake()
