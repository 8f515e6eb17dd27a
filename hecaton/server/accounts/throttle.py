"""Wrong passwords: how many one may try, by whom they are for, where they come from, and in all.

Each count sinks with the time, and nothing else makes it forget. Where somebody has been right (`homes`), he stays
welcome: what others try with his name, or from his address, does not keep him out.
"""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Iterator

import msgspec

from hecaton.core.errors import TooMany


class Rate(msgspec.Struct, frozen=True):
    """`burst` at once, then one every `interval` seconds."""

    burst: int
    interval: float


OF_PAIR = Rate(10, 30.0)
"""For one name from one address."""

OF_NAME = Rate(50, 60.0)
"""For one name, from wherever."""

OF_ADDRESS = Rate(50, 10.0)
"""From one address, whatever the name."""

IN_ALL = Rate(500, 0.5)
"""It bounds what is remembered as well: no more wrong passwords than these have left a count that still sinks."""

_TIDY = 60.0
"""Seconds between two looks for counts that are down to nothing."""


class Throttle:
    """Counts a guess before it is checked and gives it back when it was right: else a hundred at once would all pass.

    Names are compared without case. Not thread-safe; times are the caller's, in seconds."""

    def __init__(self) -> None:
        self._counts = (_Counts(OF_PAIR), _Counts(OF_NAME), _Counts(OF_ADDRESS), _Counts(IN_ALL))
        self._tidied = 0.0

    def guess(self, name: str, address: str, now: float, at_home: bool = False) -> None:
        """TooMany if there were too many wrong ones; `at_home`: of this name from this address."""
        self._tidy(now)
        keys = tuple(_keys(name, address))
        every = zip(self._counts, keys, _SAID, strict=True)
        for counts, key, said in [next(every)] if at_home else every:
            counts.require(key, f"too many wrong passwords {said.format(repr(name[:80]))}", now)
        for counts, key in zip(self._counts, keys, strict=True):
            counts.add(key, 1, now)

    def withdraw(self, name: str, address: str, now: float) -> None:
        """The last guess was not checked, or was right."""
        for counts, key in zip(self._counts, _keys(name, address), strict=True):
            counts.add(key, -1, now)

    def guess_key(self, address: str, now: float) -> None:
        """The same of a key, which is nobody's until it is found: by address, and in all."""
        self._tidy(now)
        of_address, in_all = self._counts[2:]
        of_address.require(network(address), f"too many wrong passwords and keys {_SAID[2]}", now)
        in_all.require("", f"too many wrong passwords and keys {_SAID[3]}", now)
        self._add_key(address, 1, now)

    def withdraw_key(self, address: str, now: float) -> None:
        """It was right, or nobody looked."""
        self._add_key(address, -1, now)

    def _add_key(self, address: str, number: int, now: float) -> None:
        of_address, in_all = self._counts[2:]
        of_address.add(network(address), number, now)
        in_all.add("", number, now)

    def __len__(self) -> int:
        """What is remembered of wrong ones."""
        return sum(len(counts.levels) for counts in self._counts)

    def _tidy(self, now: float) -> None:
        if now - self._tidied > _TIDY:
            self._tidied = now
            for counts in self._counts:
                counts.tidy(now)


class _Counts:
    """Levels that sink by one in each interval."""

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self.levels: dict[str, tuple[float, float]] = {}

    def require(self, key: str, too_many: str, now: float) -> None:
        """TooMany with that text, and the seconds until one more has room, if none has."""
        wait = max(0.0, self._level(key, now) - (self._rate.burst - 1)) * self._rate.interval
        if wait > 0:
            seconds = math.ceil(wait)
            raise TooMany(too_many, f"Try again in {seconds} s.", seconds)

    def add(self, key: str, number: int, now: float) -> None:
        self.levels[key] = (max(0.0, self._level(key, now) + number), now)

    def tidy(self, now: float) -> None:
        self.levels = {key: level for key, level in self.levels.items() if self._level(key, now) > 0}

    def _level(self, key: str, now: float) -> float:
        count, at = self.levels.get(key, (0.0, now))
        return max(0.0, count - (now - at) / self._rate.interval)


def network(address: str) -> str:
    """Whom an address stands for: whoever has one IPv6 address has the other 2^64 of its network too. What is no IP
    address is returned as it is."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((found, 64), strict=False))


def _folded(name: str) -> str:
    return name[:80].casefold()


def _keys(name: str, address: str) -> Iterator[str]:
    yield f"{_folded(name)} {network(address)}"
    yield _folded(name)
    yield network(address)
    yield ""


_SAID = ("for {}", "for {}, from several addresses", "from your address", "on this server")
