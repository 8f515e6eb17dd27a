"""The container engine of one machine: images that take time, containers that start, work, crash and hang.

It outlives the worker's process. What a handler does is written in the payload that reaches it.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable

import msgspec

from hecaton.core.model import AttemptRef, Body, Failure, Kind, Reason
from hecaton.wire.channel import Assignment
from hecaton.worker.brain import events as ev
from hecaton.worker.runtimes.port import Exit
from tests.simulator.logs import Files, is_silent, line_of
from tests.simulator.loop import Process, SimLoop
from tests.simulator.oracle import Execution, Oracle

GRACE = 5.0

CLOSED_AFTER = 3600.0
"""Seconds after which a container that is gone takes its log files along: its worker has sent them by then."""

_ENDS = {"exit": Exit(3), "oom": Exit(137, True)}


class Input(msgspec.Struct, frozen=True):
    """The payload of a simulated job."""

    n: int
    runs: float
    does: str
    after: int = 0


def result_of(n: int) -> bytes:
    """What the job's handler returns: f(input)."""
    return msgspec.json.encode({"n": n, "square": n * n})


class Engine:
    """`up`: the engine answers. `registry_up`: images can be pulled."""

    def __init__(self, host: str, loop: SimLoop, oracle: Oracle, rng: random.Random) -> None:
        self.host, self.loop, self.oracle, self.rng = host, loop, oracle, rng
        self.process = Process(f"{host}-engine")
        self.images: set[str] = set()
        self.up = True
        self.registry_up = True
        self.containers: list[Container] = []
        self._waiting: list[Callable[[], None]] = []

    def when_up(self, call: Callable[[], None]) -> None:
        """Orders to an engine that is away are repeated until it is back."""
        if self.up:
            call()
        else:
            self._waiting.append(call)

    def go_down(self, live_restore: bool) -> None:
        self.up = False
        if not live_restore:
            for container in list(self.containers):
                container.crash(Exit(-1, error="the engine was restarted"))

    def come_up(self) -> None:
        self.up = True
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            call()

    def power_off(self) -> None:
        for container in list(self.containers):
            container.vanish()
        self._waiting.clear()
        self.loop.kill(self.process)
        self.process = Process(self.process.name)

    def later(self, delay: float, call: Callable[[], object]) -> None:
        self.loop.post(self.process, delay, call)


