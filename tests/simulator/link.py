"""A worker's end of its connection, as `worker.link.link` behaves: beats, dead servers noticed, back for ever."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hecaton.wire import channel
from hecaton.wire.channel import FromWorker, Hello, Released, Results, Started, ToWorker, Welcome, WorkerBeat
from hecaton.worker.link.link import CONNECT_SECONDS, SILENT_BEATS, reconnect_delay
from tests.simulator.network import Closed, Connection, Item, Opened
from tests.simulator.trace import describe

if TYPE_CHECKING:
    from tests.simulator.machine import Worker

_WORKER_BEATS: list[FromWorker] = [WorkerBeat()]
_SERVER_BEATS: list[ToWorker] = [channel.ServerBeat()]
BEAT = channel.encode(_WORKER_BEATS)
SERVER_BEAT = channel.encode(_SERVER_BEATS)


class Link:
    """As `worker.link.link`: one connection, beats, dead servers noticed, back for ever with growing pauses."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._loop = worker.loop
        self._path = worker.machine.path
        self._connection: Connection | None = None
        self._welcomed = False
        self._waiting: list[FromWorker] = []
        self._flushing = False
        self._failures = 0
        self._heard_at = self._sent_at = 0.0
        self._patience = CONNECT_SECONDS
        self._heartbeat = 5.0
        self.greeted_at = 0.0

    @property
    def connected(self) -> bool:
        return self._welcomed

    congested = False

    def send(self, message: FromWorker) -> None:
        if self._welcomed:
            self._waiting.append(message)
            if not self._flushing:
                self._flushing = True
                self._loop.post(self._worker.process, 0.0, self._flush)

    def _flush(self) -> None:
        self._flushing = False
        messages, self._waiting = self._waiting, []
        if messages and self._connection is not None:
            self._worker.oracle.say(self._worker.name, f"-> {describe(self._worker.oracle, messages)}")
            frame = channel.encode(messages)
            self._connection.send(frame)
            if all(isinstance(message, Results | Released | Started) for message in messages):
                self._path.said.append(frame)
            self._sent_at = self._loop.time()

    def connect(self) -> None:
        worker = self._worker
        self._heard_at, self._patience = self._loop.time(), CONNECT_SECONDS
        heard = _Ears(self)
        self._connection = heard.connection = worker.machine.connect(self._path, worker.process, worker.name, heard)
        if self._connection is None:
            self._failures += 1
            self._again()
        else:
            self._loop.post(worker.process, CONNECT_SECONDS, self._watch, self._connection)

    def _greet(self, connection: Connection) -> None:
        worker, now = self._worker, self._loop.time()
        self.greeted_at = now
        slots, held = worker.state.holdings.slot_infos(), worker.state.holdings.held(now)
        frame: list[FromWorker] = [Hello(channel.PROTOCOL, "sim", "sim", slots, held, None, worker.machine.boot)]
        worker.oracle.say(worker.name, f"-> {describe(worker.oracle, frame)}")
        connection.send(channel.encode(frame))
        for old in self._path.replayed():
            connection.send(old)
        self._loop.post(worker.process, CONNECT_SECONDS, self._watch, connection)

    def hear(self, item: Item) -> None:
        if isinstance(item, Closed):
            self._connection = None
            self._closed(item)
            return
        self._heard_at = self._loop.time()
        if item == SERVER_BEAT:
            return
        if isinstance(item, Opened):
            assert self._connection is not None
            self._greet(self._connection)
            return
        worker = self._worker
        messages = channel.decode_for_worker(item)
        worker.oracle.say(worker.name, f"<- {describe(worker.oracle, messages)}")
        for message in messages:
            if isinstance(message, Welcome):
                self._heartbeat = message.heartbeat
                self._patience = message.heartbeat * SILENT_BEATS
                self._welcomed = True
                self._failures = 0
                assert self._connection is not None
                self._beat(self._connection)
            worker.hear(message)

    def _closed(self, end: Closed) -> None:
        if end.code in (channel.CLOSE_SUPERSEDED, channel.CLOSE_PROTOCOL, channel.CLOSE_UNAUTHENTICATED):
            self._worker.oracle.fail(f"{self._worker.name} was sent away: {end.code} {end.reason}")
        self._end_session()
        self._again()

    def _end_session(self) -> None:
        was, self._welcomed = self._welcomed, False
        self._waiting.clear()
        if was:
            self._worker.lost()
        else:
            self._failures += 1

    def _again(self) -> None:
        delay = reconnect_delay(self._failures, self._worker.machine.rng)
        self._loop.post(self._worker.process, delay + 0.001, self.connect)

    def _beat(self, connection: Connection) -> None:
        if self._connection is not connection:
            return
        now = self._loop.time()
        if now - self._sent_at > self._heartbeat / 2 - 0.001:
            connection.send(BEAT)
            self._sent_at = now
        self._watch(connection)
        self._loop.post(self._worker.process, self._heartbeat / 2, self._beat, connection)

    def _watch(self, connection: Connection) -> None:
        """A server that has said nothing for long is taken for dead."""
        if self._connection is connection and self._loop.time() - self._heard_at > self._patience - 0.001:
            self._connection = None
            connection.leave()
            self._end_session()
            self._again()

    def abandon(self) -> None:
        """The process died: its kernel closes the connection."""
        if self._connection is not None:
            self._connection.leave()

    def vanish(self) -> None:
        if self._connection is not None:
            self._connection.vanish()


class _Ears:
    """Only the current connection is listened to: an old one's last words are nobody's."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self.connection: Connection | None = None

    def __call__(self, item: Item) -> None:
        if self._link._connection is self.connection:
            self._link.hear(item)
