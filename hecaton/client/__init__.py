"""The Python SDK: `Client`, the handle of a submitted job, and every error that they raise."""

from __future__ import annotations

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
