"""One machine with one worker: the real brain, and around it what `worker.agent`, `journal` and `link` do for it."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import msgspec

from hecaton.core.model import AttemptRef
from hecaton.wire import channel
from hecaton.wire.channel import (
    Accepted,
    Assign,
    Cancel,
    FromWorker,
    Hello,
    Outcome,
    Released,
    Results,
    Retire,
    Revoke,
    Started,
    ToWorker,
    Welcome,
    WorkerBeat,
)
from hecaton.worker import events as ev
from hecaton.worker.link import CONNECT_SECONDS, LONGEST_DELAY, SHORTEST_DELAY, SILENT_BEATS
from hecaton.worker.slots import Done, WorkerSettings
from hecaton.worker.state import WorkerState
from tests.simulator.engine import Container, Engine
from tests.simulator.loop import Process, SimLoop, Turn
from tests.simulator.network import Closed, Connection, Item, Opened, Path
from tests.simulator.oracle import Oracle
from tests.simulator.trace import describe

_WORKER_BEATS: list[FromWorker] = [WorkerBeat()]
_SERVER_BEATS: list[ToWorker] = [channel.ServerBeat()]
BEAT = channel.encode(_WORKER_BEATS)
SERVER_BEAT = channel.encode(_SERVER_BEATS)
LINGER = 0.02
RETRY = 1.0

Connect = Callable[[Path, Process, str, Callable[[Item], None]], Connection | None]


class Ended(msgspec.Struct, frozen=True):
    """`at`: by the wall clock, which may jump while the worker is away."""

    outcome: Outcome
    slot: int
    at: float


class Journal:
    """The worker's disk. `written` survives everything; what waits dies with the process."""

    def __init__(self) -> None:
        self.written: dict[AttemptRef, Ended] = {}
        self.full = False


class Machine:
    """What outlives the worker's process: engine, disk, network."""

    def __init__(
        self, name: str, slots: int, loop: SimLoop, oracle: Oracle, rng: random.Random, path: Path, connect: Connect,
        wall: Callable[[], float],
    ) -> None:  # fmt: skip
        self.name, self.slots, self.loop, self.oracle, self.rng = name, slots, loop, oracle, rng
        self.path, self.connect, self.wall = path, connect, wall
        self.engine = Engine(name, loop, oracle, rng)
        self.journal = Journal()
        self.worker: Worker | None = None
        self.starts = 0
        self.boots = 0
        self.powered = True

    @property
    def boot(self) -> str:
        return f"{self.name}-boot-{self.boots}"

    def start(self) -> None:
        """Clear what an earlier process left in the engine, then run. As the product does it: nothing is adopted."""
        if self.worker is not None or not self.powered:
            return
        self.starts += 1
        self.worker = Worker(self, f"{self.name}.{self.starts}")
        self.worker.begin()

    def kill(self) -> None:
        """kill -9 of the worker: its containers live on, its connection breaks."""
        worker, self.worker = self.worker, None
        if worker is not None:
            self.loop.kill(worker.process)
            worker.link.abandon()
            for container in list(self.engine.containers):
                container.orphaned()

    def heal(self) -> None:
        """Nothing of it is broken any more."""
        self.powered = True
        self.path.set_hole(False, False)
        self.path.refuses, self.path.slow = False, 1.0
        self.journal.full = False
        self.engine.registry_up = True
        self.engine.come_up()
        if self.worker is not None:
            self.loop.resume(self.worker.process)
        self.start()

    def power_off(self) -> None:
        worker, self.worker = self.worker, None
        self.powered = False
        self.boots += 1
        if worker is not None:
            self.loop.kill(worker.process)
            worker.link.vanish()
        self.engine.power_off()


