"""HTTP bodies about users: how they come in, what they become, and what they have stored and use."""

from __future__ import annotations

from typing import Annotated

import msgspec

from hecaton.core.files.mounts import MAX_UID
from hecaton.core.model import KeyScope, Role
from hecaton.wire.api.base import Reply, Request


class Login(Request, frozen=True):
    username: str
    password: str


class Token(Reply, frozen=True):
    token: str
    username: str
    role: Role
    expires_at: float


class NewUser(Request, frozen=True):
    username: str
    password: str
    role: Role = Role.USER


class NewPassword(Request, frozen=True):
    """`old_password`: needed for one's own."""

    password: str
    old_password: str | None = None


class UserView(Reply, frozen=True):
    """`uid`: the number of the user of the machines as whom his jobs write into their folders."""

    username: str
    role: Role
    created_at: float
    uid: int | None = None


LONGEST_AGE = 3650 * 86400.0
"""Seconds."""


class Usage(Reply, frozen=True):
    """What a user has, and may have. Bytes stored: `payloads` (with what the jobs themselves take), `results`, `logs`,
    `files` (uploads, and results that came as such). `waiting`: jobs, of so many `kinds` (image, mode, handler,
    options). `running`: places that work for him; at most `max_running`, or all that nobody else has work for."""

    username: str
    payloads: int
    results: int
    logs: int
    files: int
    total: int
    max_bytes: int
    waiting: int
    max_waiting: int
    kinds: int
    max_kinds: int
    running: int
    max_running: int | None = None


class NewKey(Request, frozen=True):
    """For somebody whom the caller vouches for."""

    scope: KeyScope


class Key(Reply, frozen=True):
    """Shown this once; for one use, until `expires_at`."""

    key: str
    scope: KeyScope
    expires_at: float


class KeyLogin(Request, frozen=True):
    key: str


class Enrolment(Request, frozen=True):
    """`name`: of the new worker."""

    key: str
    name: str


class UserChange(Request, frozen=True):
    """What an admin makes of a user; what is left out stays. `uid`: as whom, on the machines, his jobs write into
    folders of theirs (mounts); null takes it back."""

    role: Role | None = None
    uid: Annotated[int, msgspec.Meta(ge=1, le=MAX_UID)] | msgspec.UnsetType | None = msgspec.UNSET

    def __str__(self) -> str:
        said = [] if self.role is None else [str(self.role)]
        return ", ".join([*said, *([] if self.uid is msgspec.UNSET else [f"uid {self.uid or 'none'}"])])


class Clear(Request, frozen=True):
    """Remove jobs that ended more than `older_than` seconds ago, and batches of which no job is left. `username`:
    whose, for admins; else one's own."""

    older_than: Annotated[float, msgspec.Meta(ge=0, le=LONGEST_AGE)]
    username: str | None = None


class Cleared(Reply, frozen=True):
    """`jobs`: so many were removed. Their uploads go within minutes, those of the last day when they are a day old."""

    jobs: int
    usage: Usage
