"""Hands out what waits: now, soon, or when its time has come. Used by whoever frees a slot or makes a job wait."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from hecaton.core.errors import HecatonError
from hecaton.server.clock import Clock
from hecaton.server.fleet.scheduler import Scheduler, nothing
from hecaton.server.tasks import Tasks
from hecaton.store.port import Database

REVOKE_DELAY = 0.02
"""Seconds between a slot becoming idle and asking other slots for their waiting jobs: a burst settles by itself."""

TIMER_SLACK = 0.02

RECOUNT_DELAY, RECOUNT_PACE = 0.02, 1.0
"""Seconds until what waits is read anew when less was there than was counted; and at least between two such looks."""

_log = structlog.get_logger("hecaton.dispatcher")


class Dispatcher:
    """On the server's event loop. Two of its methods may run at a time: what they decide is decided in the scheduler,
    whose plans are atomic."""

    def __init__(self, database: Database, clock: Clock, scheduler: Scheduler) -> None:
        self._database, self._clock, self._scheduler = database, clock, scheduler
        self._revoke_timer: asyncio.TimerHandle | None = None
        self._recount_timer: asyncio.TimerHandle | None = None
        self._recounted = float("-inf")  # by the loop's clock
        scheduler.miscounted = self._recount_soon
        self._tasks = Tasks()

    async def dispatch(self) -> int:
        """Give waiting work to free slots until nothing fits. Returns how many jobs were assigned."""
        total = 0
        while given := await self._scheduler.claim(self._database, self._clock.now()):
            total += given
        self._consider_revoking()
        return total

    def kick(self) -> None:
        """Dispatch soon, for callers that need not wait for it."""
        self._soon(self.dispatch)

    def _soon(self, work: Callable[[], Awaitable[object]]) -> None:
        self._tasks.start(self._logged(work))

    async def _logged(self, work: Callable[[], Awaitable[object]]) -> None:
        """If the store fails, `duties` looks again for what waits."""
        try:
            await work()
        except HecatonError as error:
            _log.warning("Could not hand out jobs", error=str(error))

    def wait_again(self, lane: int, delay: float) -> None:
        """A job of this lane waits again, and may be assigned after `delay` seconds."""
        if not self._scheduler.knows(lane):
            self._soon(self.read_waiting)
        elif delay > 0:
            self._wait_later(lane, delay)
        else:
            self._scheduler.again(lane)

    def _wait_later(self, lane: int, delay: float) -> None:
        """The loop's timers may be early by a millisecond or a busy turn: the store would find the job not due yet, and
        nobody would ask again."""
        asyncio.get_running_loop().call_later(delay + TIMER_SLACK, self._again, lane)

    def kick_in(self, seconds: float) -> None:
        """What cannot be given out before then may be afterwards."""
        asyncio.get_running_loop().call_later(seconds + TIMER_SLACK, self.kick)

    def _again(self, lane: int) -> None:
        self._scheduler.again(lane)
        self.kick()

    async def read_waiting(self) -> None:
        """Read from the store what waits, and hand it out. Behind all that the writer's queue holds, so that it sees
        every submission before it: those between `recount` and `load` are counted by both, and too many are no harm.
        But not in the writer, who would stand still for as long as there is much to count."""
        now = self._clock.now()
        self._scheduler.recount()
        await self._database.write(nothing)
        infos = await self._database.read(lambda store: store.lanes(now))
        self._scheduler.load(infos)
        for info in infos:
            if info.next_run_after is not None:
                self._wait_later(info.key, max(0.0, info.next_run_after - now))
        await self.dispatch()

    def _recount_soon(self) -> None:
        if self._recount_timer is None:
            loop = asyncio.get_running_loop()
            delay = max(RECOUNT_DELAY, self._recounted + RECOUNT_PACE - loop.time())
            self._recount_timer = loop.call_later(delay, self._recount)

    def _recount(self) -> None:
        self._recount_timer = None
        self._recounted = asyncio.get_running_loop().time()
        self._soon(self.read_waiting)

    def _consider_revoking(self) -> None:
        if self._revoke_timer is None and self._scheduler.may_revoke():
            self._revoke_timer = asyncio.get_running_loop().call_later(REVOKE_DELAY, self._revoke)

    def _revoke(self) -> None:
        self._revoke_timer = None
        self._scheduler.revoke()
