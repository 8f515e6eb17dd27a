"""The nouns: jobs, attempts, images, users, workers, and the words for their states. Read by every other folder.

Times are seconds since the epoch as the server's clock counts them (`server.clock`: monotonic after start, so that a
jump of the wall clock expires nothing). Sizes are bytes.
"""

from __future__ import annotations

import enum
from typing import Annotated, NewType

import msgspec

from hecaton.core.options import NOTHING_ASKED, Options

JobId = NewType("JobId", str)
"""UUIDv7 in its 36-character form (RFC 9562): ids sort by submission."""

JOB_ID_LENGTH = 36
"""What is shorter may be the start of an id."""

WorkerId = NewType("WorkerId", str)

INLINE_LIMIT = 1024 * 1024
"""Payloads and results up to this size travel inside messages and live in the store; larger ones are blobs."""


class JobState(enum.StrEnum):
    IN_QUEUE = "IN_QUEUE"
    ASSIGNED = "ASSIGNED"
    IN_PROGRESS = "IN_PROGRESS"
    FINISHED = "FINISHED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def terminal(self) -> bool:
        return self in _TERMINAL


_TERMINAL = frozenset({JobState.FINISHED, JobState.FAILED, JobState.CANCELLED})


class Reason(enum.StrEnum):
    """Why an attempt or a job ended. Stored and shown to users: a new one is an API change."""

    OK = "ok"
    HANDLER_ERROR = "handler_error"  # the handler raised
    HANDLER_EXIT = "handler_exit"  # the container or script ended with an exit code other than 0 during the job
    SCRIPT_EXIT = "script_exit"  # HANDLER_EXIT of a job that has no handler; shown only, neither said nor stored
    STARTUP_EXIT = "startup_exit"  # the container ended without ever asking for work
    NO_RESULT = "no_result"  # the container ended with exit code 0 in the middle of the job
    RESULT_INVALID = "result_invalid"  # not JSON, bytes or a file
    RESULT_TOO_LARGE = "result_too_large"
    TIMEOUT = "timeout"
    QUEUE_TTL = "queue_ttl"  # waited longer in the queue than it was allowed to
    OOM_HOST = "oom_host"  # killed by the kernel for its memory
    OOM_GPU = "oom_gpu"
    GPU_LOST = "gpu_lost"
    IMAGE_PULL = "image_pull"  # registry unreachable, rate limit, disk full: may pass
    IMAGE_DENIED = "image_denied"  # does not exist, no access, wrong platform: will not pass
    NO_ROOM = "no_room"  # the payload is larger than the room on the worker's disk; a worker says it by `released`
    CANCELLED = "cancelled"
    POISON = "poison"  # too many workers were lost while running it
    WORKER_LOST = "worker_lost"  # the worker was silent for longer than `lost_after`
    WORKER_ERROR = "worker_error"  # engine or disk of the worker failed
    RELEASED = "released"  # handed back before it started: drain, revoke, restart


class Charged(enum.StrEnum):
    """Who pays for an ended attempt: only `user` uses up retries, only `infra` counts towards `poison`."""

    USER = "user"
    INFRA = "infra"
    NONE = "none"


class Role(enum.StrEnum):
    ADMIN = "admin"
    USER = "user"
    WORKER = "worker"


class KeyScope(enum.StrEnum):
    """What a key is good for, once."""

    LOGIN = "login"
    """A login as whoever made it."""
    ENROL = "enrol"
    """A new worker."""


class Kind(enum.StrEnum):
    """How the bytes of a payload or result are to be read."""

    JSON = "json"
    TEXT = "text"
    BYTES = "bytes"


class Mode(enum.StrEnum):
    """How the image is spoken to."""

    NATIVE = "native"  # its own command calls `hecaton.serverless.start`
    HANDLER = "handler"  # a handler file that travelled with the job, run by the image's Python
    SCRIPT = "script"  # a Python or shell file, a fresh container per attempt
    HTTP = "http"  # its own command is a server: a job is a request, the answer its result


class WorkerStatus(enum.StrEnum):
    ONLINE = "ONLINE"
    SUSPECT = "SUSPECT"  # silent for a few heartbeats: gets nothing new, keeps what it has
    DRAINING = "DRAINING"
    QUARANTINED = "QUARANTINED"  # its machine failed several attempts in a row: gets nothing new for a while
    OFFLINE = "OFFLINE"


class AttemptRef(msgspec.Struct, frozen=True, array_like=True):
    """One try at one job. The number is the fencing token: it rises at every assignment and is never used again."""

    job: Annotated[JobId, msgspec.Meta(max_length=JOB_ID_LENGTH)]
    attempt: Annotated[int, msgspec.Meta(ge=0, lt=2**31)]


_Text = Annotated[str, msgspec.Meta(max_length=1024 * 1024)]


