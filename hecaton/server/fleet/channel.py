"""The server's end of the workers' connection: WebSocket frames in, use cases of `workers` and `attempts`
called, messages out.

One reader per connection. What needs the store runs beside the reader, so that a slow commit never delays a
heartbeat; the store keeps the order in which work was handed to it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import msgspec
import structlog
from starlette.types import Message, Receive, Scope, Send

from hecaton.core.errors import HecatonError, Unavailable
from hecaton.core.model import Reason, WorkerId, WorkerRecord
from hecaton.server.connections import Standing, seat_of
from hecaton.server.fleet.attempts import Attempts
from hecaton.server.fleet.checks import MAX_NOTE, Pace, shares
from hecaton.server.fleet.images.news import ImageNews
from hecaton.server.fleet.members import Fleet
from hecaton.server.fleet.quarantine import Quarantine
from hecaton.server.fleet.workers import Workers
from hecaton.server.tasks import Tasks
from hecaton.wire.channel import (
    CLOSE_PROTOCOL,
    CLOSE_REPLACED,
    CLOSE_SUPERSEDED,
    CLOSE_UNAUTHENTICATED,
    OLDEST,
    PROTOCOL,
    Broken,
    CardsNow,
    Draining,
    FromWorker,
    Have,
    Hello,
    Log,
    Lost,
    Note,
    Outcome,
    Progress,
    Pulled,
    Released,
    Resolved,
    Results,
    ServerBeat,
    Started,
    ToWorker,
    Warm,
    WorkerBeat,
    common,
    decode_for_server,
)
from hecaton.wire.frames import frames

HELLO_TIMEOUT = 10.0
OUTBOX_LIMIT = 10_000
"""Messages waiting for a worker that does not read; then the connection is cut, and the worker comes back."""

UNSTORED_LIMIT = 4 * 1024 * 1024
"""Bytes that a worker says before the store has to catch up with it."""

UNSTORED_EACH = 1024
"""Bytes that a message, or an attempt that it names, takes in memory beside what it says, about."""

ALONG = 0.5
"""Seconds for which what nobody waits for may wait for something that it can share a frame with."""

_log = structlog.get_logger("hecaton.channel")

_Arrived = tuple["_FrameWriter", WorkerId, Sequence[Outcome]]


class _FrameWriter:
    """Messages of one loop turn leave in one frame; the writer task sleeps while there are none."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._outbox: list[ToWorker] = []
        self._due = False
        self._sleep: asyncio.Future[None] | None = None
        self._close: tuple[int, str] | None = None
        self._timed = False
        self.closing = asyncio.Event()
        self.hello: Hello | None = None

    def send(self, message: ToWorker) -> None:
        self._put(message)
        self._wake_up()

    def send_along(self, message: ToWorker) -> None:
        # hot: benchmarks/growth.py - a frame of its own for each acknowledgement costs a tenth of a job
        self._put(message)
        if not self._timed:
            self._timed = True
            asyncio.get_running_loop().call_later(ALONG, self.send_now)

    def _put(self, message: ToWorker) -> None:
        if self._close is None:
            self._outbox.append(message)
            if len(self._outbox) > OUTBOX_LIMIT:
                self.close(1013, "the worker does not read")

    def send_now(self) -> None:
        """What waits for company."""
        self._timed = False
        if self._outbox:
            self._wake_up()

    def close(self, code: int, reason: str) -> None:
        """What was sent before still leaves, if the worker reads it within a second."""
        self._close = self._close or (code, reason)
        self._wake_up()
        self.closing.set()

    def _wake_up(self) -> None:
        self._due = True
        if self._sleep is not None and not self._sleep.done():
            self._sleep.set_result(None)

    async def write(self) -> None:
        """Runs until the connection is to be closed."""
        loop = asyncio.get_running_loop()
        while True:
            if not self._due:
                self._sleep = loop.create_future()
                await self._sleep
            self._due = False
            frame, self._outbox = self._outbox, []
            if frame:
                for piece in frames(frame):
                    await self._send({"type": "websocket.send", "bytes": piece})
            if self._close is not None and not self._outbox:
                await self._send(_closing(*self._close))
                return


