"""The part of the port about jobs: what moves them and what shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from hecaton.core.lifecycle import Verdict
from hecaton.core.model import (
    Attempt,
    AttemptRef,
    Body,
    Charged,
    Failure,
    Job,
    JobId,
    JobSpec,
    JobState,
    Reason,
    WorkerId,
)
from hecaton.core.options import NOTHING_ASKED, Options
from hecaton.core.placement.matching import Lane


class NewJob(msgspec.Struct, frozen=True):
    """A job to store. `key`: idempotency key, unique per owner; `key_digest`: of the request it came with."""

    id: JobId
    owner_id: int
    image_id: int
    lane: Lane
    spec: JobSpec
    payload: Body
    created_at: float
    key: str
    key_digest: bytes
    retry_of: JobId | None = None


class Stored(msgspec.Struct, frozen=True):
    """`duplicate`: the owner used this key before with the same request; id and index are of that first job."""

    id: JobId
    index: int
    duplicate: bool


class Claim(msgspec.Struct, frozen=True):
    """Assign up to `count` jobs of a lane, highest priority first, then oldest, to one slot of one worker. `defaults`:
    what their image has for jobs that ask for nothing else; kept with the attempts."""

    lane: int
    worker_id: WorkerId
    slot: int
    count: int
    defaults: Options = NOTHING_ASKED


class Claimed(msgspec.Struct, frozen=True):
    """An assigned job with all that its worker needs."""

    ref: AttemptRef
    index: int
    owner: str
    image_id: int
    spec: JobSpec
    payload: Body
    key: str
    claim: int  # position in the list of claims it answers
    uid: int | None = None  # its owner's, on the machines
    checkpoint: bool = False  # there is something for it to go on with


class AttemptEnd(msgspec.Struct, frozen=True):
    """How an attempt ended. `by`: the worker that says so, or None for the server itself (lease expired)."""

    ref: AttemptRef
    by: WorkerId | None
    reason: Reason
    at: float
    body: Body | None = None
    failure: Failure | None = None
    exit_code: int | None = None
    started_at: float | None = None
    excused: bool = False  # see `core.lifecycle.judge`
    unseen: float = 0.0  # seconds for which its container may live on: a no-overlap job waits so long
    image_version: str | None = None
    hope: bool = False  # see `core.lifecycle.judge`
    wait: float = 0.0  # seconds before the next attempt, at least


class EndResult(msgspec.Struct, frozen=True):
    """`accepted`: this call ended it. `repeated`: it had ended so before (lost acknowledgement). Neither: fenced.

    `verdict` and `state` tell where the job went; `lane` is set when it waits again. `batch`: the index of the batch it
    belongs to, if this ended the job; `paused`: that batch has paused with it (carry it out with `sweep`). The rest
    is as it stands in a job that this ended."""

    ref: AttemptRef
    accepted: bool
    repeated: bool
    state: JobState | None
    verdict: Verdict | None = None
    lane: int | None = None
    batch: int | None = None
    paused: bool = False
    assigned_at: float | None = None
    started_at: float | None = None
    cancel_requested: bool = False
    image_id: int | None = None


class Returned(msgspec.Struct, frozen=True):
    """An attempt that goes on. `started`: it had begun. `charged`: what its end had been charged to, now taken back."""

    ref: AttemptRef
    lane: int
    started: bool
    charged: Charged


class CancelResult(msgspec.Struct, frozen=True):
    """`state`: after the call. A running job stays as it is with `cancel_requested`; its worker must be told."""

    id: JobId
    state: JobState
    ref: AttemptRef
    worker_id: WorkerId | None
    batch: int | None = None  # index of the batch it belongs to


class Expired(msgspec.Struct, frozen=True):
    """A job that waited too long. `batch` and `paused`: as in `EndResult`."""

    id: JobId
    image_id: int
    batch: int | None = None
    paused: bool = False


class LaneInfo(msgspec.Struct, frozen=True):
    """Jobs that wait in a lane; those with a `run_after` in the future are not counted in `count`."""

    key: int
    lane: Lane
    count: int
    priority: int  # of the first
    since: float  # created_at of the first
    next_run_after: float | None  # when the first delayed one may run


class Page(msgspec.Struct, frozen=True):
    jobs: tuple[Job, ...]
    next_index: int | None  # pass as `before` for the next older page


class Jobs(Protocol):
    # -- the hot path ----------------------------------------------------------------------------
    def submit(self, jobs: Sequence[NewJob]) -> list[Stored]:
        """All or none. A known (owner, key) with the same digest returns its job; with another, Conflict naming it.

        NotFound if an owner or image was deleted meanwhile."""

    def claim(self, claims: Sequence[Claim], now: float) -> list[Claimed]:
        """Waiting -> ASSIGNED with the next attempt number. Fewer than asked: the lane has no more that may run now, or
        the worker was removed.

        Jobs past their `queue_ttl` are not given, though `lanes` counts them until `expire_queued` has ended them."""

    def start(self, refs: Sequence[AttemptRef], at: float, image_version: str | None = None) -> None:
        """ASSIGNED -> IN_PROGRESS where the attempt is current; anything else is silently left alone. `image_version`:
        an end that says none leaves it."""

    def end(self, ends: Sequence[AttemptEnd]) -> list[EndResult]:
        """End attempts by `core.lifecycle.judge`, each only if it is current, unfinished and `by` holds it (or None).

        A requeued job keeps its ended attempt in its history."""

    def return_leases(self, worker: WorkerId, held: Mapping[AttemptRef, int]) -> list[Returned]:
        """A worker is back with these attempts, on these slots. Those that it still holds here, and those that were
        ended for its silence and given to nobody since, go on as if nothing had been. A no-overlap job that was ended
        does not: its worker has stopped it itself."""

    # -- the rest --------------------------------------------------------------------------------
    def job(self, id_or_index: str, owner_id: int | None = None) -> Job | None:
        """By full id, unique id prefix of at least 8 characters, or index. Conflict if several ids begin so.

        With an owner other people's jobs do not count among those that begin so; by id and index they are found."""

    def payload(self, job: JobId) -> Body | None: ...
    def result(self, job: JobId) -> Body | None:
        """None also where it was removed for its age."""

    def attempts(self, job: JobId) -> list[Attempt]:
        """All of them, oldest first, the current or last one included."""

    def jobs(
        self,
        *,
        owner_id: int | None,
        state: JobState | None,
        before: int | None,
        limit: int,
        labels: Sequence[tuple[str, str]] = (),
    ) -> Page:
        """Newest first. `labels`: those that have all of these (`JobSpec.labels`)."""

    def held(self, worker_id: WorkerId) -> list[Claimed]:
        """What a worker was assigned and has not ended, oldest job first, with all it needs to start (claim is 0)."""

    def assigned(self) -> list[tuple[WorkerId, int, AttemptRef, JobState]]:
        """Every held attempt with its worker and slot, oldest job first: the leases after a start of the server."""

    def cancel(self, job: JobId, now: float) -> CancelResult:
        """Waiting -> CANCELLED; running: asks. Terminal: as it is. NotFound."""

    def expire_queued(self, now: float, limit: int = 1000) -> list[Expired]:
        """Waiting longer than their `queue_ttl` -> FAILED(queue_ttl). The time counts anew after a started attempt."""

    def cap_waits(self, now: float, longest_delay: float) -> None:
        """From `now` on no job waits for its next attempt for longer than that, nor in the queue for longer than its
        `queue_ttl`: the clock was set back since, if one would."""

    def lanes(self, now: float) -> list[LaneInfo]:
        """Every lane with waiting jobs. Cost grows with the queue: for the start and a slow tick, not the hot path."""

    def queue_position(self, job: JobId) -> int | None:
        """Jobs of its lane that go first (stops counting at 10,000); None if it does not wait."""
