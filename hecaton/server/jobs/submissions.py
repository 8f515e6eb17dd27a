"""Stores new jobs: those that are submitted in the same turn of the event loop together, with one decision about who
gets them and one hand-over to the store."""

from __future__ import annotations

import asyncio

from hecaton.core.errors import HecatonError, Unavailable
from hecaton.server.fleet.scheduler import Scheduler
from hecaton.server.hub import Hub
from hecaton.server.jobs.quotas import Quotas
from hecaton.server.jobs.requests import require_blobs
from hecaton.server.resources import Resources
from hecaton.server.tasks import Tasks
from hecaton.store.port import NewJob, Store, Stored

_Waiting = tuple[NewJob, "asyncio.Future[Stored]"]


class Submissions:
    """On the server's event loop. A job is in `_waiting` for at most one turn of it; then its future alone is left."""

    # hot: benchmarks/throughput.py - 64 clients come in groups of about ten

    def __init__(self, resources: Resources, scheduler: Scheduler, quotas: Quotas, hub: Hub) -> None:
        self._database, self._blobs = resources.database, resources.blobs
        self._clock = resources.clock
        self._scheduler, self._quotas, self._hub = scheduler, quotas, hub
        self._waiting: list[_Waiting] = []
        self._tasks = Tasks()

    async def store(self, job: NewJob) -> Stored:
        """Returns when the job is durable. Raises what the store has against it; the others of its group are stored all
        the same."""
        if self._hub.closing:
            raise Unavailable("the server is stopping", "Try again in a moment.")
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._send)
        stored: asyncio.Future[Stored] = loop.create_future()
        self._waiting.append((job, stored))
        return await stored

    def _send(self) -> None:
        group, self._waiting = self._waiting, []
        self._tasks.hand(self._store(group))

    async def _store(self, group: list[_Waiting]) -> None:
        """The jobs and the claims for free slots in one transaction: a job that can start at once costs one fsync.

        A job is counted when it is on its way to the store, not before: other claims would take it for one that is
        gone."""
        group = [one for one in group if self._count(*one)]
        jobs = [job for job, _ in group]

        def write(store: Store) -> list[Stored]:
            require_blobs(store, self._blobs, jobs)
            return store.submit(jobs)

        try:
            stored = await self._scheduler.claiming(self._database, self._clock.now(), write)
        except BaseException as error:
            self._refuse(group, error)
            return
        for (_, waiter), one in zip(group, stored, strict=True):
            if not waiter.done():
                waiter.set_result(one)

    def _count(self, job: NewJob, waiter: asyncio.Future[Stored]) -> bool:
        """False, and the owner knows why, if he is over a quota."""
        try:
            self._quotas.require([job])
        except HecatonError as error:
            if not waiter.done():
                waiter.set_exception(error)
            return False
        self._scheduler.add(job.lane, job.spec.priority, job.created_at)
        return True

    def _refuse(self, group: list[_Waiting], error: BaseException) -> None:
        """Nothing of the group is stored. Whose fault that is shows when each is tried alone."""
        for job, _ in group:
            self._scheduler.remove(job.lane)
        if len(group) > 1 and isinstance(error, Exception) and not isinstance(error, Unavailable):
            for one in group:
                self._tasks.start(self._store([one]))
            return
        for _, waiter in group:
            if not waiter.done():
                waiter.set_exception(error)
