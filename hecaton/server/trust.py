"""What a worker says is checked before it is stored: a broken or hostile worker must not break the replies to users."""

from __future__ import annotations

import msgspec

from hecaton.core.model import INLINE_LIMIT, Body, Failure, Kind, Reason
from hecaton.store.port import Blobs
from hecaton.wire.channel import Outcome

MAX_TEXT = 64 * 1024


def checked(outcome: Outcome, blobs: Blobs, max_result: int) -> Outcome:
    """The outcome, or a failed one that says what was wrong with its result."""
    # hot: benchmarks/throughput.py - a small JSON result costs about 1 us here
    outcome = _cut(outcome)
    if outcome.reason is not Reason.OK:
        return msgspec.structs.replace(outcome, body=None)
    body = outcome.body or Body.inline(Kind.JSON, b"null")
    size = len(body.data) if body.blob is None else body.size
    if size > max_result:
        return _refused(outcome, Reason.RESULT_TOO_LARGE, f"the result has {size} bytes, the limit is {max_result}")
    problem = _problem(body, blobs)
    if problem is not None:
        return _refused(outcome, Reason.RESULT_INVALID, problem)
    return msgspec.structs.replace(outcome, body=msgspec.structs.replace(body, size=size))


def _problem(body: Body, blobs: Blobs) -> str | None:
    if body.blob is not None:
        return None if blobs.path(body.blob) else "the result was announced, but its content never arrived"
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


def _refused(outcome: Outcome, reason: Reason, message: str) -> Outcome:
    return msgspec.structs.replace(outcome, reason=reason, body=None, failure=Failure(message))


def _cut(outcome: Outcome) -> Outcome:
    failure = outcome.failure
    if failure is None or len(failure.message) + len(failure.traceback or "") <= MAX_TEXT:
        return outcome
    short = Failure(
        failure.message[: MAX_TEXT // 2],
        (failure.type or "")[:256] or None,
        (failure.traceback or "")[-MAX_TEXT // 2 :] or None,
        (failure.hint or "")[:1024] or None,
    )
    return msgspec.structs.replace(outcome, failure=short)
