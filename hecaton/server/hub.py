"""Who waits for what: events of jobs and batches, published in memory to the requests that watch them. Nobody polls."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from hecaton.core.errors import TooMany
from hecaton.core.model import JobId, WorkerId
from hecaton.wire.api import JobEvent

QUEUE_LIMIT = 256
"""Events that a slow reader may lag behind; then logs and progress are skipped (the reader reads logs from the
store)."""

MAX_STREAMS = 256
"""Answers that go on for long, and that one user or worker may have open: events, logs, downloads, jobs that are
submitted and followed."""

RETRY_AFTER = 5.0

LOOK = 1.0
"""Seconds between two looks for waits that are nearly over."""

KEEP_ALIVE = 10.0
"""Seconds after which a stream that has nothing to say gives a sign of life."""

Watched = JobId | int
"""A job, or a batch by its index."""

Holder = int | WorkerId
"""Whose rights a request goes by: a user's, or a worker's."""


class Watch:
    """One request that watches one job or batch, for the length of a `with` block."""

    # hot: benchmarks/latency.py - one for each job that is waited for; `asyncio.timeout` and an Event cost thrice this

    def __init__(
        self,
        watches: dict[Watched, set[Watch]],
        deadlines: _Deadlines,
        watched: Watched,
        end_only: bool,
        holder: Holder | None,
    ) -> None:
        self.holder = holder
        self.events: deque[JobEvent] = deque(maxlen=QUEUE_LIMIT)
        self.ended = False
        self.end: object = None  # what the event `end` carried
        self._watches, self._deadlines, self._watched, self._end_only = watches, deadlines, watched, end_only
        self._happened = False
        self._waiter: asyncio.Future[None] | None = None

    def __enter__(self) -> Watch:
        self._watches.setdefault(self._watched, set()).add(self)
        return self

    def __exit__(self, *_: object) -> None:
        watches = self._watches[self._watched]
        watches.discard(self)
        if not watches:
            del self._watches[self._watched]

    def put(self, event: JobEvent) -> None:
        if event.event == "end":
            self.ended, self.end = True, event.value
        elif self._end_only:
            return
        self.events.append(event)
        self.wake()

    def wake(self) -> None:
        self._happened = True
        if self._waiter is not None:
            _rouse(self._waiter)

    async def wait(self, seconds: float) -> bool:
        """True when something happened since the last time, or happens within that time."""
        if not self._happened:
            waiter = self._waiter = asyncio.get_running_loop().create_future()
            self._deadlines.add(waiter, seconds)
            try:
                await waiter
            finally:
                self._deadlines.remove(waiter)
                self._waiter = None
        happened, self._happened = self._happened, False
        return happened


def _rouse(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


class _Deadlines:
    """Rouses waiters at their time. Most are roused before: only those that wait on get a timer of the loop."""

    # hot: benchmarks/throughput.py - to set and cancel a timer for each costs 7 % of a job

    def __init__(self) -> None:
        self._due: dict[asyncio.Future[None], float] = {}
        self._looking = False

    def add(self, waiter: asyncio.Future[None], seconds: float) -> None:
        loop = waiter.get_loop()
        if seconds < 2 * LOOK:
            loop.call_later(seconds, _rouse, waiter)
            return
        self._due[waiter] = loop.time() + seconds
        if not self._looking:
            self._looking = True
            loop.call_later(LOOK, self._look, loop)

    def remove(self, waiter: asyncio.Future[None]) -> None:
        self._due.pop(waiter, None)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for waiter, due in list(self._due.items()):
            if due < now + 2 * LOOK:
                del self._due[waiter]
                loop.call_later(max(0.0, due - now), _rouse, waiter)
        self._looking = bool(self._due)
        if self._looking:
            loop.call_later(LOOK, self._look, loop)


def _too_many() -> TooMany:
    return TooMany(
        f"you have {MAX_STREAMS} answers open that go on for long, and may have no more",
        "Close some: watch a batch instead of each of its jobs.",
        RETRY_AFTER,
    )


class Hub:
    """On the server's event loop; nothing here awaits. A watch is known here for the length of its `with` block."""

    def __init__(self) -> None:
        self._watches: dict[Watched, set[Watch]] = {}
        self._deadlines = _Deadlines()
        self._streams: dict[Holder, set[asyncio.Future[None]]] = {}
        self._followed: dict[Holder, int] = {}
        self.revocations = 0  # how often somebody's rights have changed
        self.closing = False
        self.decided = asyncio.Event()  # something about a batch, which `sweeper` has to carry out

    def watching(self, job: Watched, *, end_only: bool = False, holder: Holder | None = None) -> Watch:
        """With a `holder` it is woken when his rights change too: he may have to be refused."""
        return Watch(self._watches, self._deadlines, job, end_only, holder)

    @contextmanager
    def streaming(self, holder: Holder) -> Iterator[asyncio.Future[None]]:
        """For the length of an answer that goes on for long. Done once he may have to be refused."""
        ended = asyncio.get_running_loop().create_future()
        streams = self._streams.setdefault(holder, set())
        streams.add(ended)
        try:
            yield ended
        finally:
            streams.discard(ended)
            if not streams:
                self._streams.pop(holder, None)

    def require_stream(self, holder: Holder) -> None:
        """TooMany if this holder, with the one that begins, has more of them than one may have."""
        if self._open_to(holder) > MAX_STREAMS:
            raise _too_many()

    def follow(self, holder: Holder) -> None:
        """One of them that submits a job and waits for its end, until `unfollow`. TooMany as above."""
        # hot: benchmarks/sdk.py - a future and a context for each would cost tenfold
        if self._open_to(holder) >= MAX_STREAMS:
            raise _too_many()
        self._followed[holder] = self._followed.get(holder, 0) + 1

    def unfollow(self, holder: Holder) -> None:
        left = self._followed[holder] - 1
        if left:
            self._followed[holder] = left
        else:
            del self._followed[holder]

    def _open_to(self, holder: Holder) -> int:
        return len(self._streams.get(holder, ())) + self._followed.get(holder, 0)

    def revoke(self, holder: Holder) -> None:
        """His rights have changed: what he began under the old ones ends now."""
        self.revocations += 1
        for ended in self._streams.get(holder, ()):
            _rouse(ended)
        for watches in self._watches.values():
            for watch in watches:
                if watch.holder == holder:
                    watch.wake()

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
