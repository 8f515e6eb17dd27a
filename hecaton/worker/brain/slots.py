"""The things that the worker's brain keeps in mind: held jobs, containers, slots, results to deliver."""

from __future__ import annotations

import dataclasses
import enum
from collections import deque

from hecaton.core.model import AttemptRef, Failure, Gpu, Reason
from hecaton.core.placement.holds import Holds
from hecaton.wire.channel import Assignment, Outcome, SlotInfo, Warm
from hecaton.worker.brain.failures.words import NO_START_HINT


class Phase(enum.IntEnum):
    """Of a container, in the order in which it lives."""

    PREPARING = 0  # its image is being pulled, its files fetched
    STARTING = 1  # the engine is at it
    BOOTING = 2  # runs, has not asked for work
    READY = 3  # asked for work; may be at work
    STOPPING = 4  # to be removed; nothing more is given to it


class EarlyEnd(enum.Enum):
    """Why a held job ends when its container is gone."""

    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    RELEASED = "released"
    REVOKED = "revoked"  # given ahead, and to be withdrawn if it has not begun
    UNHEARD = "unheard"  # no_overlap, and another worker may get it soon
    DROPPED = "dropped"
    MISBEHAVED = "misbehaved"  # `HeldJob.fault` says what was done in its container
    GPU_LOST = "gpu_lost"
    REPLACED = "replaced"  # begun in a process whose card failed it: what it says of this one does not count


NOTHING = Holds()

AHEAD_SECONDS = 0.01
"""Work that a container may have ahead: what waits there longer, another slot could have begun."""

MAX_AHEAD = 64

AHEAD_BYTES = 2 << 20
"""Of payloads in one go: what waits for a container that does not read is bounded, and it reads one job at a time."""


@dataclasses.dataclass(slots=True, eq=False)
class HeldJob:
    """A job that this worker holds and that has no result yet. `here`: its payload is on this machine.

    `adopted`: an earlier process of this worker gave it to its container, and the payload with it. `image`: digest or
    id of what it runs in. `fault`: how it ends, if that is the fault of what was done in its container. `holds`: of its
    place."""

    assignment: Assignment
    here: bool
    started_at: float | None = None
    ending: EarlyEnd | None = None
    adopted: bool = False
    image: str | None = None
    fault: tuple[Reason, Failure] | None = None
    holds: Holds = NOTHING

    @property
    def ref(self) -> AttemptRef:
        return self.assignment.ref

    @property
    def warm_key(self) -> str | None:
        return self.assignment.warm_key

    def ran(self, now: float) -> float | None:
        """Seconds since it began; None: it has not."""
        return None if self.started_at is None else now - self.started_at


@dataclasses.dataclass(slots=True, eq=False)
class Container:
    """`started_for`: the job whose start this is; failures of the start are that job's and no other's.

    `since`: when it came up, or when its last job ended. `ahead`: given before their turn, in this order; each may be
    withdrawn until it begins. `pace`: seconds between the ends of its last jobs, averaged."""

    id: str
    slot: int
    warm_key: str | None
    image: str
    started_for: AttemptRef
    since: float
    phase: Phase = Phase.PREPARING
    running: HeldJob | None = None
    ahead: deque[HeldJob] = dataclasses.field(default_factory=deque)
    takes_ahead: bool = False
    withdrawing: bool = False  # what it has ahead
    pace: float | None = None
    served: bool = False  # has been given a job
    runs: str | None = None  # digest or id of its image
    words: str = ""  # the last ones before it asked for work
    hint: str = NO_START_HINT  # what to do if it never does
    failed_like: str | None = None  # what its last failure reads like, if no job has succeeded since
    failures: int = 0  # that read so, in a row
    outdated: bool = False  # its image's name means another one now: it takes nothing that it was not given
    holds: Holds = NOTHING  # of the machine, until it is gone

    def suits(self, job: HeldJob) -> bool:
        if self.warm_key is None or self.outdated:
            return self.started_for == job.ref or job in self.begun()
        return self.warm_key == job.warm_key and (self.holds is job.holds or self.holds == job.holds)

    @property
    def shared(self) -> str | None:
        """The key of the jobs that may come to it."""
        return None if self.outdated else self.warm_key

    def room_ahead(self) -> int:
        """How many jobs it may have ahead: none, unless its jobs are so short that going to and fro costs as much."""
        if not self.takes_ahead or self.pace is None:
            return 0
        return min(MAX_AHEAD, int(AHEAD_SECONDS / max(self.pace, 1e-5)))

    def begun(self) -> list[HeldJob]:
        """What it has been given and may have begun."""
        return [*([self.running] if self.running is not None else []), *self.ahead]

    def ended_one(self, now: float) -> None:
        """The one that ran has ended."""
        if self.running is not None and self.running.started_at is not None:
            took = now - self.running.started_at
            self.pace = took if self.pace is None else self.pace + 0.2 * (took - self.pace)
        self.running, self.since = None, now


@dataclasses.dataclass(slots=True, eq=False)
class WorkerSlot:
    """Room for one container at a time. `jobs`: first in, first out; the first one runs or is being prepared for.

    `own`: what it holds where an assignment says nothing of it; None: it was opened by one, and is there as long as it
    has a job or a container. `gpu`: its card, of one with `own`. `lost`: why its card can be used no more; nothing is
    taken or started there until the worker is started anew, or, of one without `own`, until its container is gone."""

    index: int
    gpu: Gpu | None
    own: Holds | None
    lost: str | None = None
    container: Container | None = None
    jobs: deque[HeldJob] = dataclasses.field(default_factory=deque)

    @property
    def holds(self) -> Holds:
        """What it holds now, or will for its first job."""
        if self.container is not None:
            return self.container.holds
        return self.jobs[0].holds if self.jobs else self.own or NOTHING

    @property
    def empty(self) -> bool:
        return self.container is None and not self.jobs

    @property
    def info(self) -> SlotInfo:
        """For Hello."""
        holds = self.holds
        return SlotInfo(self.index, self.gpu, *self.warm, self.lost, None if holds == self.own else holds)

    @property
    def warm(self) -> tuple[str | None, str | None]:
        """Key and image of what is warm here."""
        container = self.container
        if container is None or container.phase is not Phase.READY or container.shared is None:
            return None, None
        return container.shared, container.image

    def news(self) -> Warm:
        """For the server: what is warm here, and what of its image runs."""
        return Warm(self.index, *self.warm, None if self.container is None else self.container.runs)


@dataclasses.dataclass(slots=True, eq=False)
class Done:
    """A result that the server has not accepted yet. `ended_at` is monotonic, and may lie before the worker's start."""

    outcome: Outcome
    slot: int
    ended_at: float
    container: str | None = None
    acknowledged: bool = False
