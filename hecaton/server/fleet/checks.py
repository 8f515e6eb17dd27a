"""What a worker says is checked before it is stored: a broken or hostile worker must not break the replies to users."""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Iterable, Iterator

import msgspec

from hecaton.core.content import NAMES, advice_on, fault_of, kind_of_rest
from hecaton.core.doors import carried_out
from hecaton.core.files import mounts
from hecaton.core.model import INLINE_LIMIT, Body, Failure, Kind, Reason
from hecaton.core.options import EVERYWHERE
from hecaton.core.placement.matching import Ability
from hecaton.store.port import Blobs
from hecaton.wire.channel import (
    Broken,
    CardInfo,
    CardsNow,
    Draining,
    FromWorker,
    Have,
    Hello,
    Lost,
    Outcome,
    Pulled,
    Released,
    Results,
    Started,
)

MAX_TEXT = 64 * 1024
MAX_NOTE = 1024
MAX_PROGRESS = 64 * 1024
MESSAGEPACK_FOR_JSON = 3
"""Times as long as JSON may a value be: `0.5,` takes nine bytes."""

MAX_VERSION = 128
"""Characters of an image's digest or id."""

MAX_LOG = 65 * 1024 * 1024
"""Of one attempt: the worker's own limit of 64 MiB and its last line."""

MAX_SECONDS = 366 * 86400.0

MAX_SAID_PER_SECOND = 50_000
"""Messages, and attempts that they name, of one worker for long: several times what one server can do with them."""

MAX_SAID_AT_ONCE = 2 * MAX_SAID_PER_SECOND

MAX_AT_ONCE = 4096
"""Messages, and attempts that they name, between which nobody else's turn comes."""

_SELDOM = 100
"""Counts a message that a worker has few of, and each of which is dear."""


class Pace:
    """How fast one worker is listened to: what it has said runs out with the time. The worker notices a connection
    that is read slowly, and everybody else nothing."""

    def __init__(self) -> None:
        self._said, self._at = 0.0, 0.0

    def wait(self, weight: int, now: float) -> float:
        """Seconds for which it is not to be listened to, as it has said so much."""
        self._said = max(0.0, self._said - (now - self._at) * MAX_SAID_PER_SECOND) + weight
        self._at = now
        return max(0.0, self._said - MAX_SAID_AT_ONCE) / MAX_SAID_PER_SECOND


def shares(messages: list[FromWorker]) -> Iterator[tuple[int, list[FromWorker]]]:
    """So much as may be dealt with at once, each with its weight: as a rule all of it."""
    # hot: benchmarks/throughput.py
    weight = 0
    for message in messages:
        weight += _weight(message)
    if weight <= MAX_AT_ONCE:
        yield weight, messages
    else:
        yield from ((_weight(message), [message]) for message in messages)


def _weight(message: FromWorker) -> int:
    if isinstance(message, Results):
        return 1 + len(message.outcomes)
    if isinstance(message, (Started, Released)):  # a union would be made anew with every message
        return 1 + len(message.refs)
    if isinstance(message, Have):
        return _SELDOM + len(message.names)
    if isinstance(message, CardsNow):
        return _SELDOM + len(message.cards)
    return _SELDOM if isinstance(message, (Draining, Lost, Pulled, Broken)) else 1


def ability(hello: Hello) -> Ability:
    serves = None if hello.serves is None else frozenset(hello.serves)
    options = EVERYWHERE if hello.options is None else frozenset(hello.options)
    has = mounts.as_asks(hello.mounts)
    return Ability(serves, carried_out(hello.doors, any_image=serves is None), options | has)


def opened_by_itself(hello: Hello) -> list[int]:
    """Numbers of the places that a worker has without any assignment, in order."""
    cards = any(info.gpu is not None for info in hello.slots)
    return sorted({info.index for info in hello.slots if info.holds is None or info.gpu is not None or not cards})


def shown_cards(cards: Iterable[CardInfo]) -> list[CardInfo]:
    """With texts that are short enough to be kept and shown."""
    return [
        msgspec.structs.replace(info, holder=_shortened(info.holder), lost=_shortened(info.lost))
        if info.holder is not None or info.lost is not None
        else info
        for info in cards
    ]


def _shortened(text: str | None) -> str | None:
    return None if text is None else text[:MAX_NOTE]


def enrolled(hello: Hello, slots: int, name: str) -> Hello:
    """With so many slots to be used, those with the lowest numbers: a token in other hands draws no more work than the
    machine that it was made for."""
    own = opened_by_itself(hello)
    used = {info.index for info in hello.slots} - set(own[slots:])
    why = (
        f"{slots} of its {len(own)} slots are used: it was enrolled with {slots}."
        f" To use all: hecaton worker undrain {name}"
    )
    shown = [info if info.index in used else msgspec.structs.replace(info, lost=why) for info in hello.slots]
    return msgspec.structs.replace(hello, slots=tuple(shown))


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
        if outcome.body is body and body.size == len(body.data):
            return outcome
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


def version_of(said: str | None) -> str | None:
    """Of an image: what a worker says of it."""
    return None if said is None else said[:MAX_VERSION]


def shown_progress(value: msgspec.Raw) -> msgspec.Raw | None:
    """Progress as JSON; None if it cannot be shown: MessagePack knows values that JSON does not, and in few bytes more
    than JSON does."""
    if len(bytes(value)) > MESSAGEPACK_FOR_JSON * MAX_PROGRESS:
        return None
    try:
        text = msgspec.json.encode(msgspec.msgpack.decode(value))
    except (msgspec.DecodeError, TypeError, ValueError, RecursionError):
        return None
    return msgspec.Raw(text) if len(text) <= MAX_PROGRESS else None


def _plausible(outcome: Outcome) -> Outcome:
    failure, ran, age = outcome.failure, outcome.ran, outcome.age
    if failure is None and (ran is None or 0.0 <= ran <= MAX_SECONDS) and 0.0 <= age <= MAX_SECONDS:
        return outcome
    ran, age = _seconds(ran), _seconds(age) or 0.0
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