class Worker:
    """One process of it."""

    def __init__(self, machine: Machine, name: str) -> None:
        self.machine = machine
        self.process = Process(name)
        self.name = machine.name
        self.oracle = machine.oracle
        self.loop = machine.loop
        self.link = Link(self)
        self.containers: dict[str, Container] = {}
        self._waiting: dict[AttemptRef, Ended] = {}
        self._writing = False
        self._timer: Turn | None = None
        self._fenced: set[AttemptRef] = set()
        settings = WorkerSettings(
            slots=machine.slots, idle_timeout=120.0, drain_timeout=20.0, startup_timeout=60.0, grace=5.0
        )
        now, wall = self.loop.time(), machine.wall()
        done = [
            Done(item.outcome, item.slot, now - max(0.0, wall - item.at)) for item in machine.journal.written.values()
        ]
        self.state = WorkerState((), settings, f"{name}-c", done)
        self._carry: dict[type[ev.Action], Callable[[Any], None]] = {
            ev.StartContainer: self._start_container,
            ev.StopContainer: self._stop_container,
            ev.GiveJob: self._give,
            ev.Acknowledge: self._acknowledge,
            ev.Report: self._report,
            ev.Deliver: self._deliver,
            ev.Forget: self._forget,
            ev.Leave: self._leave,
        }

    def begin(self) -> None:
        found = list(self.machine.engine.containers)
        for container in found:
            container.stop()
        self.oracle.say(self.name, f"worker starts, removes {len(found)} containers")
        self._wait_for_removal(found)

    def _wait_for_removal(self, found: list[Container]) -> None:
        if all(container.gone for container in found):
            self.link.connect()
        else:
            self.loop.post(self.process, 0.1, self._wait_for_removal, found)

    # -- events ----------------------------------------------------------------------------------------

    def post(self, event: ev.Event) -> None:
        for action in self.state.handle(event):
            self._carry[type(action)](action)
        try:
            self.state.check()
        except AssertionError as error:
            self.oracle.fail(f"{self.name}: {error} (after {type(event).__name__})")
        self._set_timer()

    def tell(self, event: ev.Event) -> None:
        """From the engine's process."""
        self.loop.post(self.process, 0.0, self.post_now, event)

    def post_now(self, event: ev.Event) -> None:
        if isinstance(event, ev.ContainerReady):
            self.containers[event.container].heard()
        self.post(msgspec.structs.replace(event, now=self.loop.time()))

    def _set_timer(self) -> None:
        due = self.state.deadline()
        if due is None or (self._timer is not None and not self._timer.dropped and self._timer.at <= due):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.post(self.process, due - self.loop.time(), self._tick)

    def _tick(self) -> None:
        self._timer = None
        self.post(ev.Tick(self.loop.time()))

    # -- from the server -------------------------------------------------------------------------------

    def hear(self, message: ToWorker) -> None:
        now = self.loop.time()
        if isinstance(message, Welcome):
            self._fenced.update(message.drop)
            self.oracle.forgets(message.drop)
            self.post(ev.Welcomed(now, message.drop))
            held = [job.ref for job in self.state.jobs.values() if job.ending is None]
            self.oracle.still_holds(self.name, held, self.link.greeted_at)
        elif isinstance(message, Assign):
            self.post(ev.Assigned(now, message.jobs))
        elif isinstance(message, Accepted):
            self._fenced.update(message.fenced)
            self.oracle.forgets(message.refs + message.fenced)
            self.post(ev.ResultsAccepted(now, message.refs, message.fenced))
        elif isinstance(message, Revoke):
            self.post(ev.Revoked(now, message.refs))
        elif isinstance(message, Cancel):
            self.post(ev.CancelAsked(now, message.refs))
        elif isinstance(message, Retire):
            self.oracle.fail(f"{self.name} was retired: {message.message}")

    def lost(self) -> None:
        self.post(ev.LinkLost(self.loop.time()))

    def stop(self) -> None:
        """SIGTERM."""
        self.post(ev.StopAsked(self.loop.time()))

    # -- actions ---------------------------------------------------------------------------------------

    def _start_container(self, action: ev.StartContainer) -> None:
        self.containers[action.container] = Container(self.machine.engine, action, self.tell)

    def _stop_container(self, action: ev.StopContainer) -> None:
        self.containers[action.container].stop()

    def _give(self, action: ev.GiveJob) -> None:
        ref = action.assignment.ref
        self.oracle.rule(
            ref not in self._fenced, f"{self.name} starts {self.oracle.name(ref)}, which it knows is fenced"
        )
        self.containers[action.container].give(action.assignment)

    def _acknowledge(self, action: ev.Acknowledge) -> None:
        self.containers[action.container].acknowledge(action.ref)

    def _report(self, action: ev.Report) -> None:
        self.link.send(action.message)

    def _deliver(self, action: ev.Deliver) -> None:
        if not action.again:
            self._waiting[action.outcome.ref] = Ended(action.outcome, 0, self.machine.wall())
            self._write_soon(LINGER)
        self.link.send(Results((action.outcome,)))

    def _forget(self, action: ev.Forget) -> None:
        self._waiting.pop(action.ref, None)
        if action.ref in self.machine.journal.written:
            self.loop.post(self.process, LINGER, self.machine.journal.written.pop, action.ref, None)

    def _leave(self, action: ev.Leave) -> None:
        self.oracle.say(self.name, f"leaves: {action.message}")
        self.oracle.rule(action.message == "stopped", f"{self.name} leaves by itself: {action.message}")
        self.machine.journal.written.update(self._waiting)
        self.loop.post(self.process, 0.0, self.machine.kill)

    # -- the journal -----------------------------------------------------------------------------------

    def _write_soon(self, delay: float) -> None:
        if not self._writing:
            self._writing = True
            self.loop.post(self.process, delay, self._begin_write)

    def _begin_write(self) -> None:
        batch = dict(self._waiting)
        self.loop.post(self.process, self.machine.rng.uniform(0.001, 0.03), self._end_write, batch)

    def _end_write(self, batch: dict[AttemptRef, Ended]) -> None:
        self._writing = False
        journal = self.machine.journal
        if journal.full:
            self._write_soon(RETRY)
            return
        safe = tuple(ref for ref in batch if ref in self._waiting)
        for ref in safe:  # what the server has accepted meanwhile needs no disk
            journal.written[ref] = self._waiting.pop(ref)
        if self._waiting:
            self._write_soon(LINGER)
        if safe:
            self.post(ev.ResultsSafe(self.loop.time(), safe))


class Link:
    """As `worker.link`: one connection, beats, dead servers noticed, back for ever with growing pauses."""

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
        state = worker.state
        frame: list[FromWorker] = [
            Hello(channel.PROTOCOL, "sim", "sim", state.slot_infos(), state.held(now), None, worker.machine.boot)
        ]
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
        """At once after a connection that had worked, then with full jitter."""
        delay = 0.0
        if self._failures:
            most = min(LONGEST_DELAY, SHORTEST_DELAY * 2.0**self._failures)
            delay = max(SHORTEST_DELAY, self._worker.machine.rng.uniform(0.0, most))
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
