"""HTTP bodies about jobs."""

from __future__ import annotations

import enum
from typing import Any

import msgspec

from hecaton.core.model import Attempt, Failure, JobState, Kind, Mode, Reason
from hecaton.core.options import Options
from hecaton.wire.api.base import NULL, Reply, Request
from hecaton.wire.api.files import CheckpointView


class BlobRef(Request, frozen=True):
    """Bytes uploaded before with PUT /v1/blobs/{sha256}."""

    sha256: str
    size: int
    kind: Kind = Kind.BYTES


class NewJob(Request, Options, frozen=True):
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
    workdir: str | None = None  # folder that goes along: SHA-256 of its manifest, sent before (PUT /v1/folders)


class Submitted(Reply, frozen=True):
    id: str
    index: int
    duplicate: bool = False  # the idempotency key was known: this is the first job, unchanged


class Holder(Reply, frozen=True):
    """A job that works where another one waits to: everybody may know so much of it. `name`: what its owner calls it,
    or its file. `ends_by`: it has a time limit."""

    index: int
    owner: str
    name: str | None
    since: float
    ends_by: float | None = None


class Waiting(Reply, frozen=True):
    """Why one worker does not run a waiting job now. `holders`: who works there, a few of them."""

    worker: str
    why: str
    holders: tuple[Holder, ...] = ()


class JobSummary(Reply, frozen=True):
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


class JobView(Reply, Options, frozen=True, omit_defaults=False):
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
    payload: msgspec.Raw = msgspec.field(default_factory=NULL)  # JSON or text payloads up to 64 KiB, else null
    result_kind: Kind | None = None
    result_size: int = 0
    result: msgspec.Raw = msgspec.field(default_factory=NULL)
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
    workdir: str | None = None  # folder that went along: SHA-256 of its manifest
    checkpoint: CheckpointView | None = None  # what its next attempt begins with, and a job that repeats it


class Whose(enum.StrEnum):
    """Whose jobs are listed."""

    MINE = "mine"
    ALL = "all"


class JobPage(Reply, frozen=True):
    jobs: tuple[JobSummary, ...]
    next: str | None  # pass as ?before= to get the next older page


class JobEvent(Reply, frozen=True):
    """One line of GET /v1/jobs/{id}/events (NDJSON), until the job is terminal.

    event: "state" (value: the state), "log" (value: text, offset: of its end), "progress", "note",
    "end" (value: JobView)."""

    event: str
    value: Any = None
    attempt: int = 0
    offset: int = 0


class Retry(Options, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Of a job: what is left out stays as it was; an empty body changes nothing."""
