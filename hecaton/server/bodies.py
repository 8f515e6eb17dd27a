"""The memory that bodies of requests may have while they arrive and are looked at: so much in all, a part of it for one
user or worker.

Who finds no room waits for his turn, without a byte more being read, and is told so when that takes long.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Hashable

from hecaton.core.errors import TooMany, Unavailable

MAX_BODIES = 128 * 1024 * 1024
"""Bytes, where the machine has memory enough."""

_LEAST = 64 * 1024 * 1024
"""On small machines: the largest requests of four users."""

_OF_MEMORY = 8
_SHARE = 4

SMALL_BODY = 64 * 1024
"""Bytes that every connection may have anyway."""

MAX_WAITING_BODIES = 64
"""Of one user or worker."""

PATIENCE = 10.0
"""Seconds."""


class Reservation:
    """Room that somebody has. Given back once, however often it is said."""

    def __init__(self, bodies: BodyBudget, whose: Hashable, size: int) -> None:
        self._bodies, self._whose, self._size = bodies, whose, size

    def release(self) -> None:
        size, self._size = self._size, 0
        if size:
            self._bodies.give_back(self._whose, size)


class BodyBudget:
    """On the loop. Whoever came first gets room first, but for those who have their share already."""

    def __init__(self, memory: int | None) -> None:
        self.most = MAX_BODIES if memory is None else max(_LEAST, min(MAX_BODIES, memory // _OF_MEMORY))
        self.share = self.most // _SHARE
        self._taken = 0
        self._of: Counter[Hashable] = Counter()
        self._waiting: deque[tuple[Hashable, int, asyncio.Future[None]]] = deque()
        self._waiting_of: Counter[Hashable] = Counter()

    async def take(self, whose: Hashable, size: int) -> Reservation:
        """Room for that many bytes, at most a share. TooMany if he has his share and goes on to need it; Unavailable if
        others have the rest."""
        if self._waiting or not self._fits(whose, size):
            await self._turn(whose, size)
        else:
            self._enter(whose, size)
        return Reservation(self, whose, size)

    def give_back(self, whose: Hashable, size: int) -> None:
        self._taken -= size
        self._lower(self._of, whose, size)
        self._admit()

    async def _turn(self, whose: Hashable, size: int) -> None:
        if self._waiting_of[whose] >= MAX_WAITING_BODIES:
            raise self._refusal(whose, size)
        place = (whose, size, asyncio.get_running_loop().create_future())
        self._waiting.append(place)
        self._waiting_of[whose] += 1
        self._admit()
        try:
            async with asyncio.timeout(PATIENCE):
                await place[2]
        except BaseException as error:
            if place in self._waiting:
                self._waiting.remove(place)
                self._lower(self._waiting_of, whose, 1)
                self._admit()  # those behind it may be smaller
            else:
                self.give_back(whose, size)  # its turn came in that moment
            if isinstance(error, TimeoutError):
                raise self._refusal(whose, size) from None
            raise

    def _admit(self) -> None:
        """Those who wait and have room now."""
        kept: deque[tuple[Hashable, int, asyncio.Future[None]]] = deque()
        while self._waiting:
            whose, size, turn = self._waiting.popleft()
            if self._of[whose] + size > self.share:
                kept.append((whose, size, turn))  # he waits for himself alone
            elif self._fits(whose, size):
                self._enter(whose, size)
                self._lower(self._waiting_of, whose, 1)
                if not turn.done():
                    turn.set_result(None)
            else:
                self._waiting.appendleft((whose, size, turn))
                break
        self._waiting.extendleft(reversed(kept))

    def _fits(self, whose: Hashable, size: int) -> bool:
        return self._taken + size <= self.most and self._of[whose] + size <= self.share

    def _enter(self, whose: Hashable, size: int) -> None:
        self._taken += size
        self._of[whose] += size

    def _refusal(self, whose: Hashable, size: int) -> TooMany | Unavailable:
        if self._of[whose] + size > self.share or self._waiting_of[whose] >= MAX_WAITING_BODIES:
            return TooMany(
                f"requests of yours with {self.share} bytes are being received, as many as one may send at a time",
                "Send fewer at a time.",
            )
        return Unavailable(f"the server is receiving {self.most} bytes, as many as it has room for", "Try again.")

    @staticmethod
    def _lower(counter: Counter[Hashable], key: Hashable, number: int) -> None:
        counter[key] -= number
        if not counter[key]:
            del counter[key]
