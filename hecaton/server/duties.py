"""What the server does by the clock: leases, queue times, ends of quarantines, a fresh count of what waits, results,
logs and jobs past their age, uploads that nobody used.

The loop survives a failing duty, and says so in the log when it begins to fail and when it works again.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from functools import partial

import structlog

from hecaton.core.errors import HecatonError
from hecaton.core.model import AttemptRef, JobState, Reason
from hecaton.server.fleet.dispatcher import Dispatcher
from hecaton.server.fleet.members import Fleet
from hecaton.server.fleet.quarantine import Quarantine
from hecaton.server.fleet.workers import Workers
from hecaton.server.hub import Hub
from hecaton.server.jobs.budget import Budget
from hecaton.server.resources import Resources
from hecaton.store.port import Store
from hecaton.wire.api import JobEvent

COMPARE_EVERY = 30.0
CLEAN_EVERY = 600.0
STEP = 200
"""Rows removed in one transaction."""

PAGES = 256
"""Of the database, given back to the disk in one transaction: 1 MiB, some 10 ms."""

KEPT_PAGES = 16 * 1024
"""Of the database, free ones that stay for what comes next while the disk has room: 64 MiB."""

PAUSE = 0.02

_log = structlog.get_logger("hecaton.duties")


class Duties:
    """On the server's event loop, one duty after the other."""

    def __init__(
        self,
        resources: Resources,
        fleet: Fleet,
        quarantine: Quarantine,
        workers: Workers,
        dispatcher: Dispatcher,
        hub: Hub,
        budget: Budget,
    ) -> None:
        self._database, self._blobs = resources.database, resources.blobs
        self._clock, self._settings, self._statistics = resources.clock, resources.settings, resources.statistics
        self._fleet, self._quarantine, self._workers = fleet, quarantine, workers
        self._dispatcher, self._hub, self._budget = dispatcher, hub, budget
        self._compared = self._cleaned = self._awake = self._clock.now()
        self._pace = min(1.0, self._settings.lost_after / 10)
        self._orphans: frozenset[AttemptRef] = frozenset()
        self._failing: dict[str, type[Exception]] = {}

    async def loop(self) -> None:
        """Until cancelled. The pace follows `lost_after`, so that tests with short leases are served as exactly."""
        await asyncio.gather(self._stay_awake(), self._serve())

    async def _serve(self) -> None:
        while True:
            await asyncio.sleep(self._pace)
            await self.run_once()

    async def _stay_awake(self) -> None:
        """A duty may wait for the disk: what this process missed is measured beside them."""
        while True:
            await asyncio.sleep(self._pace)
            self._notice_pause()

    def _notice_pause(self) -> None:
        """This process stood still (a frozen VM, a debugger, a starved machine): the silence was ours, not the
        workers'. They get a full `lost_after`, as after a start."""
        now = self._clock.now()
        missed = now - self._awake - self._pace
        self._awake = now
        if missed > self._settings.heartbeat:
            _log.warning("The server stood still: no lease ends for that", seconds=round(missed, 1))
            for member in self._fleet.members.values():
                member.last_contact = now

    async def run_once(self) -> None:
        for duty in (
            self.expire_leases,
            self.expire_queued,
            self.end_quarantines,
            self.compare_with_store,
            self.clean,
            self.look_at_room,
        ):
            try:
                await duty()
            except Exception as error:
                self._say_failed(duty.__name__, error)
            else:
                if self._failing.pop(duty.__name__, None) is not None:
                    _log.info("A duty works again", duty=duty.__name__)

    def _say_failed(self, duty: str, error: Exception) -> None:
        """Once for as long as it fails in the same way: a full disk may stay full for hours, and duties are tried every
        second."""
        if self._failing.get(duty) is type(error):
            return
        self._failing[duty] = type(error)
        if isinstance(error, HecatonError):
            _log.warning("A duty fails and is tried again until it works", duty=duty, error=str(error))
        else:
            _log.error("A duty fails and is tried again until it works", duty=duty, exc_info=error)

    async def expire_leases(self) -> int:
        """Workers silent for `lost_after` lose their jobs. Returns how many workers."""
        settings = self._settings
        self._notice_pause()
        lost = self._fleet.silent(self._clock.now(), settings.suspect_after, settings.lost_after)
        for member in lost:
            await self._workers.lose(member)
        return len(lost)

    async def expire_queued(self) -> int:
        now = self._clock.now()
        expired = await self._database.write(lambda store: store.expire_queued(now))
        for job in expired:
            self._statistics.end(job.image_id, JobState.FAILED, Reason.QUEUE_TTL)
            self._hub.publish(job.id, JobEvent("end", Reason.QUEUE_TTL))
            if job.batch is not None:
                self._hub.wake(job.batch, decided=job.paused)
        return len(expired)

    async def end_quarantines(self) -> None:
        if await self._quarantine.release_due():
            await self._dispatcher.dispatch()

    async def compare_with_store(self) -> None:
        """The safety net under the scheduler's memory of what waits, and the workers' `last seen`."""
        now = self._clock.now()
        if now - self._compared < COMPARE_EVERY:
            return
        self._compared = now
        present = [member.id for member in self._fleet.members.values() if member.link is not None]
        await self._database.write(lambda store: store.seen(present, now))
        await self._dispatcher.read_waiting()
        self._orphans = await self._workers.end_orphans(self._orphans)

    async def look_at_room(self) -> None:
        await self._budget.look()
        if self._budget.at_floor:
            await self.give_back(0)

    async def give_back(self, kept: int) -> None:
        """What the database needs no more goes back to the disk, but for so many pages, in steps that let everybody
        else through in between."""
        most = left = await self._database.write(lambda store: store.give_back(0))
        before = math.inf
        while kept < left < before:
            before = left
            left = await self._database.write(lambda store: store.give_back(PAGES))
            await asyncio.sleep(PAUSE)
        if left < most:
            await self._database.settle()

    async def forget_old(self) -> None:
        """Results, logs and jobs past their age, in steps that let everybody else through in between."""
        now, settings = self._clock.now(), self._settings
        steps: tuple[tuple[str, float, Callable[[Store, float], int]], ...] = (
            ("results", settings.keep_results, lambda store, before: store.forget_results(before, STEP)),
            ("files", settings.keep_results, lambda store, before: store.forget_files(before, STEP)),
            ("pieces of logs", settings.keep_logs, lambda store, before: store.forget_logs(before, STEP)),
            ("jobs", settings.keep_jobs, lambda store, before: store.forget_jobs(before, STEP)),
        )
        for what, age, forget in steps:
            removed = 0
            while count := await self._database.write(partial(_forget, forget, now - age)):
                removed += count
                await asyncio.sleep(PAUSE)
            if removed:
                _log.info("Removed what was old", what=what, count=removed, days=age / 86400)

    async def clean(self) -> None:
        now = self._clock.now()
        if now - self._cleaned < CLEAN_EVERY:
            return
        self._cleaned = now
        await self.forget_old()
        before = now - self._settings.blob_grace

        def forget(store: Store) -> None:
            """Rows and files in the writer's thread, where uploads are entered too: neither can overtake the other."""
            store.forget_folders(before)
            unused = store.unused_blobs(before)
            store.forget_blobs(unused)
            for sha256 in unused:
                self._blobs.delete(sha256)

        await self._database.write(forget)
        await self.give_back(KEPT_PAGES)


def _forget(forget: Callable[[Store, float], int], before: float, store: Store) -> int:
    return forget(store, before)
