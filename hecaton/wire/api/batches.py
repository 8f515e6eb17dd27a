"""HTTP bodies about batches."""

from __future__ import annotations

import msgspec

from hecaton.core.batches import FailureGroup
from hecaton.core.model import Failure, JobState, Kind, Mode, Reason
from hecaton.core.options import Options
from hecaton.wire.api.base import Reply, Request
from hecaton.wire.api.jobs import BlobRef

MAX_ITEMS = 10_000
"""Items in one request. Larger batches are sent in several."""


class BatchItem(Request, frozen=True):
    """The payload of one job of a batch: exactly one of the four, as in `NewJob`."""

    input: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    text: str | None = None
    base64: str | None = None
    payload: BlobRef | None = None


class NewBatch(Request, Options, frozen=True):
    """Jobs that differ in their payloads only; stored all or none. `closed` False: more items follow.

    `pause`: when the first 20 jobs to end have all failed alike, hand out no more until it is resumed."""

    image: str | None = None  # None: the server's default one
    items: tuple[BatchItem, ...] = ()
    closed: bool = True
    name: str = ""
    pause: bool = True
    mode: Mode = Mode.NATIVE
    file: str | None = None
    file_name: str | None = None
    args: tuple[str, ...] = ()
    tags: dict[str, str] = {}  # of each of its jobs
    workdir: str | None = None  # folder that goes along with each: as in `NewJob`


class NewItems(Request, frozen=True):
    """Items of an open batch from position `offset` on. Those that are there already are no error, so that a lost
    answer can be asked for again. `closed`: they are the last."""

    offset: int
    items: tuple[BatchItem, ...] = ()
    closed: bool = False


class BatchSubmitted(Reply, frozen=True):
    id: str
    index: int
    size: int
    closed: bool
    duplicate: bool = False  # the idempotency key was known: this is the first batch, as it is now


class BatchView(Reply, frozen=True):
    """`waiting`: neither ended nor with a worker. `rate`: jobs per second that ended lately; `seconds_left`: by it.
    `paused`: why nothing is handed out. `complete`: closed, and every job has ended."""

    id: str
    index: int
    name: str
    image: str
    owner: str
    created_at: float
    size: int
    closed: bool
    waiting: int
    running: int
    finished: int
    failed: int
    cancelled: int
    complete: bool
    paused: str | None
    cancel_requested: bool
    retry_of: str | None
    rate: float | None = None
    seconds_left: float | None = None
    mode: Mode = Mode.NATIVE
    file: str | None = None  # handler: SHA-256 of its blob
    file_name: str | None = None
    failures: tuple[FailureGroup, ...] = ()  # the most frequent first


class BatchResult(Reply, frozen=True, omit_defaults=True):
    """One line of GET /v1/batches/{id}/results (NDJSON). `index`: position in the batch, from 0; `ended_as`: it was the
    so many-th to end, from 1. Results over 1 MiB are not in it (`result_kind` without a result): fetch the job's."""

    index: int
    id: str
    state: JobState
    ended_as: int
    reason: Reason | None = None
    failure: Failure | None = None
    result_kind: Kind | None = None
    result_size: int = 0
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    result_base64: str | None = None


class RetryBatch(Request, frozen=True):
    """Of the failed jobs of a batch. `file`: another handler file than before, an uploaded blob of yours."""

    file: str | None = None
    file_name: str | None = None
