"""The worker's one connection to its server.

It comes back for ever by itself. What is sent while there is no connection is dropped: after each Hello and Welcome the
worker's brain says again what still matters.

Results that come while the server stores earlier ones leave together when it has, or when they are many: the busier
both are, the less each costs. That a job has started waits a moment: most have ended by then, which says it, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import deque
from typing import Protocol

import aiohttp
import msgspec
import structlog

from hecaton.core.model import AttemptRef
from hecaton.wire import channel
from hecaton.wire.bounds import MAX_FRAME
from hecaton.wire.channel import (
    Accepted,
    FromWorker,
    Hello,
    Outcome,
    Results,
    Retire,
    ServerBeat,
    Started,
    ToWorker,
    Warm,
    Welcome,
    WorkerBeat,
)
from hecaton.wire.frames import frames
from hecaton.worker.link.notify import notify
from hecaton.worker.link.reaching import UNAUTHENTICATED, Unwelcome, by_way_of, no_channel, too_old, untrusted
from hecaton.worker.link.registration import WorkerConfig

CONNECT_SECONDS = 15.0
SHORTEST_DELAY = 0.2
LONGEST_DELAY = 5.0
"""Seconds. After an outage a thousand workers are back within this time, spread evenly over it."""
UNWELCOME_DELAY = 30.0
"""Seconds after a refusal that only a person can change."""
SILENT_BEATS = 3
"""Heartbeats without a frame after which the server is taken for dead."""

MANY = 250
"""Messages that are worth a frame of their own. If all waited for the server, it would have to wait for them next."""

START_SECONDS = 0.05
"""For which the news that a job has started may wait for its end, or for anything else that leaves."""

CONGESTED = 4 * 1024 * 1024
"""Bytes that wait to be sent above which logs wait too."""

_log = structlog.get_logger("hecaton.worker.link.link")


class Listener(Protocol):
    """Who hears what comes over the link."""

    def hello(self) -> Hello: ...
    def welcome(self, message: Welcome) -> None: ...
    def assured(self, at: float) -> None:
        """The server has heard this worker not before `at` (seconds of CLOCK_BOOTTIME: a suspended machine has not been
        heard meanwhile)."""

    def hear(self, message: ToWorker) -> None: ...
    def lost(self) -> None: ...
    def dismissed(self, code: int, message: str) -> None:
        """The server wants this worker to end, with this exit code."""


class Sender(Protocol):
    """Who takes what goes over the link. What is sent while it is not connected is dropped."""

    @property
    def connected(self) -> bool: ...
    @property
    def congested(self) -> bool: ...
    def send(self, message: FromWorker) -> None: ...
    def reconnect(self) -> None:
        """What this worker has is another now, which only a hello can say."""
        ...


FINAL_EXIT = 3
"""Exit code of a worker that only a person may start again, not systemd: another process is the same worker, or a newer
release has written its journal."""


def reconnect_delay(failures: int, generator: random.Random) -> float:
    """Seconds until the next try: none after a connection that was of use, then with full jitter, so that workers do
    not come in waves. However many failures there were: an outage may last for days."""
    if failures == 0:
        return 0.0
    longest = min(LONGEST_DELAY, SHORTEST_DELAY * 2.0 ** min(failures, 10))
    return max(SHORTEST_DELAY, generator.uniform(0, longest))


class ServerLink:
    """One connection at a time. Between Welcome and its end, `lost` of the listener, it is connected; what waits to be
    sent never outlives a connection."""

    def __init__(self, config: WorkerConfig, session: aiohttp.ClientSession) -> None:
        self._url, self._ca_file = config.url.rstrip("/"), str(config.ca_file or "") or None
        self._session = session
        self._random = random.Random()
        self._waiting: list[FromWorker] = []
        self._wake: asyncio.Future[None] | None = None
        self._unaccepted: set[AttemptRef] = set()
        self._urgent = False  # something waits that no answer need be waited for
        self._hasty = False  # something waits beside starts, or they have waited
        self._timed = False
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._closing: asyncio.Future[bool] | None = None
        self._welcomed = False
        self._of_use = False  # the server has taken a result in this connection, or answered a beat while it had none
        self._sending = 0
        self._unanswered: deque[float] = deque()  # when what the server answers was said: Hello, then beats
        self._heard_at = 0.0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def connected(self) -> bool:
        return self._welcomed

    @property
    def congested(self) -> bool:
        return self._sending > CONGESTED or len(self._waiting) > 1000

    def send(self, message: FromWorker) -> None:
        """Messages of one turn of the event loop share a frame."""
        if self._welcomed:
            self._waiting.append(message)
            self._idle.clear()
            if isinstance(message, Started):
                self._start_later()
            else:
                self._hasty = True
                self._urgent = self._urgent or not isinstance(message, Results)
            self._wake_up()

    def reconnect(self) -> None:
        if self._socket is not None:
            self._closing = asyncio.ensure_future(self._socket.close())  # who receives hears of it at once

    def _start_later(self) -> None:
        # hot: benchmarks/instructions.py - a frame for each start costs the server and the worker 4 % of a short job. A
        # timer is not set for each, and not cancelled
        if not self._timed:
            self._timed = True
            asyncio.get_running_loop().call_later(START_SECONDS, self._start_now)

    def _start_now(self) -> None:
        self._timed = False
        self._hasty = bool(self._waiting)
        self._wake_up()

    def _wake_up(self) -> None:
        if self._wake is not None and not self._wake.done() and self._due():
            self._wake.set_result(None)

    def _due(self) -> bool:
        hasty = self._urgent or (self._hasty and not self._unaccepted)
        return bool(self._waiting) and (hasty or len(self._waiting) >= MANY)

    async def flush(self, seconds: float) -> None:
        """Until all is sent, or the time is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._idle.wait()

    async def run(self, listener: Listener) -> None:
        """Until cancelled, or until the server dismisses this worker. Once, by one task."""
        failures = 0
        while True:
            welcomed = False
            pause = 0.0
            try:
                welcomed, dismissed = await self._connect(listener)
                if dismissed:
                    return
                why = "the connection ended"
            except Unwelcome as error:
                why, pause = str(error), UNWELCOME_DELAY
            except aiohttp.ClientConnectorCertificateError as error:
                why, pause = untrusted(error, self._ca_file), UNWELCOME_DELAY
            except (aiohttp.ClientError, OSError, TimeoutError, msgspec.DecodeError) as error:
                why = f"{str(error) or type(error).__name__}{by_way_of(self._url)}"
            welcomed = welcomed or self._end_session(listener)
            # A welcome alone is not enough: a server whose disk is full says it, and hangs up at the first result.
            failures = 0 if self._of_use else failures + 1
            delay = self._random.uniform(pause / 2, pause) if pause else reconnect_delay(failures, self._random)
            verb = "Lost the connection" if welcomed else "Cannot connect"
            _log.warning(f"{verb}: trying again in {delay:.1f} s", server=self._url, error=why[:500])
            notify(f"not connected to {self._url}: {why[:300]}")
            await asyncio.sleep(delay)

    async def _connect(self, listener: Listener) -> tuple[bool, bool]:
        """One connection, from Hello to its end. Returns (was welcomed, is dismissed)."""
        self._of_use = False
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                socket = await self._session.ws_connect(
                    self._url + channel.PATH, max_msg_size=MAX_FRAME, compress=0, autoping=True
                )
        except aiohttp.WSServerHandshakeError as error:
            # A Hecaton server opens the connection before it looks at the token: another program answers here.
            by = error.headers.get("Server") if error.headers is not None else None
            raise aiohttp.ClientError(no_channel(error.status, by)) from error
        self._socket = socket
        tasks: list[asyncio.Task[None]] = []
        hello: list[FromWorker] = [listener.hello()]
        self._unanswered = deque((time.clock_gettime(time.CLOCK_BOOTTIME),))
        try:
            await socket.send_bytes(channel.encode(hello))
            return await self._receive(socket, listener, tasks)
        finally:
            self._socket = None
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
                async with asyncio.timeout(1):
                    await socket.close()

    async def _receive(
        self, socket: aiohttp.ClientWebSocketResponse, listener: Listener, tasks: list[asyncio.Task[None]]
    ) -> tuple[bool, bool]:
        patience: float | None = CONNECT_SECONDS
        while True:
            frame = await socket.receive(timeout=patience)
            self._heard_at = asyncio.get_running_loop().time()
            if frame.type is not aiohttp.WSMsgType.BINARY:
                return self._end_session(listener), self._closed_by_server(socket, frame, listener)
            for message in channel.decode_for_worker(frame.data):
                if isinstance(message, Welcome):
                    if channel.common(message.protocol) is None:
                        raise Unwelcome(too_old(message.protocol))
                    patience = None  # `_beat` sees to it from now on: a timer for each frame costs more than the frame
                    tasks.append(asyncio.create_task(self._write(socket)))
                    tasks.append(asyncio.create_task(self._beat(socket, message.heartbeat)))
                    self._welcomed = True
                    _log.info("Connected to the server", server=self._url)
                    notify(f"connected to {self._url}")
                    listener.welcome(message)
                    listener.assured(self._unanswered.popleft())
                elif isinstance(message, Retire):
                    listener.dismissed(0, f"this worker was removed from the server: {message.message}")
                    return self._end_session(listener), True
                elif isinstance(message, ServerBeat):
                    self._of_use |= not self._unaccepted  # else it may be just about to refuse them
                    if self._unanswered:
                        listener.assured(self._unanswered.popleft())
                elif isinstance(message, Accepted):
                    self._of_use = True
                    self._unaccepted.difference_update(message.refs, message.fenced)
                    self._wake_up()
                    listener.hear(message)
                else:
                    listener.hear(message)

    def _closed_by_server(
        self, socket: aiohttp.ClientWebSocketResponse, frame: aiohttp.WSMessage, listener: Listener
    ) -> bool:
        """Whether the worker is to end. Raises for closes that mean more than a lost connection."""
        code = socket.close_code
        if code == channel.CLOSE_SUPERSEDED:
            listener.dismissed(
                FINAL_EXIT,
                "another process connected as this worker and took over. If both are wanted, give one of them "
                "another name: hecaton-gpu run SERVER --name NAME",
            )
            return True
        if code == channel.CLOSE_UNAUTHENTICATED:
            raise Unwelcome(UNAUTHENTICATED)
        if code == channel.CLOSE_PROTOCOL:
            raise Unwelcome(f"the server refused what this worker said: {frame.extra or 'other protocol version'}")
        return False

    def _end_session(self, listener: Listener) -> bool:
        """Returns whether there was one."""
        was, self._welcomed = self._welcomed, False
        self._waiting.clear()
        self._unaccepted.clear()
        self._urgent = self._hasty = False
        self._sending = 0
        self._idle.set()
        if was:
            listener.lost()
        return was

    async def _write(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        loop = asyncio.get_running_loop()
        while True:
            # hot: benchmarks/throughput.py
            while not self._due():
                if not self._waiting:
                    self._idle.set()
                self._wake = loop.create_future()
                await self._wake
            messages, self._waiting = _together(self._waiting), []
            self._urgent = self._hasty = False
            if isinstance(messages[-1], Results):
                self._unaccepted.update(outcome.ref for outcome in messages[-1].outcomes)
            due = frames(messages)
            self._sending = sum(map(len, due))
            try:
                for frame in due:
                    await socket.send_bytes(frame)
            except (aiohttp.ClientError, OSError):
                return  # the reader hears of it too, and ends the session
            self._sending = 0

    async def _beat(self, socket: aiohttp.ClientWebSocketResponse, heartbeat: float) -> None:
        """Twice in a heartbeat, so that one may be late; and ends what is dead. Each beat is answered."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(heartbeat / 2)
            if loop.time() - self._heard_at >= heartbeat * SILENT_BEATS:
                await socket.close()  # `receive` hears of it at once
                return
            self._unanswered.append(time.clock_gettime(time.CLOCK_BOOTTIME))
            self.send(WorkerBeat())


def _together(messages: list[FromWorker]) -> list[FromWorker]:
    """As few messages as possible: starts in front of all but what their containers run, results behind what belongs to
    them. The end of a job says that it has started, too."""
    started: list[AttemptRef] = []
    outcomes: list[Outcome] = []
    head: list[FromWorker] = []
    others: list[FromWorker] = []
    for message in messages:
        if isinstance(message, Results):
            outcomes += message.outcomes
        elif isinstance(message, Started):
            started += message.refs
        else:
            (head if isinstance(message, Warm) else others).append(message)
    # hot: benchmarks/throughput.py - under load nearly each start has its end beside it
    ended = {outcome.ref for outcome in outcomes if outcome.ran is not None}
    head += [Started(tuple(begun))] if (begun := [ref for ref in started if ref not in ended]) else []
    return [*head, *others, *([Results(tuple(outcomes))] if outcomes else [])]
