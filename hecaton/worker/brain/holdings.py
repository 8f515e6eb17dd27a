"""What the worker holds: slots, containers, jobs, results; and the small moves that keep it consistent. What is to be
done about it is decided in `steps` and `ends`.
"""

from __future__ import annotations

from collections.abc import Iterable

from hecaton.core.model import AttemptRef, Gpu, JobId
from hecaton.wire.channel import Held, SlotInfo
from hecaton.worker.brain.places import Places
from hecaton.worker.brain.settings import WorkerSettings
from hecaton.worker.brain.slots import Container, Done, HeldJob, Phase, WorkerSlot


class Holdings:
    """Between two events (`invariants` has it as code):

    - a job stands on the one slot that it was assigned to, in the order in which the jobs came, and is filed under its
      id; there is one attempt of it at most, and none that has a result;
    - a container stands on one slot, a slot has one at most; what it works on and has ahead are the first jobs of its
      slot, all of which suit it;
    - a job that is to end early waits for its container to stop or to say what it has not begun;
    - unless the worker leaves, a slot with jobs has a container, or waits for what other containers hold, and one that
      can begin has begun;
    - no card, and no byte of one, is held by two containers.

    `done`: results that the server has not accepted. `no_overlap`: those of `jobs` that ask for it. `leaving`: exit
    code and message; not None: nothing new is started. `stays`: it leaves what runs and what is warm to the next
    process of this worker. `grace`: seconds that a container gets between SIGTERM and SIGKILL; `no_overlap_grace`: that
    of a job which another worker may get soon. `guarded`: a warden watches; without one no no-overlap job begins.
    `disk_full`: nothing new is taken. `drained`: the server gives nothing new, and no container waits for more."""

    def __init__(self, gpus: tuple[Gpu, ...], settings: WorkerSettings, done: Iterable[Done]) -> None:
        self.places = Places(gpus, settings)
        self.slots = self.places.by_number
        self.jobs: dict[JobId, HeldJob] = {}
        self.containers: dict[str, Container] = {}
        self.done: dict[AttemptRef, Done] = {result.outcome.ref: result for result in done}
        self.no_overlap: set[JobId] = set()
        self.leaving: tuple[int, str] | None = None
        self.stays = False
        self.grace = settings.grace
        self.no_overlap_grace = 0.0
        self.guarded = False
        self.disk_full = False
        self.drained = False

    # -- moves ---------------------------------------------------------------------------------------

    def add(self, job: HeldJob) -> None:
        """Behind the others of its slot."""
        self.jobs[job.ref.job] = job
        self.places.open(job.assignment.slot).jobs.append(job)
        if job.assignment.options.no_overlap:
            self.no_overlap.add(job.ref.job)

    def remove(self, job: HeldJob) -> None:
        del self.jobs[job.ref.job]
        self.no_overlap.discard(job.ref.job)
        self.slot_of(job).jobs.remove(job)

    def place(self, container: Container) -> None:
        """On its slot, which has none."""
        self.places.open(container.slot).container = self.containers[container.id] = container

    def clear(self, container: Container) -> WorkerSlot:
        """It is no more. Returns its slot."""
        slot = self.slots[container.slot]
        del self.containers[container.id]
        slot.container = None
        return slot

    # -- looks ---------------------------------------------------------------------------------------

    def find(self, ref: AttemptRef) -> HeldJob | None:
        """None: it is not held, or another attempt of it is."""
        job = self.jobs.get(ref.job)
        return job if job is not None and job.ref == ref else None

    def slot_of(self, job: HeldJob) -> WorkerSlot:
        return self.slots[job.assignment.slot]

    def may_have_started(self, job: HeldJob) -> bool:
        """A fresh container is its job: once the engine is at it, code of the job may run."""
        container = self.slot_of(job).container
        if container is None:
            return False
        fresh = container.warm_key is None and container.started_for == job.ref and container.phase > Phase.PREPARING
        return container.running is job or fresh or job in container.ahead

    def may_begin(self, job: HeldJob) -> bool:
        return self.guarded or not job.assignment.options.no_overlap

    def is_ahead(self, job: HeldJob) -> bool:
        container = self.slot_of(job).container
        return container is not None and job in container.ahead

    def has(self, ref: AttemptRef) -> bool:
        """The job, or its result."""
        return self.find(ref) is not None or ref in self.done

    def slot_infos(self) -> tuple[SlotInfo, ...]:
        """For Hello: the slots and what is warm on them."""
        return tuple(slot.info for slot in self.slots.values())

    def held(self, now: float) -> tuple[Held, ...]:
        """For Hello: every job that is still here, running, waiting or with a result to deliver."""
        held = [
            Held(job.ref, job.assignment.slot, "queued")
            if job.started_at is None
            else Held(job.ref, job.assignment.slot, "running", now - job.started_at)
            for job in self.jobs.values()
        ]
        there = self.slots  # a place that was opened may be closed before its last result is accepted
        held += [
            Held(ref, done.slot if done.slot in there else 0, "done", done.outcome.ran or 0.0)
            for ref, done in self.done.items()
        ]
        return tuple(held)
