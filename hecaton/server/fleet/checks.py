"""What a worker says is checked before it is stored: a broken or hostile worker must not break the replies to users."""

from __future__ import annotations

import math
import os

import msgspec

from hecaton.core.model import INLINE_LIMIT, Body, Failure, Kind, Reason
from hecaton.store.port import Blobs
from hecaton.wire.channel import Outcome

MAX_TEXT = 64 * 1024
MAX_NOTE = 1024
MAX_PROGRESS = 64 * 1024
MAX_VERSION = 128
"""Characters of an image's digest or id."""

MAX_LOG = 65 * 1024 * 1024
"""Of one attempt: the worker's own limit of 64 MiB and its last line."""

MAX_SECONDS = 366 * 86400.0


def checked(outcome: Outcome, blobs: Blobs, max_result: int) -> Outcome:
    """The outcome, or a failed one that says what was wrong with its result."""
    # hot: benchmarks/throughput.py - a small JSON result costs about 1 us here
    outcome = _plausible(outcome)
    if outcome.reason is not Reason.OK:
        return msgspec.structs.replace(outcome, body=None)
    body = outcome.body or Body.inline(Kind.JSON, b"null")
    if body.blob is None:
        size = len(body.data)
    else:
        path = blobs.path(body.blob)
        if path is None:
            missing = "the result was announced, but its content never arrived"
            return _refused(outcome, Reason.RESULT_INVALID, missing)
        size = os.path.getsize(path)
    if size > max_result:
        return _refused(outcome, Reason.RESULT_TOO_LARGE, f"the result has {size} bytes, the limit is {max_result}")
    if body.blob is None and (problem := _problem(body)) is not None:
        return _refused(outcome, Reason.RESULT_INVALID, problem)
    return msgspec.structs.replace(outcome, body=Body(body.kind, body.data, body.blob, size))


def _problem(body: Body) -> str | None:
    if len(body.data) > INLINE_LIMIT:
        return f"a result of {len(body.data)} bytes came inline, the limit is {INLINE_LIMIT}"
    try:
        if body.kind is Kind.JSON:
            msgspec.json.decode(body.data)
        elif body.kind is Kind.TEXT:
            body.data.decode()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return f"the result is not {body.kind}: {error}"
    return None


def shown_progress(value: object) -> msgspec.Raw | None:
    """Progress as JSON; None if it cannot be shown: MessagePack knows values that JSON does not."""
    try:
        text = msgspec.json.encode(value)
    except (TypeError, ValueError, RecursionError):
        return None
    return msgspec.Raw(text) if len(text) <= MAX_PROGRESS else None


def _refused(outcome: Outcome, reason: Reason, message: str) -> Outcome:
    return msgspec.structs.replace(outcome, reason=reason, body=None, failure=Failure(message))


def _plausible(outcome: Outcome) -> Outcome:
    ran, age = _seconds(outcome.ran), _seconds(outcome.age) or 0.0
    failure = outcome.failure
    if failure is None and ran == outcome.ran and age == outcome.age:
        return outcome
    return msgspec.structs.replace(outcome, ran=ran, age=age, failure=_cut(failure))


def _seconds(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else min(max(value, 0.0), MAX_SECONDS)


def _cut(failure: Failure | None) -> Failure | None:
    if failure is None:
        return None
    return Failure(
        failure.message[: MAX_TEXT // 2],
        (failure.type or "")[:256] or None,
        (failure.traceback or "")[-MAX_TEXT // 2 :] or None,
        (failure.hint or "")[:1024] or None,
    )
