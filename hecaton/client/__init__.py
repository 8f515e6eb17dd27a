"""The Python SDK: `Client`, the handles of a submitted job and batch, and every error that they raise."""

from __future__ import annotations

from hecaton.client.batches import BatchHandle
from hecaton.client.client import Client
from hecaton.client.jobs import JobHandle
from hecaton.core.errors import (
    BadRequest,
    Conflict,
    Forbidden,
    HecatonError,
    JobFailed,
    NotFound,
    TooLarge,
    TooMany,
    Unauthenticated,
    Unavailable,
    Unreachable,
    WaitTimeout,
)

__all__ = [
    "BadRequest",
    "BatchHandle",
    "Client",
    "Conflict",
    "Forbidden",
    "HecatonError",
    "JobFailed",
    "JobHandle",
    "NotFound",
    "TooLarge",
    "TooMany",
    "Unauthenticated",
    "Unavailable",
    "Unreachable",
    "WaitTimeout",
]
