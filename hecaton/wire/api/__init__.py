"""HTTP bodies of the people's API under /v1, for server and client. The OpenAPI description is generated from these.

Times are seconds since the epoch, sizes bytes, durations seconds.

- `accounts`: HTTP bodies about users: how they come in, what they become, and what they have stored and use.
- `base`: What all bodies have in common, and where the API is.
- `batches`: HTTP bodies about batches.
- `files`: HTTP bodies about the files that jobs have made.
- `images`: HTTP bodies about images.
- `jobs`: HTTP bodies about jobs.
- `server`: HTTP bodies about the server itself.
- `workers`: HTTP bodies about workers.
"""

from __future__ import annotations

from hecaton.wire.api.accounts import (
    Clear,
    Cleared,
    Enrolment,
    Key,
    KeyLogin,
    Login,
    NewKey,
    NewPassword,
    NewUser,
    Token,
    Usage,
    UserChange,
    UserView,
)
from hecaton.wire.api.base import API, IDEMPOTENCY_HEADER
from hecaton.wire.api.batches import (
    MAX_ITEMS,
    BatchItem,
    BatchResult,
    BatchSubmitted,
    BatchView,
    NewBatch,
    NewItems,
    RetryBatch,
)
from hecaton.wire.api.files import (
    MAX_TOLD,
    CheckpointFiles,
    CheckpointView,
    FileList,
    FileView,
    Folder,
    NewCheckpoint,
    NewFiles,
    Wanted,
)
from hecaton.wire.api.images import ImageChange, ImageVersion, ImageView, NewImage
from hecaton.wire.api.jobs import (
    AttemptView,
    BlobRef,
    Holder,
    JobEvent,
    JobPage,
    JobSummary,
    JobView,
    NewJob,
    Retry,
    Submitted,
    Waiting,
    Whose,
)
from hecaton.wire.api.server import About, Health, ServerInfo
from hecaton.wire.api.workers import CardView, MachineView, NewWorker, SlotView, WorkerCredentials, WorkerView

__all__ = [
    "API",
    "IDEMPOTENCY_HEADER",
    "MAX_ITEMS",
    "MAX_TOLD",
    "About",
    "AttemptView",
    "BatchItem",
    "BatchResult",
    "BatchSubmitted",
    "BatchView",
    "BlobRef",
    "CardView",
    "CheckpointFiles",
    "CheckpointView",
    "Clear",
    "Cleared",
    "Enrolment",
    "FileList",
    "FileView",
    "Folder",
    "Health",
    "Holder",
    "ImageChange",
    "ImageVersion",
    "ImageView",
    "JobEvent",
    "JobPage",
    "JobSummary",
    "JobView",
    "Key",
    "KeyLogin",
    "Login",
    "MachineView",
    "NewBatch",
    "NewCheckpoint",
    "NewFiles",
    "NewImage",
    "NewItems",
    "NewJob",
    "NewKey",
    "NewPassword",
    "NewUser",
    "NewWorker",
    "Retry",
    "RetryBatch",
    "ServerInfo",
    "SlotView",
    "Submitted",
    "Token",
    "Usage",
    "UserChange",
    "UserView",
    "Waiting",
    "Wanted",
    "Whose",
    "WorkerCredentials",
    "WorkerView",
]
