"""Carries out what was decided about whole batches - pause, resumption, cancellation - step by step, so that a million
jobs never block the store. Woken by `hub.decided`; at its start it goes on with what a crash cut off.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from hecaton.core.errors import HecatonError
from hecaton.core.model import AttemptRef, Reason, WorkerId
from hecaton.server.fleet.members import Fleet
from hecaton.server.fleet.scheduler import Scheduler
from hecaton.server.hub import Hub
from hecaton.server.resources import Resources
from hecaton.store.port import Swept
from hecaton.wire.api import JobEvent
from hecaton.wire.channel import Cancel

TRY_AGAIN = 1.0
"""Seconds after the store failed."""

_log = structlog.get_logger("hecaton.sweeper")


class BatchSweeper:
    """On the server's event loop, one step at a time; the store alone knows what is left to do. `dispatch`: asks for
    jobs to be handed out soon. `resumed`: hears of each batch of which a step is done."""

    def __init__(
        self,
        resources: Resources,
        scheduler: Scheduler,
        fleet: Fleet,
        hub: Hub,
        dispatch: Callable[[], None],
        resumed: Callable[[int], None],
    ) -> None:
        self._database, self._clock, self._statistics = resources.database, resources.clock, resources.statistics
        self._scheduler, self._fleet, self._hub = scheduler, fleet, hub
        self._dispatch, self._resumed = dispatch, resumed

    async def loop(self) -> None:
        """Until cancelled."""
        while True:
            self._hub.decided.clear()
            try:
                while await self.run_once():
                    pass
            except HecatonError as error:
                _log.warning("Could not carry out what a batch was told", error=str(error))
                await asyncio.sleep(TRY_AGAIN)
            else:
                await self._hub.decided.wait()

    async def run_once(self) -> bool:
        """One step. False: there was nothing to do."""
        now = self._clock.now()
        step = await self._database.write(lambda store: store.sweep(now))
        if step is None:
            return False
        self._count(step)
        self._resumed(step.batch.index)
        self._tell(step)
        self._hub.wake(step.batch.index)
        return True

    def _count(self, step: Swept) -> None:
        batch = step.batch
        if step.withheld:
            self._scheduler.remove(batch.lane, step.withheld)
        if step.released:
            self._scheduler.add(batch.lane, batch.spec.priority, batch.created_at, step.released)
            self._dispatch()

    def _tell(self, step: Swept) -> None:
        running: dict[WorkerId, list[AttemptRef]] = {}
        for result in step.cancelled:
            if result.state.terminal:
                self._statistics.end(step.batch.image_id, result.state, Reason.CANCELLED)
                self._hub.publish(result.id, JobEvent("end", None))
            elif result.worker_id is not None:
                running.setdefault(result.worker_id, []).append(result.ref)
        for worker, refs in running.items():
            member = self._fleet.members.get(worker)
            if member is not None and member.link is not None:
                member.link.send(Cancel(tuple(refs)))
