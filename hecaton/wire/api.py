"""HTTP bodies of the people's API under /v1, for server and client. The OpenAPI description is generated from these.

Times are seconds since the epoch, sizes bytes, durations seconds.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec

from hecaton.core.batches import FailureGroup
from hecaton.core.model import Attempt, Failure, Gpu, JobState, Kind, Mode, Reason, Role, WorkerStatus
from hecaton.core.options import NOTHING_ASKED, Defaults, DefaultsChange, Options
from hecaton.core.shown import shown

API = "/v1"
"""Prefix of every route but /, /healthz and /openapi.json."""

IDEMPOTENCY_HEADER = "Idempotency-Key"
_null = partial(msgspec.Raw, b"null")


class _Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Unknown fields are errors: a typo in `retires` must not silently mean no retries."""


class _Reply(msgspec.Struct, frozen=True):
    """Clients ignore fields they do not know: a newer server may send more."""

    __repr__ = shown


# -- who -------------------------------------------------------------------------------------------


class Login(_Request, frozen=True):
    username: str
    password: str


class Token(_Reply, frozen=True):
    token: str
    username: str
    role: Role
    expires_at: float


class NewUser(_Request, frozen=True):
    username: str
    password: str
    role: Role = Role.USER


class NewPassword(_Request, frozen=True):
    """`old_password`: needed for one's own."""

    password: str
    old_password: str | None = None


class UserView(_Reply, frozen=True):
    username: str
    role: Role
    created_at: float


# -- images ----------------------------------------------------------------------------------------


class NewImage(_Request, frozen=True):
    name: str
    description: str = ""
    verify: bool = True  # ask the image's registry whether it exists
    defaults: Defaults = {}


class ImageChange(_Request, frozen=True):
    """Fields left out stay as they are. `env` replaces the whole environment."""

    env: dict[str, str] | None = None
    description: str | None = None
    refresh: bool = False  # resolve the tag to its digest again
    defaults: DefaultsChange | None = None  # null takes one back


class ImageVersion(_Reply, frozen=True):
    """What an image's name means on a worker's machine. `version`: the engine's id; None: nothing, or it is not known.
    `digest`: what the registry said to a login of that machine, where it was asked. `warning`: why there is no more."""

    worker: str
    version: str | None
    made_at: float | None
    digest: str | None
    warning: str | None


class ImageView(_Reply, frozen=True):
    """`env` is None for everyone but admins. `warning`: why the registry could not confirm the image. `versions`: of
    the workers that are connected, where one image is shown."""

    name: str
    digest: str | None
    description: str
    env: dict[str, str] | None
    env_revision: int
    created_at: float
    updated_at: float
    warning: str | None = None
    versions: tuple[ImageVersion, ...] = ()
    defaults: Options = NOTHING_ASKED  # for jobs that ask for nothing else
    owner: str | None = None  # who alone uses it; None: everybody may


# -- jobs ------------------------------------------------------------------------------------------


class BlobRef(_Request, frozen=True):
    """Bytes uploaded before with PUT /v1/blobs/{sha256}."""

    sha256: str
    size: int
    kind: Kind = Kind.BYTES


class NewJob(_Request, Options, frozen=True):
    """Exactly one of: `input` (any JSON value), `text`, `base64`, `payload` (an uploaded blob)."""

    image: str | None = None  # None: the server's default one
    input: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    text: str | None = None
    base64: str | None = None
    payload: BlobRef | None = None
    mode: Mode = Mode.NATIVE
    file: str | None = None  # handler or script: SHA-256 of its uploaded blob
    file_name: str | None = None
    args: tuple[str, ...] = ()
    name: str | None = None  # what you call it
    tags: dict[str, str] = {}


class Submitted(_Reply, frozen=True):
    id: str
    index: int
    duplicate: bool = False  # the idempotency key was known: this is the first job, unchanged


class Waiting(_Reply, frozen=True):
    """Why one worker does not run a waiting job now."""

    worker: str
    why: str


class JobSummary(_Reply, frozen=True):
    id: str
    index: int
    state: JobState
    image: str
    owner: str
    created_at: float
    started_at: float | None
    ended_at: float | None
    attempt: int
    worker: str | None
    reason: Reason | None
    name: str | None = None
    mode: Mode = Mode.NATIVE
    file_name: str | None = None  # handler or script
    args: tuple[str, ...] = ()
    tags: dict[str, str] = {}


class AttemptView(Attempt, frozen=True, omit_defaults=True):
    log_tail: str | None = None  # the last 50 lines, where it ended without a result


