"""A worker that does what a test tells it to: it speaks the real channel over a real WebSocket and runs nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

import aiohttp
import msgspec

from hecaton.core.model import AttemptRef, Body, Kind, Reason
from hecaton.core.options import OF_WORKERS
from hecaton.wire.channel import (
    PATH,
    PROTOCOL,
    Accepted,
    Assign,
    Assignment,
    FromWorker,
    Held,
    Hello,
    Log,
    Outcome,
    Progress,
    Results,
    SlotInfo,
    Started,
    ToWorker,
    Welcome,
    WorkerBeat,
    decode_for_worker,
    encode,
)

M = TypeVar("M")
PATIENCE = 20.0


def slots(count: int) -> tuple[SlotInfo, ...]:
    return tuple(SlotInfo(index, None, None, None) for index in range(count))


def json_body(value: Any) -> Body:
    return Body.inline(Kind.JSON, msgspec.json.encode(value))


def progress(ref: AttemptRef, value: Any) -> Progress:
    return Progress(ref, msgspec.Raw(msgspec.msgpack.encode(value)))


class ScriptedWorker:
    """`heard`: all messages of the server so far. Beats by itself until `silent` is set.
    `longest`: bytes of the longest frame that it has been sent."""

    def __init__(self, session: aiohttp.ClientSession, url: str, token: str) -> None:
        self._session, self._url, self._token = session, url, token
        self.heard: list[ToWorker] = []
        self.close_code: int | None = None
        self.close_reason = ""
        self.silent = False
        self.longest = 0
        self._news = asyncio.Condition()
        self._taken = 0
        self._log_sizes: dict[AttemptRef, int] = {}  # what it has sent: as much as it says of each
        self._tasks: list[asyncio.Task[None]] = []
        self._socket: aiohttp.ClientWebSocketResponse | None = None

    @property
    def socket(self) -> aiohttp.ClientWebSocketResponse:
        assert self._socket is not None, "not connected"
        return self._socket

    @property
    def http(self) -> dict[str, str]:
        """Headers for transfers beside the channel."""
        return {"Authorization": f"Bearer {self._token}"}

    async def open(self) -> None:
        """The bare connection, before any hello. What an earlier one heard is forgotten."""
        self.heard, self._taken, self.close_code, self.close_reason = [], 0, None, ""
        self._socket = await self._session.ws_connect(
            self._url + PATH, headers={"Authorization": f"Bearer {self._token}"}, max_msg_size=0
        )
        self._tasks = [asyncio.create_task(self._read(self._socket))]

    async def connect(self, hello: Hello | None = None, **options: Any) -> Welcome:
        """Says hello and waits for the welcome; `options` are fields of the hello."""
        fields = {"protocol": PROTOCOL, "version": "2.0.0", "runtime": "docker", "slots": slots(1), "held": ()}
        fields |= {"options": tuple(sorted(OF_WORKERS))}
        await self.open()
        await self.send(hello or Hello(**{**fields, **options}))
        welcome = await self.hear(Welcome)
        self._tasks.append(asyncio.create_task(self._beat(self.socket, welcome.heartbeat)))
        return welcome

    async def _read(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        while (frame := await socket.receive()).type is aiohttp.WSMsgType.BINARY:
            self.longest = max(self.longest, len(frame.data))
            await self._tell(decode_for_worker(frame.data))
        self.close_code, self.close_reason = socket.close_code or 1006, str(frame.extra)
        await self._tell([])

    async def _tell(self, messages: list[ToWorker]) -> None:
        async with self._news:
            self.heard += messages
            self._news.notify_all()

    async def _beat(self, socket: aiohttp.ClientWebSocketResponse, seconds: float) -> None:
        while not socket.closed:
            await asyncio.sleep(seconds)
            if not self.silent and not socket.closed:
                await self.send(WorkerBeat())

    async def send(self, *messages: FromWorker) -> None:
        for message in messages:
            if isinstance(message, Log):
                size = self._log_sizes.get(message.ref, 0)
                self._log_sizes[message.ref] = max(size, message.offset + len(message.data))
        await self.socket.send_bytes(encode(list(messages)))

    async def until(self, condition: Callable[[], M | None]) -> M:
        """Waits until something that the server says makes the condition true."""
        async with asyncio.timeout(PATIENCE), self._news:
            while not (found := condition()):
                await self._news.wait()
            return found

    async def hear(self, kind: type[M]) -> M:
        """The newest message of a kind, once there is one."""
        return await self.until(lambda: next((m for m in reversed(self.heard) if isinstance(m, kind)), None))

    async def closed(self) -> int:
        """The code with which the server closes."""
        return await self.until(lambda: self.close_code)

    @property
    def assigned(self) -> list[Assignment]:
        return [job for message in self.heard if isinstance(message, Assign) for job in message.jobs]

    async def take(self) -> Assignment:
        """The next job that was not taken yet."""
        found = await self.until(lambda: self.assigned[self._taken : self._taken + 1])
        self._taken += 1
        return found[0]

    async def start(self) -> Assignment:
        job = await self.take()
        await self.send(Started((job.ref,)))
        return job

    async def finish(self, ref: AttemptRef, value: Any = None, ran: float = 0.01) -> None:
        await self.report(Outcome(ref, Reason.OK, json_body(value), ran=ran, log_size=self._log_sizes.get(ref, 0)))

    async def fail(self, ref: AttemptRef, reason: Reason) -> None:
        await self.report(Outcome(ref, reason, ran=0.0))

    async def report(self, *outcomes: Outcome) -> None:
        await self.send(Results(outcomes))

    async def answer(self, ref: AttemptRef) -> str:
        """How the server took the result of an attempt: "accepted" or "fenced"."""

        def found() -> str | None:
            for message in self.heard:
                if isinstance(message, Accepted) and ref in message.refs + message.fenced:
                    return "fenced" if ref in message.fenced else "accepted"
            return None

        return await self.until(found)

    async def cut(self) -> None:
        """The connection breaks without a goodbye, as when a cable is pulled. The worker can connect again."""
        if (transport := _transport(self.socket)) is not None:
            transport.abort()
        await self.gone()

    async def gone(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._socket is not None and not self._socket.closed:
            transport = _transport(self._socket)
            await self._socket.close()
            if transport is not None:
                transport.abort()  # else one over TLS waits for the server's goodbye, longer than the test's loop runs
        self._socket = None
        self.close_code = None


def _transport(socket: aiohttp.ClientWebSocketResponse) -> asyncio.Transport | None:
    connection = socket._response.connection
    return connection.transport if connection is not None else None


def holding(job: Assignment, phase: str = "running", age: float = 1.0) -> Held:
    return Held(job.ref, job.slot, phase, age)
