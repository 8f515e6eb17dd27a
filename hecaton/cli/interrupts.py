"""Ctrl-C and SIGTERM, held back where they would tear in two what belongs together."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType


@contextlib.contextmanager
def ignored() -> Iterator[None]:
    """A second Ctrl-C must not interrupt the tidying up."""
    with _handled_by(signal.SIG_IGN):
        yield


@contextlib.contextmanager
def postponed() -> Iterator[None]:
    """They take effect after the block: what is made in it is known to who has made it.

    Held back by a handler, not by a signal mask or by ignoring them: a process that is started would inherit both."""
    arrived: list[int] = []
    with _handled_by(lambda number, frame: arrived.append(number)):
        yield
    if arrived:
        signal.raise_signal(arrived[0])


@contextlib.contextmanager
def _handled_by(handler: signal.Handlers | Callable[[int, FrameType | None], object]) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
