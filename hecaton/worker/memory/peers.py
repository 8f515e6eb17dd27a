"""Which process is at the other end of a Unix socket, and whether it still lives."""

from __future__ import annotations

import socket
import struct
from typing import Protocol

import msgspec

_CREDENTIALS = struct.Struct("3i")  # of a process: id, user, group


class _Socket(Protocol):
    def getsockopt(self, level: int, option: int, size: int, /) -> bytes: ...


class Peer(msgspec.Struct, frozen=True, array_like=True):
    """A process by its id and the time of its start, in ticks after the machine's: an id may come again, both never."""

    pid: int
    started: int

    @classmethod
    def of(cls, connection: _Socket) -> Peer | None:
        """Who connected; None: it cannot be seen from here, as from within another container, or is gone."""
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        return cls.of_process(_CREDENTIALS.unpack(credentials)[0])

    @classmethod
    def of_process(cls, pid: int) -> Peer | None:
        found = _state(pid)
        return None if found is None else cls(pid, found[1])

    def lives(self) -> bool:
        found = _state(self.pid)
        return found is not None and found[0] not in "ZX" and found[1] == self.started


def _state(pid: int) -> tuple[str, int] | None:
    """Of a process of this machine, from /proc: its state, a letter, and the time of its start."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()  # the name in front may have anything in it
    except OSError:
        return None
    return fields[0], int(fields[19])


__all__ = ["Peer"]
