"""uvicorn's protocols as this server needs them.

A connection may not dawdle; frames of the workers' connection are read as they come. All of it, and `heads`, leans on
uvicorn's insides: tests notice when those change.
"""

from __future__ import annotations

import asyncio
import resource
import struct
import sys
from collections import deque
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame, apply_mask  # type: ignore[attr-defined]
from websockets.protocol import OPEN

from hecaton.core.errors import Unavailable
from hecaton.server.connections import SEAT, Connections, Seat, memory_here, room
from hecaton.server.settings import Settings
from hecaton.server.web.heads import Bounded, Refused
from hecaton.server.web.http import content_length

SLOWEST = 8 * 1024
"""Bytes per second below which a request body is given up, once it has had `request_timeout` (half a dozen times
slower than an old modem line)."""

_RESERVED = 512
"""File descriptors kept for the database, blobs, and the answers that say that there is no room."""

_OPEN_MAX = 10240
"""Of macOS: its setrlimit refuses more than that, unlimited too."""

LAST_WORDS = 1.0
"""Seconds for the answer to a connection that gives way, before it is cut."""

MAX_PARTS = 1024
"""Of a frame that comes in parts."""

AHEAD = 2
"""Frames that wait for their reader before the connection is read no further."""


class Patient(Bounded):
    """uvicorn's protocol for HTTP/1.1, which by itself waits for ever for the rest of a request, and answers nobody any
    more where there are too many: a machine that opens connections and sends a byte now and then would take the server
    from everybody else.

    Looks at the connection once per `request_timeout`; requests that are on time cost nothing."""

    settings: Settings
    seats: Connections
    _seat: Seat | None = None

    connected = False
    refused: Refused | None = None
    """Why nothing that comes is looked at."""
    _idle_since: float | None = None
    _idle_timer: asyncio.TimerHandle | None = None

    def sit_down(self, seat: Seat) -> None:
        """Before `connection_made`, where it has a place already."""
        self._seat = seat

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.connected = True
        self._seen: tuple[str, int] | None = None
        self._looks = 0
        self._look_later()
        try:
            if self._seat is None:
                self._seat = self.seats.enter(self.client[0] if self.client else "unknown", self._give_way)
            self._seat.evict = self._give_way
            self.app_state = {SEAT: self._seat}
            if self.refused is not None:
                self.refuse(self.refused)
        except Unavailable as error:
            self.refuse(Refused(503, error.code, error.message, error.hint))

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        if self._seat is not None:
            self._seat.leave()
        super().connection_lost(exc)

    def _give_way(self) -> None:
        """Nobody knows who it is, and others have need of its place."""
        if self in self.connections and not self.transport.get_write_buffer_size():
            self.refuse(Refused(503, Unavailable.code, "others needed this connection's place"))
            self.loop.call_later(LAST_WORDS, self.transport.abort)  # with TLS it would wait for the peer's own end
        else:
            self.transport.abort()

    # -- between two requests: a timer that is set and cancelled for each costs 1 % of a job

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            return
        self._idle_since = self.loop.time()
        if self._idle_timer is None:
            self._idle_timer = self.loop.call_later(self.timeout_keep_alive, self._close_idle)

    def _unset_keepalive_if_required(self) -> None:
        self._idle_since = None

    def _close_idle(self) -> None:
        self._idle_timer = None
        if self._idle_since is None:
            return
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._idle_timer = self.loop.call_later(left, self._close_idle)
        elif not self.transport.is_closing():
            self.transport.close()

    # -- on the way

    def _look_later(self) -> None:
        self._timer = self.loop.call_later(self.settings.request_timeout, self._look)

    def _look(self) -> None:
        if self not in self.connections:
            return  # it is a worker's channel by now
        unfinished = self._unfinished()
        self._looks = self._looks + 1 if unfinished is not None and unfinished == self._seen else 0
        self._seen = unfinished
        if self._looks and self._looks * self.settings.request_timeout > self._allowed():
            if self.transport.is_closing():
                self.transport.abort()  # it does not read what it is still to be told
            self.transport.close()
        self._look_later()

    def _unfinished(self) -> tuple[str, int] | None:
        """What has not arrived in full: the head of a request, or the body of this one, or, at the end, what is
        left of the answer; None: nothing."""
        if self.transport.is_closing():
            return "answer", self.transport.get_write_buffer_size()
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            return None if self._idle_since is not None else ("head", id(cycle))
        return ("body", id(cycle)) if cycle.more_body else None

    def _allowed(self) -> float:
        """Seconds from the first look on."""
        if self._seen is None or self._seen[0] != "body":
            return 0.0
        said = content_length(self.cycle.scope["headers"])
        size = self.settings.max_payload if said is None else said
        return min(size, max(self.settings.max_payload, self.settings.max_result)) / SLOWEST


