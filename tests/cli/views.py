"""Answers of a server, for tests: as `wire.api` defines them, with what does not matter filled in."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from hecaton.core.model import Role, WorkerStatus
from hecaton.wire import api

JOB_ID = "01987a5e-1c2d-7000-8000-000000000012"


def job(state: str = "IN_QUEUE", **fields: Any) -> api.JobView:
    """`payload` and `result` are given as Python values."""
    now = time.time()
    started = state not in ("IN_QUEUE", "ASSIGNED")
    ended = state in ("FINISHED", "FAILED", "CANCELLED")
    for name in ("payload", "result"):
        if name in fields:
            fields[name] = msgspec.Raw(msgspec.json.encode(fields[name]))
    values: dict[str, Any] = {
        "id": JOB_ID,
        "index": 12,
        "state": state,
        "image": "python:3.9-slim",
        "owner": "ann",
        "mode": "native",
        "created_at": now - 100,
        "assigned_at": now - 60 if started else None,
        "started_at": now - 59 if started else None,
        "ended_at": now - 1 if ended else None,
        "attempt": 1 if started else 0,
        "worker": "gpu-1" if started else None,
        "reason": None,
        "failure": None,
        "exit_code": None,
        "cancel_requested": False,
        "retry_of": None,
        "timeout": None,
        "retries": 0,
        "priority": 0,
        "queue_ttl": None,
        "payload_kind": "json",
        "payload_size": 17,
        "payload": msgspec.Raw(b'{"prompt":"hello"}'),
    }
    return msgspec.convert({**values, **fields}, api.JobView)


def finished(value: Any = None, kind: str = "json", **fields: Any) -> api.JobView:
    encoded = msgspec.json.encode(value)
    return job("FINISHED", reason="ok", result=value, result_kind=kind, result_size=len(encoded), **fields)


def failed(message: str = "no such row", **fields: Any) -> api.JobView:
    failure = {
        "message": message,
        "type": "ValueError",
        "traceback": 'Traceback (most recent call last):\n  File "handler.py", line 7, in draw\n',
        "hint": "Look at line 7.",
    }
    return job("FAILED", **{"reason": "handler_error", "failure": failure, **fields})


def summary(view: api.JobView) -> api.JobSummary:
    return msgspec.json.decode(msgspec.json.encode(view), type=api.JobSummary)


def image(name: str = "python:3.9-slim", **fields: Any) -> api.ImageView:
    values: dict[str, Any] = {
        "digest": "sha256:" + "ab" * 32,
        "description": "",
        "env": {},
        "env_revision": 1,
        "created_at": 0.0,
        "updated_at": 0.0,
    }
    return api.ImageView(name, **{**values, **fields})


def worker(name: str = "gpu-1", **fields: Any) -> api.WorkerView:
    values: dict[str, Any] = {
        "status": WorkerStatus.ONLINE,
        "last_seen": time.time(),
        "runtime": "docker",
        "version": "2.0.0",
        "registered_by": "admin",
    }
    return api.WorkerView("w1", name, **{**values, **fields})


def user(name: str, role: str = "user") -> api.UserView:
    return api.UserView(name, Role(role), time.time() - 7200)


def server_info(username: str = "admin", role: Role = Role.ADMIN) -> api.ServerInfo:
    return api.ServerInfo("2.0.0", username, role, 2**28, 2**28, 100_000, 1.0, 1.0, 1.0)