class Container:
    """From the order to start it to its removal. `tell` reaches the worker's process, if that still lives."""

    def __init__(self, engine: Engine, order: ev.StartContainer, tell: Callable[[ev.Event], None]) -> None:
        self.id = order.container
        self.slot = order.slot
        self.exists = False  # the engine has made it
        self.alive = False  # its process runs
        self.gone = False
        self._engine = engine
        self._image = order.assignment.image.name
        self._tell = tell
        self._stopping = False
        self._starting = False
        self._execution: Execution | None = None
        self._job: tuple[AttemptRef, Input] | None = None
        self._ahead: deque[Assignment] = deque()  # has arrived, behind the job that runs
        self._turns: deque[AttemptRef] = deque()  # the pipe: what may still begin
        self._pending: dict[AttemptRef, Reason] = {}
        self._inputs: dict[AttemptRef, int] = {}
        self._connected = False
        self._connections = 0
        self._hellos: deque[int] = deque()  # said, and not yet heard by the worker
        self._door = 0  # the connection on which the worker speaks
        self.files = Files()
        self._settled: dict[AttemptRef, tuple[int, str | None]] = {}
        self._named: deque[str] = deque()  # the file into which it printed at each hello
        engine.containers.append(self)
        if self._image in engine.images:
            self._later(0.001, self._pulled)
        else:
            self._tell(ev.ContainerNote(self._now(), self.id, f"pulling {self._image}"))
            self._later(self._engine.rng.uniform(0.5, 30.0), self._pulled)

    def _now(self) -> float:
        return self._engine.loop.time()

    def _later(self, delay: float, call: Callable[[], object]) -> None:
        self._engine.later(delay, call)

    def orphaned(self) -> None:
        """The worker's process died: nobody listens any more."""
        self._tell = _nobody
        self._connected = False
        if not (self._starting or self.exists):
            self._remove()

    # -- start -----------------------------------------------------------------------------------------

    def _pulled(self) -> None:
        if self._stopping or self.gone:
            return
        engine = self._engine
        if self._image not in engine.images and not engine.registry_up:
            self._fail(Reason.IMAGE_PULL, "the registry cannot be reached")
            return
        engine.images.add(self._image)
        if not engine.up:
            self._fail(Reason.WORKER_ERROR, "the engine does not answer")
            return
        self._starting = True
        self._tell(ev.ImageReady(self._now(), self.id))
        self._later(engine.rng.uniform(0.1, 2.0), self._started)

    def _fail(self, reason: Reason, message: str) -> None:
        self._remove()
        self._tell(ev.ContainerFailed(self._now(), self.id, reason, message))

    def _started(self) -> None:
        engine = self._engine
        self._starting = False
        if self.gone:
            return
        if not engine.up:
            if self._stopping:
                self._vanished()
            else:
                self._fail(Reason.WORKER_ERROR, "the engine went away")
            return
        engine.oracle.container_starts(engine.host, self.slot, self.id)
        self.exists = self.alive = True
        if self._stopping:
            self._end()
            return
        self._tell(ev.ContainerStarted(self._now(), self.id))
        self._later(engine.rng.uniform(0.05, 5.0), self._hello)

    def _hello(self) -> None:
        if self.alive:
            self._connected = True
            self._connections += 1
            self._hellos.append(self._connections)
            self._named.append(self.files.now)
            self._ahead.clear()
            busy = [*self._pending, *([self._job[0]] if self._job else [])]
            self._tell(ev.ContainerReady(self._now(), self.id, tuple(busy), takes_ahead=True))
            for ref, reason in list(self._pending.items()):
                self._tell(self._answer(ref, reason))

    def break_door(self) -> None:
        """The connection between handler and worker breaks; the container comes back by itself."""
        if self.alive and self._connected:
            self._connected = False
            self._later(self._engine.rng.uniform(0.01, 1.0), self._hello)

    # -- work ------------------------------------------------------------------------------------------

    def heard(self) -> str:
        """The worker has got to the next hello. Returns the name of the log file in it."""
        self._door = self._hellos.popleft()
        self._turns.clear()
        return self._named.popleft()

    def settled(self, ref: AttemptRef) -> tuple[int, str | None]:
        """What the result of the attempt says of its log."""
        return self._settled[ref]

    def give(self, job: Assignment) -> None:
        door = self._door
        self._later(0.0001, lambda: self._take(job, door))

    def give_ahead(self, jobs: tuple[Assignment, ...]) -> None:
        door = self._door
        self._turns.extend(job.ref for job in jobs)
        self._later(0.0001, lambda: self._take_ahead(jobs, door))

    def withdraw(self) -> tuple[AttemptRef, ...]:
        """Whoever reads the pipe first has what is in it."""
        back = tuple(self._turns)
        self._turns.clear()
        return back

    def _take_ahead(self, jobs: tuple[Assignment, ...], door: int) -> None:
        if self.alive and self._connected and door == self._connections:
            self._ahead.extend(jobs)
            self._next()

    def _next(self) -> None:
        while self._ahead and self._job is None and self.alive:
            job = self._ahead.popleft()
            if job.ref in self._turns:
                while self._turns.popleft() != job.ref:
                    pass
                self._begin(job)

    def _take(self, job: Assignment, door: int) -> None:
        if not (self.alive and self._connected) or door != self._connections:
            return  # lost: it says in its next hello that it has no such job
        engine = self._engine
        if self._job is not None:
            engine.oracle.fail(f"{engine.host} {self.id} was given a job and has one")
        self._begin(job)

    def _begin(self, job: Assignment) -> None:
        engine = self._engine
        work = msgspec.json.decode(job.payload.data, type=Input)
        self._job = (job.ref, work)
        self._execution = engine.oracle.begins(job.ref, engine.host, self.slot, self.id)
        if not is_silent(work.n):
            self.files.print(line_of(job.ref, "begin"))
        if work.does != "hang":
            execution = self._execution
            self._later(work.runs, lambda: self._finish(execution))

    def _finish(self, execution: Execution) -> None:
        if self._execution is not execution or self._job is None:
            return
        ref, work = self._job
        fails = work.does in ("raise", "gpu") or (work.does == "flaky" and ref.attempt <= work.after)
        if work.does in _ENDS:
            self.crash(_ENDS[work.does])
            return
        reason = Reason.OK if not fails else Reason.OOM_GPU if work.does == "gpu" else Reason.HANDLER_ERROR
        self._engine.oracle.ends(execution, reason.value)
        if not is_silent(work.n):
            self.files.print(line_of(ref, "end"))
        self._settled[ref] = self.files.settle()
        self._execution = self._job = None
        self._pending[ref] = reason
        self._inputs[ref] = work.n
        if self._connected:
            self._later(0.0001, lambda: self._say_answer(ref, reason))
        self._later(self._engine.rng.choice((0.0, 0.001)), self._next)  # at times the answer is heard first

    def _say_answer(self, ref: AttemptRef, reason: Reason) -> None:
        if self._connected:
            self._tell(self._answer(ref, reason))

    def _answer(self, ref: AttemptRef, reason: Reason) -> ev.JobAnswered:
        now = self._now()
        if reason is Reason.OK:
            body = Body.inline(Kind.JSON, result_of(self._inputs[ref]))
            return ev.JobAnswered(now, self.id, ref, reason, body)
        return ev.JobAnswered(now, self.id, ref, reason, None, Failure("the handler raised"))

    def acknowledge(self, ref: AttemptRef) -> None:
        self._pending.pop(ref, None)
        self._inputs.pop(ref, None)

    # -- end -------------------------------------------------------------------------------------------

    def crash(self, exit: Exit) -> None:
        """Its process ends by itself; the container is still there."""
        if not self.alive:
            return
        self.alive = self._connected = False
        self._cut_off("lost" if exit.error else "oom" if exit.oom else "exit")
        self._tell(ev.ContainerExited(self._now(), self.id, exit, ""))

    def _cut_off(self, how: str) -> None:
        if self._execution is not None:
            self._engine.oracle.ends(self._execution, how)
        self._execution = self._job = None
        self._ahead.clear()

    def stop(self) -> None:
        """SIGTERM, grace, SIGKILL, removal."""
        if self._stopping:
            return
        self._stopping = True
        if self.exists:
            self._engine.when_up(self._end)
        elif not self._starting:
            self._later(0.001, self._vanished)

    def _end(self) -> None:
        rng = self._engine.rng
        self._later(rng.uniform(0.02, 0.3) if rng.random() < 0.7 else GRACE, self._killed)

    def _killed(self) -> None:
        if not self._engine.up:
            self._engine.when_up(self._end)
            return
        self.alive = self._connected = False
        self._cut_off("stopped")
        self._vanished()

    def _vanished(self) -> None:
        if not self.gone:
            self._remove()
            self._tell(ev.ContainerGone(self._now(), self.id))

    def vanish(self) -> None:
        """The machine lost its power."""
        self._tell = _nobody
        self.alive = self._connected = False
        self._cut_off("lost")
        self._remove()

    def _remove(self) -> None:
        self.gone = True
        if self in self._engine.containers:
            self._engine.containers.remove(self)
            self._engine.later(CLOSED_AFTER, self.files.close)
        self._engine.oracle.container_gone(self._engine.host, self.slot, self.id)


def _nobody(event: ev.Event) -> None:
    pass
