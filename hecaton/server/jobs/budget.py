"""Bytes: of each user, against his budget, and of the server's disk, against its floor.

Who is over his budget stores nothing more, and nothing of his is started; what runs is stored, so that nothing is lost.
With the disk at its floor that holds for everybody but admins: what is left is for what runs, and for those who make
room. Both are known a second late, from what the store has counted; what was let in since is added.
"""

from __future__ import annotations

import asyncio
import math
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

from hecaton.core.errors import TooLarge, Unavailable
from hecaton.server.accounts.auth import Caller
from hecaton.server.accounts.permissions import Action
from hecaton.server.fleet.scheduler import Scheduler
from hecaton.server.resources import Resources
from hecaton.store.port import StoredBytes

MAX_USER_BYTES = 100 * 1024**3
"""Bytes that one user may have stored, where the server's disk has twice as much; else half of the disk."""

DISK_FLOOR = 1024**3
"""Free bytes below which admins alone may write, on a disk of twenty times as much; else a twentieth of the disk."""

_log = structlog.get_logger("hecaton.budget")


class Budget:
    """On the server's event loop. `look` comes first, and then once a second.

    What was let in is counted on top of what the store had at the last look but one: a job may be counted twice for a
    second, never not at all."""

    def __init__(self, resources: Resources, scheduler: Scheduler, dispatch: Callable[[], None]) -> None:
        settings = resources.settings
        self._database, self._folder = resources.database, settings.folder
        self._scheduler, self._dispatch = scheduler, dispatch
        size = self._disk()[0]
        self.limit = settings.max_user_bytes or min(MAX_USER_BYTES, int(size / 2))
        self.floor = min(DISK_FLOOR, int(size / 20)) if settings.disk_floor is None else settings.disk_floor
        self._stored: dict[int, StoredBytes] = {}
        self._total: dict[int, int] = {}  # of the same
        self._fresh = Counter[int]()  # let in since the last look, by owner
        self._settling = Counter[int]()  # since the look before that
        self._arriving = Counter[int]()  # of uploads under way
        self._looking = asyncio.Lock()

    def _disk(self) -> tuple[float, float]:
        """Its size and what is free, in bytes. There is none where everything is in memory."""
        try:
            usage = shutil.disk_usage(self._folder)
        except FileNotFoundError:
            return MAX_USER_BYTES * 2, math.inf
        return usage.total, usage.free

    async def look(self) -> None:
        """One at a time: what was let in before one has begun may be on its way to the store until it has ended."""
        async with self._looking:
            fresh, self._fresh = self._fresh, Counter()
            self._settling += fresh
            stored = await self._database.read(lambda store: store.stored())
            self._settling = fresh
        self._stored = {one.owner_id: one for one in stored}
        self._total = {one.owner_id: one.total for one in stored}
        self._hold(self._would_be_at_floor(), frozenset(one.owner_id for one in stored if one.total >= self.limit))

    def _hold(self, everybody: bool, owners: frozenset[int]) -> None:
        before = (self._scheduler.stopped, self._scheduler.held)
        if everybody or owners or (everybody, owners) != before:
            self._scheduler.hold(everybody, owners)  # again each time: a worker has come back, a claim was under way
        if (everybody, owners) != before:
            self._dispatch()
        if everybody is not before[0]:
            said = (
                "The disk is at its floor: nothing is started, and admins alone may write"
                if everybody
                else ("The disk has room again")
            )
            _log.warning(said, floor=self.floor, free=self._disk()[1])

    @property
    def at_floor(self) -> bool:
        """As of the last look."""
        return self._scheduler.stopped

    def _would_be_at_floor(self, size: int = 0) -> bool:
        return self._disk()[1] - self._arriving.total() - size < self.floor

    def stored(self, owner: int) -> StoredBytes:
        """As of the last look."""
        return self._stored.get(owner) or StoredBytes(owner, 0, 0, 0, 0)

    def require(self, owner: int, size: int) -> None:
        """TooLarge if so many bytes more would be more than the owner may have stored; else they are let in."""
        # hot: benchmarks/throughput.py
        fresh = self._fresh.get(owner, 0)
        known = self._total.get(owner, 0) + self._settling.get(owner, 0) + self._arriving.get(owner, 0) + fresh
        if known + size > self.limit:
            raise TooLarge(
                f"you have {_mib(known)} stored; with {_mib(size)} more it would be over your budget of"
                f" {_mib(self.limit)}",
                "`hecaton usage` shows what it is, `hecaton usage --clear 7d` removes what ended a week ago or longer."
                " An admin can raise the budget: hecaton-server --max-user-bytes MIB",
            )
        self._fresh[owner] = fresh + size

    def require_disk(self, caller: Caller, size: int = 0) -> None:
        """Unavailable if the disk is at its floor, or would be with so many bytes more; not for admins."""
        # hot: benchmarks/latency.py - without a size no look at the disk
        low = self._would_be_at_floor(size) if size else self.at_floor
        if low and not caller.may(Action.FILL_DISK):
            raise Unavailable(
                "the server's disk is nearly full: it stores nothing more but for admins, and starts nothing",
                "An admin makes room (hecaton usage --by user); what runs goes on, what waits is kept.",
            )

    def require_disk_for_results(self, size: int) -> None:
        """Unavailable in the last half of what the floor keeps free: the worker keeps the result, and tries again."""
        if self._disk()[1] - size < self.floor / 2:
            raise Unavailable("the server's disk is nearly full: the worker keeps the result until there is room")

    @contextmanager
    def receiving(self, caller: Caller, size: int) -> Iterator[None]:
        """An upload of so many bytes is under way. Raises before it begins."""
        self.require_disk(caller, size)
        self.require(caller.user_id, size)
        self._arriving[caller.user_id] += size
        self._fresh[caller.user_id] -= size
        try:
            yield
            self._fresh[caller.user_id] += size
        finally:
            self._arriving[caller.user_id] -= size


def _mib(size: float) -> str:
    return f"{size / 1024**2:,.1f} MiB"
