"""A real link that goes wrong: a TCP proxy before the server that knows HTTP requests and the frames of a WebSocket.

Each request, and each frame of the workers' connection, goes wrong with the probability `rate`, in one of the ways of
`Fault`; all draws come from one seed. `black_hole` lets nothing pass, and tells nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import random
import socket
import struct
import threading
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Coroutine, Iterator
from types import TracebackType

END = b"\r\n\r\n"
PIECE = 64 * 1024
STALL_SECONDS = 1.0
"""Longest time for which something stalls. What must be noticed by silence is the matter of `black_hole`."""

_CONTROL = 0x08  # opcodes from here on: close, ping, pong


class Fault(enum.StrEnum):
    LOST = "lost"  # it never arrives, and the connection breaks
    UNACKNOWLEDGED = "unacknowledged"  # it arrives; the answer is lost with the connection
    REPLAYED = "replayed"  # it arrives, and once more on the next connection
    CUT = "cut"  # the connection breaks in the middle of it, or of the answer
    STALLED = "stalled"


class _Cut(Exception):
    """The connection ends here, on both sides, without a good-bye."""


class FaultyLink:
    """Use as a context manager; it lives in a thread of its own. `target`: the server's port on this machine."""

    def __init__(self, target: int, *, seed: int, rate: float = 0.0) -> None:
        self.rate = rate
        self.counts: Counter[Fault] = Counter()
        self.passed = 0
        self._target = target
        self._random = random.Random(seed)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="faulty link")
        self._port = 0
        self._hole: asyncio.Event = asyncio.Event()  # set while everything passes
        self._holes = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._requests: list[bytes] = []
        self._frames: defaultdict[bytes, list[bytes]] = defaultdict(list)

    def __enter__(self) -> FaultyLink:
        self._thread.start()
        self._call(self._open())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __str__(self) -> str:
        return f"{self.counts.total()} of {self.counts.total() + self.passed} went wrong: " + ", ".join(
            f"{number} {fault}" for fault, number in sorted(self.counts.items())
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @contextlib.contextmanager
    def black_hole(self) -> Iterator[None]:
        """Nothing passes, no connection breaks. Afterwards old connections get what was held up; new ones, whose first
        packet was lost for good, break."""
        self._loop.call_soon_threadsafe(self._hole.clear)
        try:
            yield
        finally:
            self._loop.call_soon_threadsafe(self._fill)

    def _fill(self) -> None:
        self._holes += 1
        self._hole.set()

    def _call(self, work: Coroutine[None, None, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _open(self) -> None:
        self._hole.set()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=1 << 26)
        self._port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _draw(self) -> Fault | None:
        if self._random.random() >= self.rate:
            self.passed += 1
            return None
        fault = self._random.choice(list(Fault))
        self.counts[fault] += 1
        return fault

    async def _stall(self) -> None:
        await asyncio.sleep(self._random.uniform(0.05, STALL_SECONDS))

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._start(self._serve(reader, writer))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, to its end."""
        ends = [writer]
        try:
            before = self._holes
            await self._hole.wait()
            if self._holes != before:
                return
            for request in self._requests:
                self._start(self._again(request))
            self._requests.clear()
            above, up = await asyncio.open_connection("127.0.0.1", self._target, limit=1 << 26)
            ends.append(up)
            while head := await reader.readuntil(END):
                if b"upgrade: websocket" in head.lower():
                    await self._channel(head, (reader, writer), (above, up))
                    return
                request = head + b"".join([piece async for piece in _body(head, reader)])
                await self._exchange(request, writer, above, up)
        except (_Cut, asyncio.IncompleteReadError, OSError):
            await self._hole.wait()
        finally:
            for end in ends:
                _break(end)

    async def _again(self, request: bytes) -> None:
        """An old request arrives once more; nobody hears the answer."""
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            above, up = await asyncio.open_connection("127.0.0.1", self._target, limit=1 << 26)
            try:
                up.write(request)
                async for _ in _answer(request, above):
                    pass
            finally:
                _break(up)

    # -- requests ----------------------------------------------------------------------------------

    async def _exchange(
        self, request: bytes, writer: asyncio.StreamWriter, above: asyncio.StreamReader, up: asyncio.StreamWriter
    ) -> None:
        fault = self._draw()
        passes: float = float("inf")
        if fault is Fault.LOST:
            raise _Cut
        if fault is Fault.STALLED:
            await self._stall()
        if fault is Fault.REPLAYED:
            self._requests.append(request)
        if fault is Fault.UNACKNOWLEDGED:
            passes = 0
        if fault is Fault.CUT:
            if self._random.random() < 0.5:
                await self._pass(up, request[: self._random.randrange(1, len(request))])
                raise _Cut
            passes = self._random.randrange(1, 400)
        await self._pass(up, request)
        async for piece in _answer(request, above):
            if len(piece) > passes > 0:
                await self._pass(writer, piece[: int(passes)])
                raise _Cut
            if passes:
                passes -= len(piece)
                await self._pass(writer, piece)
        if passes < float("inf"):
            raise _Cut

    async def _pass(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        await self._hole.wait()
        writer.write(data)
        await writer.drain()

    # -- frames ------------------------------------------------------------------------------------

    async def _channel(
        self,
        head: bytes,
        below: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        above: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        await self._exchange(head, below[1], above[0], above[1])
        token = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"authorization:"))
        pumps = [
            asyncio.ensure_future(self._up(head, below[0], above[1], self._frames[token])),
            asyncio.ensure_future(self._down(above[0], below[1])),
        ]
        try:
            done, _ = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for pump in done:
                pump.result()
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _up(
        self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, old: list[bytes]
    ) -> None:
        """What the worker says. `old` holds what the next connection sees again, after its own greeting: frames, and
        the beginnings of whole connections."""
        greeted = False
        while True:
            frame = await _frame(reader)
            fault = await self._spoil(frame, writer)
            if not greeted:
                earlier, old[:] = list(old), []
                for said in earlier:
                    if said.startswith(b"GET "):
                        self._start(self._greet_again(said))
                    else:
                        await self._pass(writer, said)
            if fault is Fault.REPLAYED:
                old.append(frame if greeted else head + frame)
            greeted = True
            if fault is Fault.UNACKNOWLEDGED:
                raise _Cut

    async def _down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """What the server says. Nobody ever repeats that, so REPLAYED means nothing here."""
        while True:
            if await self._spoil(await _frame(reader), writer) is Fault.UNACKNOWLEDGED:
                raise _Cut

    async def _spoil(self, frame: bytes, writer: asyncio.StreamWriter) -> Fault | None:
        """Let it pass, or do to it what was drawn."""
        fault = self._draw() if frame[0] & 0x0F < _CONTROL else None
        if fault is Fault.LOST:
            raise _Cut
        if fault is Fault.STALLED:
            await self._stall()
        if fault is Fault.CUT:
            await self._pass(writer, frame[: self._random.randrange(1, len(frame))])
            raise _Cut
        await self._pass(writer, frame)
        return fault

    async def _greet_again(self, said: bytes) -> None:
        """The beginning of an old connection arrives late, beside the new one."""
        head, _, hello = said.partition(END)
        with contextlib.suppress(asyncio.IncompleteReadError, OSError, TimeoutError):
            above, up = await asyncio.open_connection("127.0.0.1", self._target)
            try:
                async with asyncio.timeout(STALL_SECONDS):
                    up.write(head + END)
                    await above.readuntil(END)
                    up.write(hello)
                    await above.read()
            finally:
                _break(up)


async def _body(head: bytes, reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """What follows the head of a request, or of an answer that has a length."""
    fields = _fields(head)
    if b"chunked" in fields.get(b"transfer-encoding", b""):
        size = 1
        while size:
            line = await reader.readuntil(b"\r\n")
            size = int(line.split(b";")[0], 16)
            yield line + await reader.readexactly(size + 2)
        return
    missing = int(fields.get(b"content-length", b"0"))
    while missing:
        piece = await reader.read(min(missing, PIECE))
        if not piece:
            raise asyncio.IncompleteReadError(b"", missing)
        missing -= len(piece)
        yield piece


async def _answer(request: bytes, reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    head = await reader.readuntil(END)
    yield head
    status = int(head.split(b" ", 2)[1])
    if not request.startswith(b"HEAD ") and status not in (101, 204, 304):
        async for piece in _body(head, reader):
            yield piece


def _fields(head: bytes) -> dict[bytes, bytes]:
    lines = (line.partition(b":") for line in head.split(b"\r\n")[1:])
    return {name.strip().lower(): value.strip().lower() for name, _, value in lines}


async def _frame(reader: asyncio.StreamReader) -> bytes:
    """One frame of a WebSocket (RFC 6455, 5.2), as it is on the wire."""
    raw = await reader.readexactly(2)
    length, extended = raw[1] & 0x7F, {126: (2, ">H"), 127: (8, ">Q")}
    if length in extended:
        size, layout = extended[length]
        more = await reader.readexactly(size)
        raw += more
        (length,) = struct.unpack(layout, more)
    return raw + await reader.readexactly(length + (4 if raw[1] & 0x80 else 0))


def _break(writer: asyncio.StreamWriter) -> None:
    """A reset, as when a machine on the way has forgotten the connection."""
    end = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
