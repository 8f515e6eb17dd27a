"""Where each user's password was right: in memory for every look, and in the store for good. What strangers try with
his name, from his network or in all keeps him out of none of these places, after a restart of the server either.
"""

from __future__ import annotations

import contextlib

from hecaton.core.errors import HecatonError
from hecaton.core.model import User
from hecaton.server.accounts.throttle import network
from hecaton.server.clock import Clock
from hecaton.store.port import Database, Home

MAX_HOMES = 16
"""Networks, those used last, that are remembered of each user."""

HOME_AGE = 90 * 86400.0
"""Seconds after its last use for which one is remembered."""

_RENEW = 86400.0
"""Seconds after which a use of one is written again: most logins write nothing."""


class Homes:
    """On the loop. Memory has what the store has, or more where that could not be written."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock
        self._used: dict[int, dict[str, float]] = {}  # by user; the one that was noted last comes last

    async def load(self) -> None:
        """Before anybody logs in."""
        since = self._clock.now() - HOME_AGE
        for home in await self._database.read(lambda store: store.homes(since)):
            self._used.setdefault(home.owner_id, {})[home.network] = home.used_at

    def has(self, user: User | None, address: str) -> bool:
        """Whether this user's password was right from there."""
        used_at = None if user is None else self._used.get(user.id, {}).get(network(address))
        return used_at is not None and used_at > self._clock.now() - HOME_AGE

    async def add(self, user: User, address: str) -> None:
        """His password was right from there. A disk that is full keeps nobody from logging in."""
        now, place = self._clock.now(), network(address)
        used = self._used.setdefault(user.id, {})
        if now - used.get(place, 0.0) < _RENEW:
            return
        used.pop(place, None)
        used[place] = now
        if len(used) > MAX_HOMES:
            del used[next(iter(used))]
        with contextlib.suppress(HecatonError):
            home = Home(user.id, place, now)
            await self._database.write(lambda store: store.add_home(home, MAX_HOMES))
