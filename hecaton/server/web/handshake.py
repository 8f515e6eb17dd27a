"""TLS, begun by connections that have their seats already.

asyncio's servers, and uvicorn with them, tell nobody of a connection before its handshake is over: whoever never ends
his would have as many as there are files.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable

from hecaton.core.errors import Unavailable
from hecaton.server.connections import Connections, Seat
from hecaton.server.tasks import Tasks
from hecaton.server.web.protocol import Patient

MAX_HANDSHAKE = 10.0
"""Seconds for the handshake of TLS."""

_NO_FILES = 0.1
"""Seconds until one more is accepted, where the process may open no more files."""


class Handshakes:
    """Accepts connections and makes them secure. On the loop."""

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
                self._greet(connection, str(peer[0]), protocol)

    def close(self) -> None:
        """Ends all that are under way: a connection that became secure now would find a server that stops."""
        self._tasks.cancel()

    def _greet(self, connection: socket.socket, peer: str, protocol: Callable[[], Patient]) -> None:
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
        made = protocol()
        made.sit_down(seat)
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: made, connection, ssl=self._context, ssl_handshake_timeout=MAX_HANDSHAKE
            )
        except OSError:
            pass  # it speaks no TLS, or has gone
        finally:
            if not made.connected:
                seat.leave()
