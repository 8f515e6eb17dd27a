"""The worker's end of `turns`: the numbers of jobs that were given ahead (see `hecaton.serverless.protocol`)."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

from hecaton.core.model import AttemptRef
from hecaton.serverless.protocol import TURN_NUMBER

_ALL = 64 * 1024
"""Bytes: a pipe holds no more."""


class Turns:
    """`fd`: of the pipe, non-blocking, for reading and writing. What comes out of it a container may have put in.

    On the worker's loop. What was offered is the container's or, once withdrawn, nobody's: the kernel gives each number
    to one reader. A number is never used again."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        # Above all numbers of an earlier process, which it had no time to give out this fast.
        self._last = time.monotonic_ns() // 1000
        self._offered: dict[AttemptRef, int] = {}

    def offer(self, refs: Sequence[AttemptRef]) -> range:
        """Their numbers, which the container may take from now on. Raises OSError when the pipe is full."""
        turns = range(self._last + 1, self._last + 1 + len(refs))
        if os.write(self._fd, b"".join(map(TURN_NUMBER.pack, turns))) != len(refs) * TURN_NUMBER.size:
            raise OSError("the pipe took a part only")
        self._last = turns.stop - 1
        self._offered.update(zip(refs, turns, strict=True))
        return turns

    def withdraw(self) -> tuple[AttemptRef, ...]:
        """Those that the container has not taken: it cannot any more."""
        left = self._drain()
        back = tuple(ref for ref, turn in self._offered.items() if turn in left)
        self._offered.clear()  # the others have begun
        return back

    def begun(self, ref: AttemptRef) -> None:
        self._offered.pop(ref, None)

    def is_offered(self, turn: object) -> bool:
        return turn in self._offered.values()

    def void(self) -> int:
        """Nothing that was offered is valid any more. Returns how many the container has not taken."""
        self._offered.clear()
        return len(self._drain())

    def _drain(self) -> set[int]:
        try:
            data = os.read(self._fd, _ALL)
        except BlockingIOError:
            return set()
        return {turn for (turn,) in TURN_NUMBER.iter_unpack(data[: len(data) // TURN_NUMBER.size * TURN_NUMBER.size])}
