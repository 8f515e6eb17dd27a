"""Who may do what: one table of roles and actions. What is not in it is refused, and so is a role without a row.

A route declares its action (`server.web.http.Route`) and `Gate` asks this table; use cases ask `Caller.may` about the
thing at hand.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType

from hecaton.core.model import Role


class Action(enum.StrEnum):
    """The words stand in refusals: 'registering a worker needs the role admin or worker'."""

    LOG_IN = "logging in"
    JOIN = "registering a worker with a key"
    SEE_API = "reading what the API is and whether it works"

    SEE_SERVER = "reading the server's limits"
    SUBMIT = "submitting jobs"
    UPLOAD = "uploading payloads and files"
    SEE_JOBS = "seeing jobs and batches"
    CANCEL_JOBS = "cancelling jobs and batches"
    RETRY_JOBS = "retrying jobs and batches"
    STEER_BATCHES = "adding items to a batch and resuming it"

    SEE_USAGE = "seeing what one has stored and waiting"
    SEE_ALL_USAGE = "seeing what everybody has stored and waiting"
    CLEAR = "removing jobs that have ended"
    FILL_DISK = "storing more while the server's disk is nearly full"

    SEE_IMAGES = "seeing images"
    SEE_ENVIRONMENT = "reading the environment of an image"
    CHANGE_IMAGES = "changing and removing images"
    REGISTER_IMAGES = "registering images"
    SEE_WORKERS = "seeing workers"
    ENROL_WORKERS = "registering a worker"
    MANAGE_WORKERS = "draining and removing workers"
    MANAGE_USERS = "listing, creating, changing and deleting users"
    MAKE_KEYS = "making keys for machines that join"
    SET_PASSWORD = "changing a password"

    WORK = "being given jobs"
    MOVE_CONTENT = "fetching and storing the content of a job that the worker holds"


class Scope(enum.Enum):
    OWN = "own"  # with what belongs to the caller
    ALL = "all"  # with everybody's, or with what belongs to nobody


OPEN_TO_ALL = frozenset({Action.LOG_IN, Action.JOIN, Action.SEE_API})
"""Without a token."""

REGISTERED_WORKER = frozenset({Action.WORK, Action.MOVE_CONTENT})
"""By a worker's own token, for jobs that it holds. No person may do these."""

_PEOPLE = {
    Action.SEE_SERVER: Scope.ALL,
    Action.SUBMIT: Scope.OWN,
    Action.UPLOAD: Scope.OWN,
    Action.SEE_JOBS: Scope.OWN,
    Action.CANCEL_JOBS: Scope.OWN,
    Action.RETRY_JOBS: Scope.OWN,
    Action.STEER_BATCHES: Scope.OWN,
    Action.SEE_USAGE: Scope.OWN,
    Action.CLEAR: Scope.OWN,
    Action.SEE_IMAGES: Scope.ALL,
    Action.CHANGE_IMAGES: Scope.OWN,
    Action.SEE_WORKERS: Scope.ALL,
    Action.SET_PASSWORD: Scope.OWN,
}

PERMISSIONS: Mapping[Role, Mapping[Action, Scope]] = MappingProxyType({
    Role.USER: _PEOPLE,
    # Typed on every machine that is to become a worker: who finds it there can do nothing but that.
    Role.WORKER: {Action.SEE_SERVER: Scope.ALL, Action.ENROL_WORKERS: Scope.ALL},
    Role.ADMIN: {
        **_PEOPLE,
        Action.SEE_JOBS: Scope.ALL,
        Action.CANCEL_JOBS: Scope.ALL,
        Action.RETRY_JOBS: Scope.ALL,
        Action.STEER_BATCHES: Scope.ALL,
        Action.SEE_ALL_USAGE: Scope.ALL,
        Action.CLEAR: Scope.ALL,
        Action.FILL_DISK: Scope.ALL,
        Action.SEE_ENVIRONMENT: Scope.ALL,
        Action.CHANGE_IMAGES: Scope.ALL,
        Action.REGISTER_IMAGES: Scope.ALL,
        Action.ENROL_WORKERS: Scope.ALL,
        Action.MANAGE_WORKERS: Scope.ALL,
        Action.MANAGE_USERS: Scope.ALL,
        Action.MAKE_KEYS: Scope.ALL,
        Action.SET_PASSWORD: Scope.ALL,
    },
})  # fmt: skip

_NOTHING: Mapping[Action, Scope] = {}


def scope(role: Role, action: Action) -> Scope | None:
    """None: refused."""
    # hot: benchmarks/latency.py
    return PERMISSIONS.get(role, _NOTHING).get(action)


def roles_for(action: Action) -> list[Role]:
    """Who may do it at all, at least with what is his own."""
    return [role for role in Role if scope(role, action) is not None]


def refusal(name: str, role: Role, action: Action) -> str:
    """Why the user `name` may not do it."""
    roles = roles_for(action)
    if not roles:
        return "only a registered worker may call this"
    if roles == [Role.ADMIN]:
        return f"only an admin may do this; {name!r} has the role {role}"
    return f"{action} needs the role {' or '.join(roles)}; {name!r} has {role}"


def audience(action: Action) -> str:
    """Who may do it, for the description of the API."""
    roles = roles_for(action)
    if action in OPEN_TO_ALL:
        return "open"
    if action in REGISTERED_WORKER:
        return "a registered worker"
    if roles == list(Role):
        return "any logged-in user"
    return " or ".join(roles) + (" role" if len(roles) > 1 else "")