class Failure(msgspec.Struct, frozen=True, omit_defaults=True):
    """What went wrong, for people."""

    message: _Text
    type: _Text | None = None
    traceback: _Text | None = None
    hint: _Text | None = None


class Body(msgspec.Struct, frozen=True, array_like=True):
    """A payload or result: inline bytes, or the content hash of a blob (SHA-256, hex) with its size."""

    kind: Kind = Kind.JSON
    data: bytes = b""
    blob: Annotated[str, msgspec.Meta(max_length=64)] | None = None
    size: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] = 0

    @classmethod
    def inline(cls, kind: Kind, data: bytes) -> Body:
        return cls(kind, data, None, len(data))


class JobSpec(Options, frozen=True, omit_defaults=True):
    """What a user asks for besides the payload. Stored with the job as it was asked."""

    mode: Mode = Mode.NATIVE
    file: str | None = None  # handler or script: content hash of its blob (SHA-256, hex)
    file_name: str | None = None
    args: tuple[str, ...] = ()
    name: str | None = None  # what its owner calls it
    tags: tuple[tuple[str, str], ...] = ()
    workdir: str | None = None  # folder that goes along: content hash of its manifest (`core.files.manifest`)

    @property
    def labels(self) -> tuple[tuple[str, str], ...]:
        """By what it is found: its tags, and its name under an empty key."""
        return self.tags if self.name is None else (("", self.name), *self.tags)


class User(msgspec.Struct, frozen=True):
    id: int
    name: str
    role: Role
    password_hash: str
    token_version: int
    created_at: float
    uid: int | None = None  # as whom jobs of his write into folders of the machines; None: nobody has said


class Image(msgspec.Struct, frozen=True):
    """`owner_id`: who alone uses it; None: it is registered, for everybody. `used_at`: of one's own, exact to a day."""

    id: int
    name: str  # as registered or first used: `python:3.9-slim`
    digest: str | None  # of the manifest at the registry; None: never seen there, used by its tag
    description: str
    env: dict[str, str]
    env_revision: int  # rises with what its containers are made with: the environment, and defaults such as shm
    created_at: float
    updated_at: float
    defaults: Options = NOTHING_ASKED  # for jobs that ask for nothing else
    owner_id: int | None = None
    used_at: float = 0.0


class Gpu(msgspec.Struct, frozen=True, omit_defaults=True):
    uuid: Annotated[str, msgspec.Meta(max_length=256)]
    name: Annotated[str, msgspec.Meta(max_length=256)]
    memory: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class WorkerRecord(msgspec.Struct, frozen=True):
    """A worker as the store knows it. What it is doing right now is in the server's memory (`server.fleet.members`)."""

    id: WorkerId
    name: str
    registered_by: str
    token_hash: bytes
    created_at: float
    last_seen: float
    removed: bool = False
    drained: bool = False  # by an admin, until undrained
    quarantine: str | None = None  # why
    quarantined_until: float = 0.0
    slots: int | None = (
        None  # that it may use: those of its first connection, or that an admin has let in; None: none yet
    )


class Attempt(msgspec.Struct, frozen=True, omit_defaults=True):
    number: int
    worker: str  # its name
    assigned_at: float
    started_at: float | None = None
    ended_at: float | None = None
    reason: Reason | None = None
    charged: Charged | None = None
    exit_code: int | None = None
    failure: Failure | None = None
    image_version: str | None = None  # what ran: the digest that was asked for, else the engine's id of the image
    defaults: Options | None = None  # what its image had for jobs that ask for nothing else; None: nothing


class Job(msgspec.Struct, frozen=True):
    """A job without the bytes of its payload and result. `attempt` 0: never assigned."""

    index: int  # short number for people, rises by one with each job
    id: JobId
    owner: str
    owner_id: int
    image: str
    image_id: int
    lane: int
    spec: JobSpec
    state: JobState
    created_at: float
    attempt: int = 0
    worker_id: WorkerId | None = None
    worker: str | None = None
    slot: int | None = None
    run_after: float = 0.0
    assigned_at: float | None = None
    started_at: float | None = None
    ended_at: float | None = None
    reason: Reason | None = None
    failure: Failure | None = None
    exit_code: int | None = None
    user_failures: int = 0
    infra_failures: int = 0
    cancel_requested: bool = False
    retry_of: JobId | None = None
    payload_kind: Kind = Kind.JSON
    payload_size: int = 0
    payload_blob: str | None = None
    result_kind: Kind | None = None
    result_size: int = 0
    result_blob: str | None = None
    batch: str | None = None  # id of the batch it belongs to
    item: int | None = None  # its position there, from 0
    batch_paused: str | None = None  # why the batch hands out nothing

    @property
    def ref(self) -> AttemptRef:
        return AttemptRef(self.id, self.attempt)
