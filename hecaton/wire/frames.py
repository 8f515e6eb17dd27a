"""What both sides of the channel say, in frames that the other side reads: none is longer than `MAX_FRAME`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import msgspec

from hecaton.wire.bounds import MAX_FRAME, MAX_MESSAGES
from hecaton.wire.channel import (
    Accepted,
    Assign,
    Cancel,
    FromWorker,
    Released,
    Results,
    Revoke,
    Started,
    ToWorker,
    encode,
)

M = TypeVar("M", ToWorker, FromWorker)

_SEVERAL: dict[type[msgspec.Struct], tuple[str, ...]] = {
    Assign: ("jobs",),
    Revoke: ("refs",),
    Cancel: ("refs",),
    Accepted: ("refs", "fenced"),
    Started: ("refs",),
    Released: ("refs",),
    Results: ("outcomes",),
}
"""Messages that may as well come as two, and the fields of which each then has a part."""


def frames(messages: list[M]) -> list[bytes]:
    """As a rule one; in the order of the messages. A single message that is too long and cannot be two has a frame of
    its own, and the other side refuses it."""
    # hot: benchmarks/throughput.py
    frame = encode(messages)
    if len(frame) <= MAX_FRAME and len(messages) <= MAX_MESSAGES:
        return [frame]
    half = len(messages) // 2
    parts = (messages[:half], messages[half:]) if half else _halves(messages[0])
    return [piece for part in parts for piece in frames(part)] if parts else [frame]


def _halves(message: M) -> Sequence[list[M]]:
    """Empty where nothing can be divided."""
    fields = _SEVERAL.get(type(message), ())
    longest = max(fields, key=lambda field: len(getattr(message, field)), default=None)
    items = getattr(message, longest) if longest is not None else ()
    if longest is None or len(items) < 2:
        return ()
    half = len(items) // 2
    rest = {field: () for field in fields} | {longest: items[half:]}
    return [msgspec.structs.replace(message, **{longest: items[:half]})], [msgspec.structs.replace(message, **rest)]
