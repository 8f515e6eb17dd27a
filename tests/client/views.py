"""Answers of a server about jobs, as tests need them."""

from __future__ import annotations

from typing import Any

import msgspec

from hecaton.core.model import JobState, Kind, Mode, Reason
from hecaton.wire.api import JobEvent, JobView
from tests.client.scripted import Answer, reply

JOB_ID = "019328aa-0000-7000-8000-000000000001"

_NEW = JobView(
    id=JOB_ID, index=7, state=JobState.IN_QUEUE, image="my/image", owner="ada", mode=Mode.NATIVE, created_at=1.0,
    assigned_at=None, started_at=None, ended_at=None, attempt=0, worker=None, reason=None, failure=None,
    exit_code=None, cancel_requested=False, retry_of=None, timeout=None, retries=0, priority=0, queue_ttl=None,
    payload_kind=Kind.JSON, payload_size=4,
)  # fmt: skip


def view(state: JobState = JobState.IN_QUEUE, **changes: Any) -> JobView:
    return msgspec.structs.replace(_NEW, state=state, **changes)


def finished(value: Any, **changes: Any) -> JobView:
    raw = msgspec.json.encode(value)
    return view(
        JobState.FINISHED, reason=Reason.OK, result_kind=Kind.JSON, result_size=len(raw), result=msgspec.Raw(raw),
        **changes,
    )  # fmt: skip


def submitted(duplicate: bool = False) -> Answer:
    return reply({"id": JOB_ID, "index": 7, "duplicate": duplicate}, 200 if duplicate else 201)


def line(value: msgspec.Struct) -> bytes:
    return msgspec.json.encode(value) + b"\n"


def event_lines(*events: JobEvent) -> tuple[bytes, ...]:
    return tuple(map(line, events))
