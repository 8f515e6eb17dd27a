"""Who may be connected: so many in all, a share of them from one address or for one user, and some room that is for
workers and admins.

Who has said nothing yet that the server knows him by is a stranger. Where there is no room, the stranger who has been
there longest goes: idle connections cost whoever opens them, and nobody else.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from enum import IntEnum
from pathlib import Path, PurePosixPath
from typing import Any

from hecaton.core.errors import Unavailable
from hecaton.server.accounts.throttle import network
from hecaton.server.bodies import BodyBudget
from hecaton.server.forwarded import Proxies, plain

CONNECTION_MEMORY = 256 * 1024
"""Bytes that a connection may make the server hold, about: what is read at a time, and not looked at yet."""

_OF_MEMORY = 2
"""The part of the machine's memory that connections may have: one in so many."""

_SHARE = 4
"""An address, or a user, may have one in so many connections."""

_KEPT = 8
"""One in so many is kept for workers and admins."""

MAX_KEPT_OF_ONE = 64
"""Connections of one worker or admin that count as such: beyond that he is a user like any other."""

SEAT = "seat"
"""Where a request's state has its connection's."""

_OWN_GROUPS = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")


class Standing(IntEnum):
    STRANGER = 0
    KNOWN = 1
    """A user's request was let in on it."""
    KEPT = 2
    """An admin's, or a worker's."""


class Seat:
    """One connection's place. `peer`: the address at the other end."""

    __slots__ = ("_connections", "counted", "evict", "left", "peer", "standing", "whose")

    def __init__(self, connections: Connections, peer: str, counted: str | None, evict: Callable[[], None]) -> None:
        self._connections, self.peer, self.counted, self.evict = connections, peer, counted, evict
        self.standing = Standing.STRANGER
        self.whose: Hashable = None
        self.left = False

    def rise(self, standing: Standing, whose: Hashable) -> None:
        """It is no stranger's any more. Unavailable if there is no room for more of that standing; it stays a
        stranger's then."""
        self._connections.rise(self, standing, whose)

    def leave(self) -> None:
        self._connections.leave(self)

    @property
    def bodies(self) -> BodyBudget:
        return self._connections.bodies

    def client(self, headers: Iterable[tuple[bytes, bytes]]) -> str:
        """The address that a request comes from, behind proxies too."""
        return self._connections.proxies.client(self.peer, headers)


class Connections:
    """All seats of a server. On the loop. A proxy that is believed has as many as it likes: its clients share them."""

    def __init__(self, most: int, proxies: Proxies, memory: int | None = None) -> None:
        self.most, self.proxies, self.bodies = most, proxies, BodyBudget(memory)
        self.share = max(1, most // _SHARE)
        self._kept = most // _KEPT
        self._strangers: dict[Seat, None] = {}
        self._strangers_at: dict[str, dict[Seat, None]] = {}
        self._at: Counter[str] = Counter()
        self._of: Counter[tuple[Standing, Hashable]] = Counter()
        self._known = 0
        self._taken = 0

    def __len__(self) -> int:
        return self._taken

    def enter(self, peer: str, evict: Callable[[], None]) -> Seat:
        """A place for a new connection; Unavailable if there is none. `evict` is to end it, when another needs it
        more."""
        peer = plain(peer)
        counted = None if self.proxies.trusts(peer) else network(peer)
        if counted is not None and self._at[counted] >= self.share:
            self._make_room(self._strangers_at.get(counted, {}), f"{counted} has {self.share} connections")
        if self._taken >= self.most:
            self._make_room(self._strangers, f"there are {self.most} connections")
        seat = Seat(self, peer, counted, evict)
        self._taken += 1
        self._strangers[seat] = None
        if counted is not None:
            self._at[counted] += 1
            self._strangers_at.setdefault(counted, {})[seat] = None
        return seat

    def _make_room(self, strangers: Mapping[Seat, None], why: str) -> None:
        if not strangers:
            raise Unavailable(f"{why}, which is as many as this server has room for", "Try again in a moment.")
        oldest = next(iter(strangers))
        self.leave(oldest)
        oldest.evict()

    def rise(self, seat: Seat, standing: Standing, whose: Hashable) -> None:
        if seat.left or seat.standing is not Standing.STRANGER:
            return
        if standing is Standing.KEPT and self._of[standing, whose] >= MAX_KEPT_OF_ONE:
            standing = Standing.KNOWN
        if standing is Standing.KNOWN:
            if self._known >= self.most - self._kept:
                raise Unavailable("the server has as many connections as it has room for", "Try again in a moment.")
            if seat.counted is not None and self._of[standing, whose] >= self.share:
                raise Unavailable(f"you have {self.share} connections, as many as one may have", "Close some of them.")
            self._known += 1
        self._forget_stranger(seat)
        if seat.counted is not None:
            seat.whose = whose
            self._of[standing, whose] += 1
            if standing is Standing.KEPT:
                self._decrement(self._at, seat.counted)
        seat.standing = standing

    def leave(self, seat: Seat) -> None:
        if seat.left:
            return
        seat.left = True
        self._taken -= 1
        if seat.standing is Standing.STRANGER:
            self._forget_stranger(seat)
        if seat.standing is Standing.KNOWN:
            self._known -= 1
        if seat.counted is not None:
            if seat.standing is not Standing.KEPT:
                self._decrement(self._at, seat.counted)
            if seat.standing is not Standing.STRANGER:
                self._decrement(self._of, (seat.standing, seat.whose))

    def _forget_stranger(self, seat: Seat) -> None:
        del self._strangers[seat]
        if seat.counted is not None:
            here = self._strangers_at[seat.counted]
            del here[seat]
            if not here:
                del self._strangers_at[seat.counted]

    @staticmethod
    def _decrement(counter: Counter[Any], key: Hashable) -> None:
        counter[key] -= 1
        if not counter[key]:
            del counter[key]


def seat_of(scope: Mapping[str, Any]) -> Seat:
    """Of the connection that a request, or a WebSocket, came on."""
    seat: Seat = scope["state"][SEAT]
    return seat


def room(files: int, memory: int | None) -> int:
    """The connections for which there are both. `memory`: of the machine, in bytes; None: unknown."""
    return files if memory is None else max(1, min(files, memory // _OF_MEMORY // CONNECTION_MEMORY))


def memory_here() -> int | None:
    """Bytes of this machine, or of the group of processes that this one is in."""
    limits = []
    with contextlib.suppress(ValueError, OSError):  # not known on every system
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    limits.extend(memory_of_groups(_OWN_GROUPS, _GROUPS))
    return min(limits, default=None)


def memory_of_groups(own: Path, root: Path) -> Iterator[int]:
    """The limits, in bytes, of the groups that a process is in, and of those around them: each holds. `own`: its
    `/proc/PID/cgroup`; `root`: where groups are mounted, of version 1 or 2. In a container both may speak of other
    roots: what is at the root always counts."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        lines = []
    for line in ("0::/", "0:memory:/", *lines):
        controllers, _, path = line.partition(":")[2].partition(":")
        if controllers == "":
            base, name = root, "memory.max"
        elif "memory" in controllers.split(","):
            base, name = root / "memory", "memory.limit_in_bytes"
        else:
            continue
        group = PurePosixPath(path.lstrip("/"))
        for around in (group, *group.parents):
            try:
                yield int((base / around / name).read_text())
            except (OSError, ValueError):
                continue  # another version of cgroups, or no limit
