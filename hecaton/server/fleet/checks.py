"""What a worker says is checked before it is stored: a broken or hostile worker must not break the replies to users."""

from __future__ import annotations

import math
import mmap
import os

import msgspec

from hecaton.core.content import NAMES, advice_on, fault_of, kind_of_rest
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
    """The outcome, or a failed one that says what was wrong with its result, which is kept. Of a large result (a blob)
    the file is read: in a thread."""
    # hot: benchmarks/throughput.py - a small JSON result costs about 1 us here
    outcome = _plausible(outcome)
    invalid = outcome.reason is Reason.RESULT_INVALID and outcome.body is not None
    if outcome.reason is not Reason.OK and not invalid:
        return msgspec.structs.replace(outcome, body=None)
    body = outcome.body or Body.inline(Kind.JSON, b"null")
    if body.blob is not None:
        path = blobs.path(body.blob)
        if path is None:
            return without_content(outcome)
        size = os.path.getsize(path)
        if size > max_result:
            return _too_large(outcome, size, max_result)
        if size > INLINE_LIMIT:
            return _checked_file(outcome, body, path, size)
        with open(path, "rb") as file:
            body = Body.inline(body.kind, file.read())  # one limit for all that asks: what is here is in the store
    elif len(body.data) > max_result:
        return _too_large(outcome, len(body.data), max_result)
    elif len(body.data) > INLINE_LIMIT:
        return _without(outcome, f"a result of {len(body.data)} bytes came inline, the limit is {INLINE_LIMIT}")
    fault = None if invalid else fault_of(body.kind, body.data)
    if fault is None and not invalid:
        return msgspec.structs.replace(outcome, body=Body.inline(body.kind, body.data))
    return _refused(outcome, fault, body.kind, Body.inline(kind_of_rest(body.data), body.data))


def _checked_file(outcome: Outcome, body: Body, path: str, size: int) -> Outcome:
    with (
        open(path, "rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
        memoryview(mapped) as whole,
    ):
        invalid = outcome.reason is not Reason.OK
        fault = None if invalid else fault_of(body.kind, whole)
        if fault is None and not invalid:
            return msgspec.structs.replace(outcome, body=Body(body.kind, b"", body.blob, size))
        return _refused(outcome, fault, body.kind, Body(kind_of_rest(whole), b"", body.blob, size))


def _refused(outcome: Outcome, fault: str | None, kind: Kind, kept: Body) -> Outcome:
    """`fault` None: the worker has refused it, and says why."""
    failure = outcome.failure
    if fault is not None:
        failure = Failure(f"the result is not {NAMES[kind]}: {fault}", hint=advice_on(fault))
    return msgspec.structs.replace(outcome, reason=Reason.RESULT_INVALID, body=kept, failure=failure)


def _too_large(outcome: Outcome, size: int, limit: int) -> Outcome:
    failure = Failure(f"the result has {size} bytes, the limit is {limit}")
    return msgspec.structs.replace(outcome, reason=Reason.RESULT_TOO_LARGE, body=None, failure=failure)


def without_content(outcome: Outcome) -> Outcome:
    """Of a result that was not sent beforehand."""
    if outcome.reason is Reason.RESULT_INVALID:
        return msgspec.structs.replace(outcome, body=None)
    return _without(outcome, "the result was announced, but its content never arrived")


def _without(outcome: Outcome, message: str) -> Outcome:
    return msgspec.structs.replace(outcome, reason=Reason.RESULT_INVALID, body=None, failure=Failure(message))


def shown_progress(value: object) -> msgspec.Raw | None:
    """Progress as JSON; None if it cannot be shown: MessagePack knows values that JSON does not."""
    try:
        text = msgspec.json.encode(value)
    except (TypeError, ValueError, RecursionError):
        return None
    return msgspec.Raw(text) if len(text) <= MAX_PROGRESS else None


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
