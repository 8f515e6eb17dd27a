"""What one user may have at a time: asked before anything is stored, so that nobody's waiting work costs the others."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from hecaton.core.errors import TooMany
from hecaton.core.model import JobSpec
from hecaton.core.placement.matching import Lane
from hecaton.server.fleet.scheduler import Scheduler
from hecaton.server.jobs.budget import Budget
from hecaton.server.settings import Settings
from hecaton.store.port import JOB_BYTES, NewBatch, NewJob

RETRY_AFTER = 5.0
"""Seconds after which it makes sense to submit again when the queue was full."""

MAX_WAITING_LANES = 200
"""Kinds of work (image, mode, handler, options) of one user that may wait: each decision looks at all of them."""


class Quotas:
    """On the server's event loop. Counts nothing itself: the scheduler knows what waits, the budget what is stored."""

    def __init__(self, settings: Settings, scheduler: Scheduler, budget: Budget) -> None:
        self._settings, self._scheduler, self.budget = settings, scheduler, budget
        self._resuming: dict[int, Lane] = {}

    def require(self, jobs: Sequence[NewJob]) -> None:
        """TooMany, or TooLarge, if these jobs of one lane would be more than their owner may have waiting, or have
        stored."""
        # hot: benchmarks/throughput.py
        lane, count = jobs[0].lane, len(jobs)
        limit, waiting = self._settings.max_queued, self._scheduler.queued(lane.owner_id)
        if waiting + count > limit:
            raise TooMany(
                f"you have {waiting} jobs waiting; with {count} more it would be over your quota of {limit}",
                "Submit them when some have started. An admin can raise the quota: hecaton-server --max-queued N",
                RETRY_AFTER,
            )
        self.require_lane(lane)
        each = _size_of(jobs[0].spec)
        self.budget.require(lane.owner_id, sum([each + len(job.payload.data) for job in jobs]))

    def require_batch(self, batch: NewBatch) -> None:
        """TooLarge if its owner may not have even that stored."""
        self.budget.require(batch.owner_id, _size_of(batch.spec))

    def require_lane(self, lane: Lane) -> None:
        """TooMany if no job of this lane waits and its owner has jobs waiting in as many others as he may."""
        # hot: benchmarks/throughput.py
        lanes = self._scheduler.waiting_lanes(lane.owner_id)
        soon = self._soon(lane.owner_id) if self._resuming else ()
        lanes += len(soon)
        if lanes >= MAX_WAITING_LANES and not self._scheduler.waits_in(lane.key()) and lane.key() not in soon:
            raise TooMany(
                f"your waiting jobs are of {lanes} kinds (image, mode, handler, options), the most for one user",
                "Submit or resume other kinds when some have started. One handler with many payloads is one kind.",
                RETRY_AFTER,
            )

    def resume(self, batch: int, lane: Lane) -> None:
        """TooMany, as `require_lane`. Else the jobs of this paused batch count as waiting from now on, until it is
        `resumed`: they wait step by step, and others could be resumed before the first."""
        self.require_lane(lane)
        self._resuming[batch] = lane

    def resumed(self, batch: int) -> None:
        """What of it may run counts by itself, or its pause has not ended."""
        self._resuming.pop(batch, None)

    def _soon(self, owner: int) -> frozenset[int]:
        """Lanes of this owner in which jobs will wait in a moment, and none do."""
        keys = [lane.key() for lane in self._resuming.values() if lane.owner_id == owner]
        return frozenset(key for key in keys if not self._scheduler.waits_in(key))


def _size_of(spec: JobSpec) -> int:
    """What a job or a batch takes in the store beside its payload. Files were counted when they came."""
    return JOB_BYTES + len(msgspec.json.encode(spec))
