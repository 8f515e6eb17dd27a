"""HTTP clients that cost little beside what they measure: bare HTTP/1.1 over kept connections.

Client and server share the machine's cores: a general client (0.3 ms a request) would be measured too."""

from __future__ import annotations

import asyncio
import itertools
import socket
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple, cast

import uvloop

TIMEOUT = 120.0


class Reply(NamedTuple):
    status: int
    body: bytes


class Target(NamedTuple):
    """A Hecaton server on loopback and a token for it."""

    port: int
    token: str

    def head(self, method: str, path: str, length: int, key: str | None = None) -> bytes:
        lines = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{self.port}", f"Authorization: Bearer {self.token}"]
        lines += ["Content-Type: application/json", f"Content-Length: {length}"]
        if key:
            lines.append(f"Idempotency-Key: {key}")
        return "\r\n".join([*lines, "", ""]).encode()

    def request(self, method: str, path: str, body: bytes = b"", key: str | None = None) -> bytes:
        return self.head(method, path, len(body), key) + body

    def job(self, body: bytes) -> bytes:
        """The request that submits a job and waits for its end, as the SDK sends it: with a key of its own."""
        return self.request("POST", "/v1/jobs?wait=60", body, f"bench-{next(_numbers)}-{time.time_ns()}")

    def flood(self, bodies: Sequence[bytes], connections: int = 64) -> list[float]:
        """Submit every job on its own and read its result, over so many connections. Gives each one's milliseconds."""
        return uvloop.run(_flood(self, bodies, connections))


_numbers = itertools.count()


class Connection:
    """One blocking connection."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._socket = socket.create_connection(("127.0.0.1", target.port), timeout=TIMEOUT)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def run_job(self, body: bytes) -> bytes:
        """Submit, wait, give the finished job's view."""
        return _finished(self.send(self.target.job(body)))

    def send(self, request: bytes) -> Reply:
        self._socket.sendall(request)
        received = b""
        while (reply := parse(received)) is None:
            piece = self._socket.recv(65536)
            if not piece:
                raise ConnectionError("the server closed the connection")
            received += piece
        return reply


class _Lane(asyncio.Protocol):
    """One connection that takes the next job as soon as the last one's result is there."""

    def __init__(self, target: Target, jobs: Iterator[bytes], took: list[float], done: asyncio.Future[None]) -> None:
        self._target, self._jobs, self._took, self._done = target, jobs, took, done
        self._received = b""
        self._sent = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop has a class of its own
        self._next()

    def _next(self) -> None:
        body = next(self._jobs, None)
        if body is None:
            self._transport.close()
            return
        self._sent = time.perf_counter()
        self._transport.write(self._target.job(body))

    def data_received(self, data: bytes) -> None:
        self._received += data
        reply = parse(self._received)
        if reply is None:
            return
        self._received = b""
        self._took.append((time.perf_counter() - self._sent) * 1e3)
        try:
            _finished(reply)
        except RuntimeError as error:
            self._end(error)
            return
        self._next()

    def connection_lost(self, error: Exception | None) -> None:
        self._end(error)

    def _end(self, error: Exception | None) -> None:
        if self._done.done():
            return
        if error is not None:
            self._done.set_exception(error)
            self._transport.close()
        else:
            self._done.set_result(None)


async def _flood(target: Target, bodies: Sequence[bytes], connections: int) -> list[float]:
    loop = asyncio.get_running_loop()
    took: list[float] = []
    jobs = iter(bodies)
    lanes = [loop.create_future() for _ in range(min(connections, len(bodies)))]
    for done in lanes:
        await loop.create_connection(lambda done=done: _Lane(target, jobs, took, done), "127.0.0.1", target.port)  # type: ignore[misc]
    await asyncio.gather(*lanes)
    if len(took) != len(bodies):
        raise RuntimeError(f"{len(took)} answers to {len(bodies)} jobs: the server closed a connection")
    return took


def parse(received: bytes) -> Reply | None:
    """A complete response, or None while there is more to come."""
    end = received.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = received[:end].lower()
    start = head.find(b"content-length:") + 15
    length = int(head[start : (head + b"\r\n").index(b"\r\n", start)]) if start >= 15 else 0  # 204 has none
    if len(received) < end + 4 + length:
        return None
    return Reply(int(head[9:12]), received[end + 4 :])


def _finished(reply: Reply) -> bytes:
    if reply.status >= 300 or b'"state":"FINISHED"' not in reply.body:
        raise RuntimeError(f"a job did not finish: {reply.status} {reply.body[:500].decode(errors='replace')}")
    return reply.body
