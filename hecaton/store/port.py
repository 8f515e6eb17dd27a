"""What is remembered, as a port: one method = one domain verb, guarded by the state or attempt that it expects.

`Store` methods are plain and synchronous; they run inside a transaction that `Database` opens. So a use case combines
verbs in one function, and a hundred callers share one commit (group commit):

    await database.write(lambda store: store.submit(jobs))      durable (fsynced) when this returns
    await database.read(lambda store: store.job(job_id))        a consistent snapshot, never blocked by writers

A function given to `write` may be run twice: when another one of its batch raises, the batch is undone and repeated. So
it must do nothing but call verbs and compute (no sending, no counters). A result is delivered only after the commit.

Verbs of the hot path take and return lists. Payloads, results and logs are bytes: no engine ever parses them. Adapters
raise `core.errors` only: `Conflict` and `NotFound` for domain cases, `Unavailable` when the disk is full or the engine
is away. Contract: tests/contracts/store_contract.py, run on every adapter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

import msgspec

from hecaton.core.batches import Batch, FailureGroup
from hecaton.core.lifecycle import Verdict
from hecaton.core.matching import Lane
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
from hecaton.store.accounts import Accounts
from hecaton.store.retention import Retention

T = TypeVar("T")


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
    """Assign up to `count` jobs of a lane, highest priority first, then oldest, to one slot of one worker."""

    lane: int
    worker_id: WorkerId
    slot: int
    count: int


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
    log_size: int = 0
    excused: bool = False  # see `core.lifecycle.judge`
    unseen: float = 0.0  # seconds for which its container may live on: a no-overlap job waits so long


class Ended(msgspec.Struct, frozen=True):
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


class Resumed(msgspec.Struct, frozen=True):
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
    """A job that waited too long. `batch` and `paused`: as in `Ended`."""

    id: JobId
    batch: int | None = None
    paused: bool = False


class NewBatch(msgspec.Struct, frozen=True):
    """A batch to store, its items not included. `may_pause`: by itself, when its first jobs all fail alike."""

    id: str
    owner_id: int
    image_id: int
    name: str
    spec: JobSpec
    created_at: float
    key: str
    key_digest: bytes
    may_pause: bool = True
    retry_of: str | None = None


class Appended(msgspec.Struct, frozen=True):
    """`size`: items of the batch now. `waiting`: how many of the new ones wait for a slot (none where it is paused)."""

    size: int
    waiting: int


class EndedItem(msgspec.Struct, frozen=True):
    """An ended job of a batch. `item`: its position; `ended_as`: it was the so many-th to end, from 1. The `blob` of a
    `result` that was removed for its age is empty."""

    item: int
    ended_as: int
    job: JobId
    state: JobState
    reason: Reason | None
    failure: Failure | None
    result: Body | None


class FailedItem(msgspec.Struct, frozen=True):
    item: int
    job: JobId
    payload: Body


class Swept(msgspec.Struct, frozen=True):
    """One step of carrying out a pause, a resumption or a cancellation (`cancelled`: jobs that ended by it, or whose
    workers must be told). So many jobs wait no longer for a slot (`withheld`), or do again (`released`)."""

    batch: Batch
    withheld: int = 0
    released: int = 0
    cancelled: tuple[CancelResult, ...] = ()


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


class Store(Accounts, Retention, Protocol):
    # -- jobs: the hot path --------------------------------------------------------------------
    def submit(self, jobs: Sequence[NewJob]) -> list[Stored]:
        """All or none. A known (owner, key) with the same digest returns its job; with another, Conflict naming it.

        NotFound if an owner or image was deleted meanwhile."""

    def claim(self, claims: Sequence[Claim], now: float) -> list[Claimed]:
        """Waiting -> ASSIGNED with the next attempt number. Fewer than asked: the lane has no more that may run now.

        Jobs past their `queue_ttl` are not given, though `lanes` counts them until `expire_queued` has ended them."""

    def start(self, refs: Sequence[AttemptRef], at: float) -> None:
        """ASSIGNED -> IN_PROGRESS where the attempt is current; anything else is silently left alone."""

    def end(self, ends: Sequence[AttemptEnd]) -> list[Ended]:
        """End attempts by `core.lifecycle.judge`, each only if it is current, unfinished and `by` holds it (or None).

        A requeued job keeps its ended attempt in its history."""

    def resume(self, worker: WorkerId, held: Mapping[AttemptRef, int]) -> list[Resumed]:
        """A worker is back with these attempts, on these slots. Those that it still holds here, and those that were
        ended for its silence and given to nobody since, go on as if nothing had been. A no-overlap job that was ended
        does not: its worker has stopped it itself."""

    # -- batches -------------------------------------------------------------------------------
    def create_batch(self, batch: NewBatch) -> tuple[Batch, bool]:
        """The batch, and whether (owner, key) was known before; with another digest Conflict. NotFound as `submit`."""

    def append(self, batch_id: str, offset: int, jobs: Sequence[NewJob]) -> Appended:
        """Items from position `offset` on, all or none; those that are there already are left as they are.

        Conflict if items before `offset` are missing, if the batch is closed or cancelled, or if an item that is there
        came with another key digest. Each job's key has to name batch and position. NotFound."""

    def close_batch(self, batch_id: str) -> None:
        """No more items will come. Repeatable."""

    def batch(self, id_or_index: str) -> Batch | None: ...
    def batches(self, *, owner_id: int | None, before: int | None, limit: int) -> list[Batch]:
        """Newest first."""

    def batch_failures(self, index: int) -> list[FailureGroup]:
        """The most frequent first."""

    def batch_running(self, index: int) -> int:
        """Its jobs that workers hold."""

    def batch_pace(self, index: int, now: float) -> float | None:
        """Jobs per second that ended lately; None while too few have."""

    def ended_items(
        self, index: int, after: int, limit: int, *, max_bytes: int, in_input_order: bool
    ) -> list[EndedItem]:
        """In the order in which they ended, from the one after the `after`-th; or in input order, from position `after`
        up to the first that has not ended. Stops early once the results are more than `max_bytes`."""

    def failed_items(self, index: int, start: int, limit: int) -> list[FailedItem]:
        """Those that FAILED among the positions from `start` on, in input order."""

    def last_retried(self, index: int) -> int | None:
        """Of a batch that repeats another one: the position in that other one of what its last item repeats."""

    def set_paused(self, index: int, why: str | None) -> None:
        """Pause, or resume with None. `sweep` carries it out."""

    def cancel_batch(self, index: int) -> None:
        """`sweep` carries it out. No more items are taken. Repeatable."""

    def sweep(self, now: float, limit: int = 1000) -> Swept | None:
        """Carry out one step of what is still to be carried out; None when nothing is. Survives a crash in between."""

    # -- jobs: the rest ------------------------------------------------------------------------
    def job(self, id_or_index: str) -> Job | None:
        """By full id, unique id prefix of at least 8 characters, or index. Conflict if several ids begin so."""

    def payload(self, job: JobId) -> Body | None: ...
    def result(self, job: JobId) -> Body | None:
        """None also where it was removed for its age."""

    def attempts(self, job: JobId) -> list[Attempt]:
        """All of them, oldest first, the current or last one included."""

    def jobs(self, *, owner_id: int | None, state: JobState | None, before: int | None, limit: int) -> Page:
        """Newest first."""

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

    # -- logs and blobs ------------------------------------------------------------------------
    def append_log(self, ref: AttemptRef, offset: int, data: bytes) -> int:
        """Pieces may repeat or overlap: what is there stays; one that would leave a gap is not taken. Returns
        the length now (where to go on). NotFound for attempts that do not exist."""

    def read_log(self, job: JobId, attempt: int, offset: int, limit: int) -> bytes: ...
    def log_tail(self, job: JobId, attempt: int, limit: int) -> bytes: ...
    def add_blob(self, sha256: str, owner_id: int, size: int, now: float) -> None:
        """Repeatable."""

    def has_blob(self, sha256: str, owner_id: int) -> bool: ...
    def unused_blobs(self, before: float, limit: int = 1000) -> list[str]:
        """Blobs that no job refers to and that nobody added since `before`."""

    def forget_blobs(self, sha256s: Sequence[str]) -> None: ...

    # -- meta ----------------------------------------------------------------------------------
    def meta(self, key: str) -> str | None: ...
    def set_meta(self, key: str, value: str) -> None: ...
    def adopt_copy(self, now: float) -> float | None:
        """Called at every start. If this is a copy made by `backup`: its age in seconds; whatever was running in it
        waits again, and no attempt that the original may have given out since is ever given out here. Else None."""


class Database(Protocol):
    """Opens, migrates and closes; runs functions over a `Store` inside transactions."""

    async def write(self, work: Callable[[Store], T]) -> T:
        """Run `work` in order of the calls; return when it is durable. An exception undoes this work alone."""
        ...

    async def read(self, work: Callable[[Store], T]) -> T: ...
    async def close(self) -> None: ...


class Blobs(Protocol):
    """Files named by the SHA-256 of their content. A blob is complete or absent, and fsynced when there."""

    def path(self, sha256: str) -> str | None:
        """A local file to read, or None if there is no such blob."""

    def writer(self) -> BlobWriter: ...
    def delete(self, sha256: str) -> None: ...


class BlobWriter(Protocol):
    """Blocking: call from a thread for big bodies. Exactly one of `commit` or `abort` ends it."""

    def write(self, data: bytes) -> None: ...
    def commit(self, expected_sha256: str | None = None) -> str:
        """Fsync, move in place, return the hash. BadRequest if it is not the expected one."""

    def abort(self) -> None: ...
