"""Connections between workers and the server: ordered, delayed, cut, stalled, half-open. Frames are the real ones.

The server's end is an ASGI connection, so that the real `server.fleet.channel` runs over it.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, MutableMapping
from typing import Any, NamedTuple

from hecaton.server.connections import SEAT, Connections
from hecaton.server.forwarded import Proxies
from tests.simulator.loop import Process, SimLoop


class Closed(NamedTuple):
    """The last thing that arrives. `code` None: broken, not closed."""

    code: int | None
    reason: str = ""


class Opened(NamedTuple):
    """The connection stands: asked for by the worker, answered by the server."""


Item = bytes | Opened | Closed


class Path:
    """The network between one worker's machine and the server. `hole`: packets of (to server, to worker) vanish;
    what was sent is sent again when the hole is over, as TCP does."""

    def __init__(self, loop: SimLoop, rng: random.Random, latency: float) -> None:
        self.loop = loop
        self.rng = rng
        self.latency = latency
        self.slow = 1.0
        self.hole = [False, False]
        self.refuses = False
        self.replay = False
        self.said: deque[bytes] = deque(maxlen=50)  # frames to the server that may be replayed
        self.connections: list[Connection] = []

    def replayed(self) -> list[bytes]:
        """Frames of an earlier connection that turn up once more on this one."""
        frames = list(self.said) if self.replay else []
        self.replay = False
        return frames

    def delay(self) -> float:
        return self.latency * self.slow * self.rng.uniform(0.5, 2.0)

    def set_hole(self, to_server: bool, to_worker: bool) -> None:
        self.hole = [to_server, to_worker]
        for connection in list(self.connections):
            connection.to_server.set_blocked(to_server)
            connection.to_worker.set_blocked(to_worker)

    def cut(self) -> None:
        for connection in list(self.connections):
            connection.cut()


class Pipe:
    """One direction: what goes in comes out in order, later, in the receiver's process."""

    def __init__(self, path: Path, process: Process, deliver: Callable[[Item], None], blocked: bool) -> None:
        self._path, self._process, self._deliver = path, process, deliver
        self._blocked = blocked
        self._stalled: list[Item] = []
        self._last = 0.0
        self._ended = False

    def send(self, item: Item) -> None:
        if self._ended:
            return
        if self._blocked:
            self._stalled.append(item)
            return
        loop = self._path.loop
        self._last = max(self._last, loop.time() + self._path.delay())
        loop.post(self._process, self._last - loop.time(), self._arrive, item)

    def _arrive(self, item: Item) -> None:
        if self._ended:
            return
        if self._blocked:  # it was on its way when the hole opened
            self._stalled.append(item)
            return
        if isinstance(item, Closed):
            self._ended = True
        self._deliver(item)

    def set_blocked(self, blocked: bool) -> None:
        if self._blocked and not blocked:
            self._blocked = False
            stalled, self._stalled = self._stalled, []
            self._last = self._path.loop.time() + self._path.rng.uniform(0.0, 3.0)  # TCP's next try
            for item in stalled:
                self.send(item)
        self._blocked = blocked

    def stop(self) -> None:
        """Nothing arrives any more."""
        self._ended = True
        self._stalled.clear()

    def break_off(self) -> None:
        """The receiver learns that the connection broke; what was on its way is lost."""
        if not self._ended:
            self._ended = True
            loop = self._path.loop
            loop.post(self._process, self._path.delay(), self._deliver, Closed(None))


class Connection:
    """Opened by a worker. `heard` is called in the worker's process with frames and, last, a `Closed`."""

    def __init__(
        self,
        path: Path,
        worker: Process,
        server: Process,
        token: str,
        heard: Callable[[Item], None],
        accept: Callable[[Connection], None],
    ) -> None:
        self._path = path
        self._heard = heard
        self.token = token
        self.accept = accept
        self.server_end = ServerEnd(self, server)
        self.to_server = Pipe(path, server, self.server_end.arrive, path.hole[0])
        self.to_worker = Pipe(path, worker, self._to_worker, path.hole[1])
        path.connections.append(self)
        self.to_server.send(Opened())

    def _to_worker(self, item: Item) -> None:
        if isinstance(item, Closed):
            self.forget()
        self._heard(item)

    def send(self, frame: bytes) -> None:
        self.to_server.send(frame)

    def leave(self) -> None:
        """The worker's end is closed, by itself or with its process."""
        self.to_worker.stop()
        self.to_server.send(Closed(1006))

    def cut(self) -> None:
        """Both ends break. What was sent just before may still arrive, or not."""
        for pipe in (self.to_server, self.to_worker):
            if self._path.rng.random() < 0.5:
                pipe.send(Closed(None))
            else:
                pipe.break_off()
        self.forget()

    def vanish(self) -> None:
        """The worker's machine lost its power: no end is announced."""
        self.to_worker.stop()
        self.to_server.stop()
        self.forget()

    def server_died(self, silent: bool) -> None:
        if silent:
            self.to_worker.stop()
        elif self._path.rng.random() < 0.5:
            self.to_worker.send(Closed(None))
        else:
            self.to_worker.break_off()
        self.to_server.stop()
        self.forget()

    def forget(self) -> None:
        if self in self._path.connections:
            self._path.connections.remove(self)


class ServerEnd:
    """`receive` and `send` of ASGI."""

    def __init__(self, connection: Connection, process: Process) -> None:
        self._connection = connection
        self._process = process
        self._inbox: deque[dict[str, Any]] = deque([{"type": "websocket.connect"}])
        self._waiting: asyncio.Future[None] | None = None
        self._closed = False

    @property
    def scope(self) -> dict[str, Any]:
        headers = [(b"authorization", f"Bearer {self._connection.token}".encode())]
        seat = Connections(1, Proxies()).enter("10.0.0.1", lambda: None)
        return {
            "type": "websocket", "path": "/", "headers": headers, "query_string": b"", "subprotocols": [],
            "state": {SEAT: seat},
        }  # fmt: skip

    def arrive(self, item: Item) -> None:
        if isinstance(item, Closed):
            self._closed = True
            self._connection.forget()
            self._inbox.append({"type": "websocket.disconnect", "code": item.code or 1006})
        elif isinstance(item, Opened):
            self._connection.accept(self._connection)
        else:
            self._inbox.append({"type": "websocket.receive", "bytes": item})
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def receive(self) -> dict[str, Any]:
        while not self._inbox:
            self._waiting = asyncio.get_running_loop().create_future()
            await self._waiting
        return self._inbox.popleft()

    async def send(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "websocket.accept":
            self._connection.to_worker.send(Opened())
        elif self._closed:
            raise OSError("the connection is closed")
        elif message["type"] == "websocket.send":
            self._connection.to_worker.send(message["bytes"])
        elif message["type"] == "websocket.close":
            self._closed = True
            self._connection.to_worker.send(Closed(message["code"], message.get("reason") or ""))
            self._inbox.append({"type": "websocket.disconnect", "code": message["code"]})
            if self._waiting is not None and not self._waiting.done():
                self._waiting.set_result(None)