class JobView(_Reply, Options, frozen=True, omit_defaults=False):
    """Everything about a job. Results up to 1 MiB: `result` (JSON, text as a string) or `result_base64`;
    `result_size` always; the bytes themselves at GET /v1/jobs/{id}/result."""

    id: str
    index: int
    state: JobState
    image: str
    owner: str
    mode: Mode
    created_at: float
    assigned_at: float | None
    started_at: float | None
    ended_at: float | None
    attempt: int
    worker: str | None
    reason: Reason | None
    failure: Failure | None
    exit_code: int | None
    cancel_requested: bool
    retry_of: str | None
    payload_kind: Kind
    payload_size: int
    payload: msgspec.Raw = msgspec.field(default_factory=_null)  # JSON or text payloads up to 64 KiB, else null
    result_kind: Kind | None = None
    result_size: int = 0
    result: msgspec.Raw = msgspec.field(default_factory=_null)
    result_base64: str | None = None
    progress: Any = None  # what the handler reported last
    note: str | None = None  # what the worker is doing for it: "pulling python:3.9-slim, 40 %"
    queue_position: int | None = None  # jobs before it in its own lane
    waiting: tuple[Waiting, ...] = ()  # why nothing happens to it now
    attempts: tuple[AttemptView, ...] = ()  # oldest first, the current one last
    log_tail: str | None = None  # failed jobs: the last 50 lines
    removed: str | None = None  # set where there was a result that is not kept any longer: "... after 30 days"
    batch: str | None = None  # id of the batch it belongs to
    item: int | None = None  # its position there, from 0
    name: str | None = None
    file_name: str | None = None  # handler or script
    args: tuple[str, ...] = ()
    tags: dict[str, str] = {}


class JobPage(_Reply, frozen=True):
    jobs: tuple[JobSummary, ...]
    next: str | None  # pass as ?before= to get the next older page


class JobEvent(_Reply, frozen=True):
    """One line of GET /v1/jobs/{id}/events (NDJSON), until the job is terminal.

    event: "state" (value: the state), "log" (value: text, offset: of its end), "progress", "note",
    "end" (value: JobView)."""

    event: str
    value: Any = None
    attempt: int = 0
    offset: int = 0


# -- batches ---------------------------------------------------------------------------------------

MAX_ITEMS = 10_000
"""Items in one request. Larger batches are sent in several."""


class BatchItem(_Request, frozen=True):
    """The payload of one job of a batch: exactly one of the four, as in `NewJob`."""

    input: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    text: str | None = None
    base64: str | None = None
    payload: BlobRef | None = None


class NewBatch(_Request, Options, frozen=True):
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


class NewItems(_Request, frozen=True):
    """Items of an open batch from position `offset` on. Those that are there already are no error, so that a lost
    answer can be asked for again. `closed`: they are the last."""

    offset: int
    items: tuple[BatchItem, ...] = ()
    closed: bool = False


class BatchSubmitted(_Reply, frozen=True):
    id: str
    index: int
    size: int
    closed: bool
    duplicate: bool = False  # the idempotency key was known: this is the first batch, as it is now


class BatchView(_Reply, frozen=True):
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


class BatchResult(_Reply, frozen=True, omit_defaults=True):
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


# -- workers ---------------------------------------------------------------------------------------


class NewWorker(_Request, frozen=True):
    name: str


class WorkerCredentials(_Reply, frozen=True):
    id: str
    name: str
    token: str  # 256 random bits; shown once


class SlotView(_Reply, frozen=True):
    index: int
    gpu: Gpu | None
    state: str  # "idle", "busy"; "lost": it cannot be used, the worker's `note` says why
    image: str | None  # of the warm container on it, where the caller may see that image
    jobs: tuple[str, ...]


class WorkerView(_Reply, frozen=True):
    id: str
    name: str
    status: WorkerStatus
    last_seen: float
    runtime: str | None
    version: str | None
    registered_by: str
    slots: tuple[SlotView, ...] = ()
    drained: bool = False  # by an admin: gets nothing new, also after it comes back
    note: str | None = None  # why it gets nothing, where that needs a sentence


# -- server ----------------------------------------------------------------------------------------


class About(_Reply, frozen=True):
    """GET /: for whoever opens the address to see what answers there."""

    version: str
    name: str = "Hecaton"
    what: str = "A queue of jobs for machines with GPUs: submit a payload and an image, get the result."
    api: str = "/openapi.json"
    health: str = "/healthz"
    client: str = "pip install hecaton; hecaton server new --ip HOST:PORT --name NAME; hecaton server login NAME"


class Health(_Reply, frozen=True):
    status: str
    version: str
    server_id: str
    time: float


class ServerInfo(_Reply, frozen=True):
    """GET /v1/server: who am I here, and which limits hold."""

    version: str
    username: str
    role: Role
    max_payload: int
    max_result: int
    max_queued: int = 0  # waiting jobs that one user may have
    keep_results: float = 0.0  # seconds after a job's end, as the next two
    keep_logs: float = 0.0
    keep_jobs: float = 0.0
    default_image: str | None = None  # of jobs that name none