def patient(server: Settings, connections: Connections) -> type[Patient]:
    """The protocol of one server's connections."""

    class Served(Patient):
        settings = server
        seats = connections

    return Served


def most_connections() -> int:
    """As many as there is memory for, and as this process may have files open, less what it needs itself; raises the
    limit of those as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if sys.platform == "darwin":
        hard = min(hard, _OPEN_MAX)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    usable = 1 << 20 if hard == resource.RLIM_INFINITY else hard
    return room(usable - min(_RESERVED, usable // 2), memory_here())


class _Arrived:
    """What an asyncio.Queue is, for one reader: without its locks, its count of tasks and its copies of both ends."""

    def __init__(self) -> None:
        self._events: deque[Any] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self.qsize = self._events.__len__

    def empty(self) -> bool:
        return not self._events

    def put_nowait(self, event: Any) -> None:
        self._events.append(event)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def get(self) -> Any:
        while not self._events:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self._events.popleft()


_PLAIN = 0x82
"""First byte of a frame that is a whole binary message."""

_MASKED = 0x80


class Reading(WebSocketsSansIOProtocol):
    """uvicorn's protocol for WebSockets, which by itself stops reading with each frame until that is taken."""

    # hot: benchmarks/growth.py - a frame is taken in the turn in which it comes: stopping and going on for each is a
    # system call more, and the loop's own work for it.
    # benchmarks/instructions.py - nearly every frame is a small message, and comes in one piece: the library, which
    # reads in a generator for each part of its head, takes 3 % of a job for it. It gets all others, byte by byte.

    _missing = 0
    """Bytes of a frame whose beginning the library has."""

    _begun = b""
    """A head that is not there in full."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self.queue = _Arrived()  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        if not self.handshake_complete:
            super().data_received(data)
            return
        data, self._begun = self._begun + data, b""
        start = 0
        while start < len(data):
            if self._missing:
                stop = start + self._missing
                self._missing = max(0, stop - len(data))
                super().data_received(data[start:stop])
                start = stop
                continue
            head, size = _measured(data, start)
            if not size:
                self._begun = data[start:]
                return
            end = start + size
            if end <= len(data) and data[start] == _PLAIN and self._takes(size - head) and data[start + 1] & _MASKED:
                self._pass_on(apply_mask(data[start + head : end], data[start + head - 4 : start + head]))
                start = end
            else:
                self._missing = size

    def _takes(self, size: int) -> bool:
        """A whole message of so many bytes is no error now."""
        conn = self.conn
        return conn.current_size is None and conn.state is OPEN and size <= (conn.max_message_size or size)

    def _pass_on(self, message: bytes) -> None:
        if not self.close_sent:
            self.queue.put_nowait({"type": "websocket.receive", "bytes": message})
            self._read_on_if_taken()

    def _read_on_if_taken(self) -> None:
        if not self.read_paused and self.queue.qsize() >= AHEAD:
            self.read_paused = True
            self.transport.pause_reading()

    async def send(self, message: Any) -> None:
        plain = message["type"] == "websocket.send" and self.writable.is_set() and not self.disconnected
        if not plain or self.close_sent or self.conn.state is not OPEN:
            await super().send(message)
            return
        data = message["bytes"]
        size = len(data)
        if size < 126:
            head = bytes((_PLAIN, size))
        else:
            head = struct.pack("!BBH", _PLAIN, 126, size) if size < 65536 else struct.pack("!BBQ", _PLAIN, 127, size)
        self.transport.write(head + data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.app_state[SEAT].leave()
        super().connection_lost(exc)

    def handle_cont(self, event: Frame) -> None:
        """The limit of a frame counts its bytes, and a part may have none."""
        if len(self.frames) < MAX_PARTS:
            super().handle_cont(event)
        else:
            self.transport.abort()

    def handle_ping(self) -> None:
        """One who asks and does not read the answers would have them pile up."""
        if self.writable.is_set():
            super().handle_ping()
        else:
            self.transport.abort()

    def send_receive_event_to_app(self) -> None:
        paused = self.read_paused
        self.read_paused = True  # so that it does not stop here
        super().send_receive_event_to_app()
        self.read_paused = paused
        self._read_on_if_taken()


def _measured(data: bytes, start: int) -> tuple[int, int]:
    """How many bytes the head of the frame has that begins there, and the whole frame; no bytes: that is not known
    yet."""
    left = len(data) - start
    if left < 2:
        return 0, 0
    said = data[start + 1]
    size, longer = said & 127, 0
    if size > 125:
        longer = 2 if size == 126 else 8
        size = int.from_bytes(data[start + 2 : start + 2 + longer], "big")
    head = 2 + longer + (4 if said & _MASKED else 0)
    return (head, head + size) if left >= head else (0, 0)