class Channel:
    """On the server's event loop. `_links` has one connection of a worker, its newest that said hello: what arrives on
    any other is not listened to. `_arrived` is empty again when the turn of the loop is over."""

    def __init__(
        self,
        workers: Workers,
        attempts: Attempts,
        quarantine: Quarantine,
        fleet: Fleet,
        find: Callable[[str, str], Awaitable[WorkerRecord | None]],
        images: ImageNews,
    ) -> None:
        self._workers, self._attempts, self._quarantine, self._fleet = workers, attempts, quarantine, fleet
        self._find, self._images = find, images
        self._links: dict[WorkerId, _FrameWriter] = {}
        self._tasks = Tasks()
        self._arrived: list[_Arrived] = []

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection, from its handshake to its end."""
        header = dict(scope["headers"]).get(b"authorization", b"")
        token = header.decode("latin-1").removeprefix("Bearer ").strip()
        worker = await self._find(token, seat_of(scope).client(scope["headers"]))
        await receive()  # that it wants to connect
        await send({"type": "websocket.accept"})
        if worker is None:
            await send(_closing(CLOSE_UNAUTHENTICATED, "the worker's token does not hold: was the worker removed?"))
            return
        try:
            seat_of(scope).rise(Standing.KEPT, worker.id)
        except Unavailable as error:
            await send(_closing(1013, error.message))
            return
        link = _FrameWriter(send)
        with self._workers.connection(worker.id, link):
            await self._converse(receive, worker, link)

    async def _converse(self, receive: Receive, worker: WorkerRecord, link: _FrameWriter) -> None:
        writer = asyncio.ensure_future(link.write())
        reader = asyncio.ensure_future(self._read(receive, worker, link))
        closing = asyncio.ensure_future(link.closing.wait())
        try:
            # The reader alone would wait for ever for a worker that neither reads nor hangs up, or is not written to.
            await asyncio.wait((reader, closing, writer), return_when=asyncio.FIRST_COMPLETED)
            await _finish(writer, link)
        finally:
            reader.cancel()
            closing.cancel()
            writer.cancel()
            await asyncio.gather(reader, closing, writer, return_exceptions=True)
            self._workers.leave(worker, link)
            if self._links.get(worker.id) is link:
                del self._links[worker.id]

    async def _read(self, receive: Receive, worker: WorkerRecord, link: _FrameWriter) -> None:
        """Until the worker goes away or says something that cannot be right. Whatever comes of its words costs this
        connection alone."""
        try:
            await self._guarded(link, self._talk(receive, worker, link))
        except OSError:
            pass  # it went away; its leases stay until it returns or `lost_after` has passed
        except msgspec.DecodeError as error:
            _log.warning("A worker does not speak the protocol", worker=worker.name, error=str(error))
            link.close(CLOSE_PROTOCOL, _cut(f"not understood: {error}"))

    async def _talk(self, receive: Receive, worker: WorkerRecord, link: _FrameWriter) -> None:
        async with asyncio.timeout(HELLO_TIMEOUT):
            messages = decode_for_server(await _frame(receive))
        hello, rest = (messages[0], messages[1:]) if messages else (None, [])
        if not isinstance(hello, Hello):
            link.close(CLOSE_PROTOCOL, "hello comes first")
            return
        if common(hello.protocol) is None:
            spoken = f"it speaks protocol {hello.protocol}, this server {OLDEST} to {PROTOCOL}"
            link.close(CLOSE_PROTOCOL, _cut(f"upgrade hecaton on the worker's machine: {spoken}"))
            return
        link.hello = hello
        if link.closing.is_set() or not self._is_newest(worker, link):
            return
        self._links[worker.id] = link
        # To its end, whatever becomes of this connection: half a join would leave jobs that nobody holds.
        await asyncio.shield(self._tasks.start(self._guarded(link, self._join(worker, link, hello))))
        self._take(worker, link, rest)
        await self._listen(receive, worker, link)

    async def _listen(self, receive: Receive, worker: WorkerRecord, link: _FrameWriter) -> None:
        """For good. Not faster than what is heard can be dealt with: what waits for the store waits in memory."""
        pace, now = Pace(), asyncio.get_running_loop().time
        unstored = 0
        while True:
            frame = await _frame(receive)
            if self._links.get(worker.id) is not link:
                return
            self._workers.heard(worker.id)
            unstored += len(frame)
            for weight, messages in shares(decode_for_server(frame)):
                self._take(worker, link, messages)
                unstored += weight * UNSTORED_EACH
                if unstored > UNSTORED_LIMIT:
                    unstored = 0
                    await self._attempts.caught_up()
                if wait := pace.wait(weight, now()):
                    await asyncio.sleep(wait)
                if self._links.get(worker.id) is not link:
                    return

    async def _join(self, worker: WorkerRecord, link: _FrameWriter, hello: Hello) -> None:
        hello = await self._workers.enrolled(worker, hello)
        restored = await self._quarantine.restore(worker.id, hello)
        if self._links.get(worker.id) is link and not link.closing.is_set():  # else a newer one has come, or no right
            self._images.starts_anew(worker.id)
            await self._workers.join(worker, link, hello, restored)

    def _is_newest(self, worker: WorkerRecord, link: _FrameWriter) -> bool:
        """Of two connections with one token the older one is closed, even if its hello comes last: it was under way
        for long. Only where two processes use one token, a word of that goes to the older one, and ends it."""
        former = self._links.get(worker.id)
        if former is None or former.hello is None or link.hello is None:
            return True
        old, new = former.hello, link.hello
        same_boot = bool(new.boot_id) and old.boot_id == new.boot_id
        newer = not same_boot or (new.started, new.connection) >= (old.started, old.connection)
        older = former if newer else link
        if same_boot and old.started == new.started:
            older.close(CLOSE_REPLACED, "this worker has a newer connection")
        else:
            _log.warning("A worker connected twice: the newer process stays", worker=worker.name)
            older.close(CLOSE_SUPERSEDED, "another connection with this worker's token took over")
        return newer

    def _take(self, worker: WorkerRecord, link: _FrameWriter, messages: list[FromWorker]) -> None:
        for message in messages:
            self._take_one(worker.id, link, message)

    def _take_one(self, worker: WorkerId, link: _FrameWriter, message: FromWorker) -> None:
        match message:
            case Results(outcomes):
                self._gather(link, worker, outcomes)
            case Started(refs):
                self._attempts.started(worker, refs)
            case WorkerBeat():
                link.send(ServerBeat())
            case Log():
                self._attempts.log(worker, message)
            case Progress():
                self._attempts.progress(worker, message)
            case Note():
                self._attempts.note(worker, message)
            case Warm():
                self._fleet.set_warm(worker, message)
                self._images.runs(worker, message.image)
            case Lost(slot, why):
                if self._fleet.lose_slot(worker, slot, why[:MAX_NOTE]):
                    _log.warning("A worker has lost a card", worker=worker, slot=slot, why=why[:MAX_NOTE])
            case CardsNow(cards):
                self._workers.see_cards(worker, cards)
            case Released(refs):
                self._gather(link, worker, [Outcome(ref, Reason.RELEASED) for ref in refs])
            case Draining(active):
                self._workers.drain(worker, active)
                link.send_now()  # it leaves once its results are acknowledged
            case Resolved() | Pulled() | Have():
                self._images.hear(worker, message)
            case Broken(why):
                self._tasks.start(self._guarded(link, self._quarantine.broken(worker, why)))
            case Hello():
                link.close(CLOSE_PROTOCOL, "hello comes once")

    def _gather(self, link: _FrameWriter, worker: WorkerId, outcomes: Sequence[Outcome]) -> None:
        """Results that arrive in one turn of the loop, whoever sent them, are stored together."""
        # hot: benchmarks/growth.py
        if not self._arrived:
            # Not a task at once: logs that came before a result, later in this turn, are to be stored before it.
            asyncio.get_running_loop().call_soon(self._store_arrived)
        self._arrived.append((link, worker, outcomes))

    def _store_arrived(self) -> None:
        arrived, self._arrived = self._arrived, []
        self._tasks.hand(self._store(arrived))

    async def _store(self, arrived: Sequence[_Arrived]) -> None:
        link, worker, outcomes = arrived[0]
        try:
            await self._attempts.results([(worker, outcomes) for _, worker, outcomes in arrived])
        except Exception as error:  # each by itself: what cannot be stored takes nothing with it
            if len(arrived) == 1 == len(outcomes):
                await self._guarded(link, self._attempts.require_store(worker, error))
                if not link.closing.is_set():
                    again = self._attempts.try_again(worker, outcomes[0], link.closing)
                    self._tasks.start(self._guarded(link, again))
                return
            if len(arrived) == 1:
                arrived = [(link, worker, [outcome]) for outcome in outcomes]
            for one in arrived:
                await self._store([one])

    async def _guarded(self, link: _FrameWriter, work: Awaitable[None]) -> None:
        """A result that could not be stored is not acknowledged: the connection is cut, and the worker sends it
        again."""
        try:
            await work
        except (OSError, msgspec.DecodeError):
            raise
        except HecatonError as error:
            _log.warning("Could not store what a worker sent", error=str(error))
            link.close(1013, "the server cannot store results now")
        except Exception:
            _log.exception("what a worker sent could not be processed")
            link.close(1011, "the server failed; its log says why")

    async def close(self) -> None:
        """The server stops: workers keep their jobs running and come back."""
        for link in list(self._links.values()):
            link.close(1012, "the server restarts")
        await self._tasks.wait(5)


async def _finish(writer: asyncio.Future[None], link: _FrameWriter) -> None:
    """Let the last frame and the close code out, but do not wait for a peer that does not read."""
    link.close(1000, "")
    await asyncio.wait([writer], timeout=1)


def _closing(code: int, reason: str) -> Message:
    return {"type": "websocket.close", "code": code, "reason": reason}


async def _frame(receive: Receive) -> bytes:
    """ConnectionResetError once there are no more."""
    message = await receive()
    if message["type"] == "websocket.disconnect":
        raise ConnectionResetError
    frame = message.get("bytes")
    if frame is None:
        raise msgspec.DecodeError("a text frame")
    return bytes(frame)


def _cut(reason: str) -> str:
    """The reason of a close frame has at most 123 bytes."""
    return reason.encode()[:120].decode(errors="ignore")
