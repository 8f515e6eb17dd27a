"""One machine with one worker: the real brain, and around it what `worker.agent` and `journal` do for it."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from hecaton.core.model import AttemptRef, Kind
from hecaton.wire.channel import (
    Accepted,
    Assign,
    Cancel,
    Drain,
    Outcome,
    Retire,
    Revoke,
    ToWorker,
    Welcome,
)
from hecaton.worker.brain import events as ev
from hecaton.worker.brain import invariants
from hecaton.worker.brain.settings import WorkerSettings
from hecaton.worker.brain.slots import Done
from hecaton.worker.brain.state import WorkerState
from hecaton.worker.doors.door import Answer
from tests.simulator.engine import Container, Engine
from tests.simulator.link import Link
from tests.simulator.logs import Logs
from tests.simulator.loop import Process, SimLoop, Turn
from tests.simulator.network import Connection, Item, Path
from tests.simulator.oracle import Oracle

LINGER = 0.02
LOOK = 1.0
"""Seconds between two looks at the logs of running jobs."""

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
        self.healed = False

    @property
    def boot(self) -> str:
        return f"{self.name}-boot-{self.boots}"

    def start(self) -> None:
        """Clear what an earlier process left in the engine, then run. The product would go on with it: not
        simulated."""
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

    def leave(self) -> None:
        """The worker has ended by itself. After the faults nobody is to start it again but this."""
        self.kill()
        if self.healed:
            self.start()

    def heal(self) -> None:
        """Nothing of it is broken any more."""
        self.powered = self.healed = True
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
        self.logs = Logs(self)
        self._looking = False
        self._events: deque[ev.Event] = deque()
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
            ev.GiveAhead: self._give_ahead,
            ev.Withdraw: self._withdraw,
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
        """As the agent does: what is posted meanwhile comes right after."""
        self._events.append(event)
        if len(self._events) > 1:
            return
        while self._events:
            actions = self.state.handle(self._events[0])
            try:
                invariants.check(self.state.holdings)
                invariants.check_orders(self.state.holdings, actions)
            except AssertionError as error:
                self.oracle.fail(f"{self.name}: {error} (after {type(self._events[0]).__name__})")
            for action in actions:
                self._carry[type(action)](action)
            self._events.popleft()
        self._set_timer()

    def tell(self, event: ev.Event) -> None:
        """From the engine's process."""
        self.loop.post(self.process, 0.0, self.post_now, event)

    def post_now(self, event: ev.Event) -> None:
        if isinstance(event, ev.ContainerReady):
            log = self.containers[event.container].heard()
            self.logs.exchanges[event.container].asks_for_work(event.busy, event.takes_ahead, log)
            return
        if isinstance(event, ev.JobAnswered):
            data = b"" if event.body is None else event.body.data
            log_end, next_log = self.containers[event.container].settled(event.ref)
            answer = Answer(event.ref, event.reason, Kind.JSON, data, None, event.failure, log_end, next_log)
            self.logs.exchanges[event.container].answers(answer)
            return
        if isinstance(event, ev.ContainerExited):
            never_began = self.logs.exchanges[event.container].withdraw()
            event = msgspec.structs.replace(event, never_began=never_began)
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
            self.post(ev.Welcomed(now, message.drop, message.drained))
            held = [job.ref for job in self.state.holdings.jobs.values() if job.ending is None]
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
        elif isinstance(message, Drain):
            self.post(ev.Drained(now, message.active))
        elif isinstance(message, Retire):
            self.oracle.fail(f"{self.name} was retired: {message.message}")

    def lost(self) -> None:
        self.logs.outbox.lost()
        self.post(ev.LinkLost(self.loop.time()))

    def stop(self) -> None:
        """SIGTERM."""
        self.post(ev.StopAsked(self.loop.time()))

    # -- actions ---------------------------------------------------------------------------------------

    def _start_container(self, action: ev.StartContainer) -> None:
        container = self.containers[action.container] = Container(self.machine.engine, action, self.tell)
        self.logs.add(container)

    def _stop_container(self, action: ev.StopContainer) -> None:
        self.containers[action.container].stop()

    def _give(self, action: ev.GiveJob) -> None:
        self._require_unfenced(action.assignment.ref)
        self.logs.exchanges[action.container].give(action.assignment)
        self._look_soon()

    def _give_ahead(self, action: ev.GiveAhead) -> None:
        for job in action.assignments:
            self._require_unfenced(job.ref)
        self.logs.exchanges[action.container].give_ahead(action.assignments)

    def _withdraw(self, action: ev.Withdraw) -> None:
        refs = self.logs.exchanges[action.container].withdraw()
        self.post(ev.Withdrawn(self.loop.time(), action.container, refs))

    def _require_unfenced(self, ref: AttemptRef) -> None:
        self.oracle.rule(
            ref not in self._fenced, f"{self.name} starts {self.oracle.name(ref)}, which it knows is fenced"
        )

    def _acknowledge(self, action: ev.Acknowledge) -> None:
        self.containers[action.container].acknowledge(action.ref)

    def _report(self, action: ev.Report) -> None:
        self.link.send(action.message)

    def _deliver(self, action: ev.Deliver) -> None:
        if not action.again:
            self.logs.ends(action.outcome.ref)
            self._waiting[action.outcome.ref] = Ended(action.outcome, 0, self.machine.wall())
            self._write_soon(LINGER)
        self.logs.outbox.deliver(action.outcome)

    def _forget(self, action: ev.Forget) -> None:
        self.logs.forget(action.ref)
        self._waiting.pop(action.ref, None)
        if action.ref in self.machine.journal.written:
            self.loop.post(self.process, LINGER, self.machine.journal.written.pop, action.ref, None)

    def _leave(self, action: ev.Leave) -> None:
        self.oracle.say(self.name, f"leaves: {action.message}")
        self.oracle.rule(action.message == "stopped", f"{self.name} leaves by itself: {action.message}")
        self.machine.journal.written.update(self._waiting)
        self.loop.post(self.process, 0.0, self.machine.leave)

    # -- logs ------------------------------------------------------------------------------------------

    def _look_soon(self) -> None:
        if not self._looking:
            self._looking = True
            self.loop.post(self.process, LOOK, self._look)

    def _look(self) -> None:
        self._looking = False
        self.logs.look()
        if any(job.started_at is not None for job in self.state.holdings.jobs.values()):
            self._look_soon()

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
