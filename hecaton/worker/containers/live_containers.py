"""The containers of this process, and what is left of those that are gone: looks at their logs, removal of their
folders.
"""

from __future__ import annotations

import asyncio

from hecaton.core.model import AttemptRef
from hecaton.worker.adoption import InUse
from hecaton.worker.brain.holdings import Holdings
from hecaton.worker.containers.container import LiveContainer
from hecaton.worker.doors.removal import Remover
from hecaton.worker.memory.outbox import Outbox

LOG_INTERVAL = 0.25
"""Seconds between two looks at the logs of running jobs."""

IDLE_INTERVAL = 5.0
"""The same for containers without a job: only to give back the space of what they print."""


MEASURE_INTERVAL = 1.0
"""Seconds between two looks at how much containers keep, at least."""


class LiveContainers:
    """`by_id`: those that the brain may name, and the gone ones whose logs are still needed. All on the loop."""

    def __init__(self, holdings: Holdings, outbox: Outbox, remover: Remover) -> None:
        self.by_id: dict[str, LiveContainer] = {}
        self._holdings = holdings
        self._outbox = outbox
        self._remover = remover
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._looks_seldom = False
        self._measuring: asyncio.Task[None] | None = None

    def add(self, container: LiveContainer) -> None:
        self.by_id[container.id] = container
        self.look_soon()

    def look_soon(self) -> None:
        """A job begins, or a container that may have something to say."""
        if self._timer is None or self._looks_seldom:
            self._look_in(LOG_INTERVAL)

    def forget(self, ref: AttemptRef) -> None:
        """The log of this attempt is needed no more."""
        # hot: benchmarks/throughput.py
        for container in self.by_id.values():
            if container.log is not None:
                container.log.forget(ref)
        self._remove_dead()

    def in_use(self) -> InUse:
        """Containers that are or come up, and folders, of which some are needed for their logs only."""
        logs = {done.container for done in self._holdings.done.values() if done.container is not None}
        return InUse({item.id for item in self.by_id.values() if not item.gone}, self.by_id.keys() | logs)

    async def close(self) -> None:
        """At the end of the worker: leave no task and no look behind."""
        if self._timer is not None:
            self._timer.cancel()
        if self._measuring is not None:
            self._measuring.cancel()
            await asyncio.wait([self._measuring])
        for container in list(self.by_id.values()):
            await container.close()

    def remove_folders(self) -> None:
        """After `close`, when nothing reads logs any more: of all that are gone and whose logs nobody needs."""
        for container in self.by_id.values():
            if container.gone and (container.log is None or not container.log.needed):
                self._remover.remove(container.close_folder())

    def look(self) -> None:
        """Now, and from then on as often as there is something to see."""
        self._timer = None
        self._remove_dead()
        for container in list(self.by_id.values()):
            container.look_at_log()
        self._outbox.tick()
        if self._measuring is None or self._measuring.done():
            self._measuring = self._loop.create_task(self._measure())
        at_work = any(job.started_at is not None for job in self._holdings.jobs.values())
        at_work = at_work or any(container.opens for container in self.by_id.values())
        if self.by_id:
            self._look_in(LOG_INTERVAL if at_work else IDLE_INTERVAL)

    async def _measure(self) -> None:
        """One after the other: a container that makes this slow is looked at more seldom, with all others."""
        for container in list(self.by_id.values()):
            await container.measure()
        await asyncio.sleep(MEASURE_INTERVAL)

    def _look_in(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._looks_seldom = seconds > LOG_INTERVAL
        self._timer = self._loop.call_later(seconds, self.look)

    def _remove_dead(self) -> None:
        """Containers that are gone leave their folder behind until their last result is with the server."""
        for container in [item for item in self.by_id.values() if item.gone]:
            if container.log is None or not container.log.needed:
                del self.by_id[container.id]
                self._remover.remove(container.close_folder())
