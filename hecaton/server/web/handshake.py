"""TLS and plain HTTP on one port, begun by connections that have their seats already. The first byte tells which.

asyncio's servers, and uvicorn with them, tell nobody of a connection before its handshake is over: whoever never ends
his would have as many as there are files.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable

from hecaton.core.errors import BadRequest, Unavailable
from hecaton.server.connections import Connections, Seat
from hecaton.server.tasks import Tasks
from hecaton.server.web.heads import Refused
from hecaton.server.web.protocol import Patient
from hecaton.wire.reach.address import is_local

MAX_HANDSHAKE = 10.0
"""Seconds for the first byte, and from then on for the handshake of TLS."""

_HANDSHAKE = b"\x16"
"""With this begins a record of TLS that is a handshake, and no request of HTTP."""

_NO_FILES = 0.1
"""Seconds until one more is accepted, where the process may open no more files."""


class Handshakes:
    """Accepts connections and makes those secure that begin with TLS. On the loop.

    Plain HTTP is spoken with this machine, private networks and believed proxies, as clients have it: who comes from
    elsewhere is told to use TLS, and no request of his is looked at."""

    def __init__(self, certificate: str, key: str | None, seats: Connections) -> None:
        """`certificate`, `key`: files (PEM)."""
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate, key)
        self._seats = seats
        self._tasks = Tasks()

    async def accept(self, listener: socket.socket, protocol: Callable[[], Patient]) -> None:
        """Until cancelled. `protocol`: a new one for each connection, which gets it when it is secure."""
        loop = asyncio.get_running_loop()
        listener.setblocking(False)
        while True:
            try:
                connection, peer = await loop.sock_accept(listener)
            except OSError:
                await asyncio.sleep(_NO_FILES)
            else:
                self.greet(connection, str(peer[0]), protocol)

    def close(self) -> None:
        """Ends all that are under way: a connection that became secure now would find a server that stops."""
        self._tasks.cancel()

    def greet(self, connection: socket.socket, peer: str, protocol: Callable[[], Patient]) -> None:
        """A connection that has come from the address `peer`."""
        waits: list[asyncio.Task[None]] = []

        def give_way() -> None:
            waits[0].cancel()

        try:
            seat = self._seats.enter(peer, give_way)
        except Unavailable:
            connection.close()  # it could not read why
        else:
            waits.append(self._tasks.start(self._secure(connection, seat, protocol)))

    async def _secure(self, connection: socket.socket, seat: Seat, protocol: Callable[[], Patient]) -> None:
        loop = asyncio.get_running_loop()
        made = protocol()
        made.sit_down(seat)
        try:
            async with asyncio.timeout(MAX_HANDSHAKE):
                first = await _first_byte(connection)
            if first == _HANDSHAKE:
                await loop.connect_accepted_socket(
                    lambda: made, connection, ssl=self._context, ssl_handshake_timeout=MAX_HANDSHAKE
                )
            elif first:
                if not is_local(seat.peer) and not self._seats.proxies.trusts(seat.peer):
                    made.refused = Refused(400, BadRequest.code, "this server speaks TLS", "Write https:// instead.")
                await loop.connect_accepted_socket(lambda: made, connection)
        except OSError:
            pass  # it says nothing, speaks neither, or has gone
        finally:
            if not made.connected:
                seat.leave()
                connection.close()


async def _first_byte(connection: socket.socket) -> bytes:
    """What comes first, left where it is; nothing: it has gone."""
    loop = asyncio.get_running_loop()
    there = loop.create_future()

    def look() -> None:
        loop.remove_reader(connection)
        if not there.done():
            there.set_result(None)

    loop.add_reader(connection, look)
    try:
        await there
    finally:
        loop.remove_reader(connection)
    return connection.recv(1, socket.MSG_PEEK)
