"""Why nothing happens to a job now: in all, and for each worker."""

from __future__ import annotations

from itertools import islice

from hecaton.core.batches import lane_of
from hecaton.core.model import Job, JobState, WorkerId
from hecaton.core.options import demands
from hecaton.core.placement.matching import Want, refusal, why_waiting
from hecaton.server.accounts.directory import Directory
from hecaton.server.fleet.lanes import needs
from hecaton.server.fleet.members import Fleet
from hecaton.server.fleet.packed import needs_asked, why_not
from hecaton.server.fleet.scheduler import Scheduler
from hecaton.server.resources import Resources
from hecaton.wire import api

HOLDERS_SHOWN = 32
"""Jobs at work that one answer names."""

Holders = dict[WorkerId, tuple[api.Holder, ...]]
"""Who works on a worker."""


class Waits:
    """On the server's event loop: says what memory knows."""

    def __init__(self, resources: Resources, directory: Directory, fleet: Fleet, scheduler: Scheduler) -> None:
        self._clock, self._settings, self._database = resources.clock, resources.settings, resources.database
        self._directory, self._fleet = directory, fleet
        self._scheduler, self._pulls = scheduler, scheduler.pulls

    async def holders(self) -> Holders:
        """The job that works on each place, as long as there are few."""
        at_work = (
            (member.id, first.ref.job)
            for member in self._fleet.members.values()
            for slot in member.slots.values()
            if (first := next(iter(slot.held.values()), None)) is not None
        )
        pairs = list(islice(at_work, HOLDERS_SHOWN))
        jobs = await self._database.read(lambda store: [store.job(job_id) for _, job_id in pairs]) if pairs else []
        found: Holders = {}
        for (worker, _), job in zip(pairs, jobs, strict=True):
            if job is not None:
                found[worker] = (*found.get(worker, ()), holder(job))
        return found

    def why(self, job: Job, holders: Holders) -> list[api.Waiting]:
        if job.state is not JobState.IN_QUEUE:
            return self._why_there(job)
        image = self._directory.image(job.image_id)
        lane = lane_of(job.owner_id, job.image_id, job.spec)
        asks = demands(lane.asks)
        name = image.name if image else job.image
        want = Want(job.lane, name, job.spec.mode, None, 1, 0, job.created_at, asks=needs(asks, image))
        without = self._pulls.why(name)
        members = sorted(self._fleet.members.values(), key=lambda member: member.name)
        needed = needs_asked(lane, image)
        lines = []
        for member in members:
            host = member.host()
            never = refusal(want, host) or without.get(host.id)
            working = holders.get(host.id, ()) if never is None else ()
            why = why_waiting(want, host) if needed is None else why_not(needed, member)
            lines.append(api.Waiting(host.name, never or why, working))
        nobody = None if needed is None else self._fleet.nobody_could(needed)
        if nobody is not None:
            lines.insert(0, api.Waiting("*", nobody))
        if job.batch_paused is not None:
            lines.insert(0, api.Waiting("*", f"its batch is paused: {job.batch_paused}"))
        if self._scheduler.stopped:
            lines.insert(0, api.Waiting("*", "the server's disk is nearly full: nothing starts until there is room"))
        if job.owner_id in self._scheduler.held:
            over = f"{job.owner} has stored as much as one user may: nothing of it starts (hecaton usage)"
            lines.insert(0, api.Waiting("*", over))
        most, running = self._scheduler.max_running, self._scheduler.running(job.owner_id)
        if most is not None and running >= most:
            full = f"{running} places work for {job.owner}, the most for one user (hecaton-server --max-running)"
            lines.insert(0, api.Waiting("*", full))
        wait = job.run_after - self._clock.now()
        if wait > 0:
            lines.insert(0, api.Waiting("*", f"the next attempt starts in {wait:.0f} s (back-off after a failure)"))
        if not members:
            lines.append(api.Waiting("*", "no worker is connected: start one with `hecaton-gpu run <server>`"))
        return lines

    def _why_there(self, job: Job) -> list[api.Waiting]:
        """Why nothing happens to a job that a worker has."""
        member = self._fleet.members.get(job.worker_id) if job.worker_id and not job.state.terminal else None
        if member is None:
            return []
        if member.link is None:
            left = max(0.0, member.last_contact + self._settings.lost_after - self._clock.now())
            after = "counts as cancelled" if job.cancel_requested else "is given to another worker"
            return [api.Waiting(member.name, f"is not connected: unless it returns, the job {after} in {left:.0f} s")]
        before = member.before(job.id)
        if job.state is JobState.ASSIGNED and before:
            others = "one job that runs" if before == 1 else f"{before} jobs"
            return [api.Waiting(member.name, f"has it already, behind {others} on the same slot")]
        return []


def holder(job: Job) -> api.Holder:
    spec, started_at = job.spec, job.started_at
    ends_by = None if spec.timeout is None or started_at is None else started_at + spec.timeout
    since = started_at or job.assigned_at or job.created_at
    return api.Holder(job.index, job.owner, spec.name or spec.file_name, since, ends_by)
