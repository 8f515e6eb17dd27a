"""An event loop with virtual time: it jumps to the next timer when nothing is left to do. No threads, no sockets.

Everything that is scheduled belongs to the process that scheduled it. A killed process never runs again; what a paused
one would have done happens, in order, when it goes on.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Process:
    """Like one of the operating system: it can be killed (-9) and stopped (SIGSTOP)."""

    __slots__ = ("alive", "backlog", "name", "paused")

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.paused = False
        self.backlog: list[Turn] = []


class Turn(asyncio.TimerHandle):
    """One call, now or later. asyncio sees the handle that it may cancel."""

    __slots__ = ("arguments", "at", "call", "dropped", "process", "within")

    def __init__(
        self,
        at: float,
        call: Callable[..., object],
        arguments: tuple[Any, ...],
        process: Process,
        within: contextvars.Context | None,
    ) -> None:
        self.at = at
        self.call = call
        self.arguments = arguments
        self.process = process
        self.within = within
        self.dropped = False

    def cancel(self) -> None:
        self.dropped = True

    def cancelled(self) -> bool:
        return self.dropped

    def when(self) -> float:
        return self.at


class SimTask(asyncio.Task[T]):
    """A task that knows its process."""

    process: Process


class SimLoop(asyncio.AbstractEventLoop):
    """`failed` is told of exceptions that no code will ever look at."""

    def __init__(self, failed: Callable[[str], None]) -> None:
        self.process = Process("world")
        self.turns = 0
        self._failed = failed
        self._now = 0.0
        self._ready: deque[Turn] = deque()
        self._timers: list[tuple[float, int, Turn]] = []
        self._sequence = 0
        self._buried: list[SimTask[Any]] = []  # unfinished tasks of killed processes: collected, they would run
        self._skipped: list[Turn] = []  # steps of tasks of killed processes: for the cleaning up at the end
        self._over = False

    # -- what asyncio asks for -------------------------------------------------------------------------

    def time(self) -> float:
        return self._now

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> Turn:
        turn = Turn(self._now, callback, args, self.process, context)
        self._ready.append(turn)
        return turn

    def call_later(
        self, delay: float, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> Turn:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> Turn:
        turn = Turn(when, callback, args, self.process, context)
        self._sequence += 1
        heapq.heappush(self._timers, (when, self._sequence, turn))
        return turn

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(
        self,
        coro: Coroutine[Any, Any, T] | Generator[Any, None, T],
        *,
        name: str | None = None,
        context: contextvars.Context | None = None,
    ) -> SimTask[T]:
        task: SimTask[T] = SimTask(coro, loop=self, name=name, context=context)
        task.process = self.process
        return task

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self._over:
            self._failed(f"{context.get('message')}: {context.get('exception')!r}")

    # -- processes -------------------------------------------------------------------------------------

    def post(self, process: Process, delay: float, call: Callable[..., object], *args: Any) -> Turn:
        """Call this in that process, later: the only way from one process into another."""
        before, self.process = self.process, process
        try:
            return self.call_at(self._now + delay, call, *args)
        finally:
            self.process = before

    def spawn(self, process: Process, coroutine: Coroutine[Any, Any, T]) -> SimTask[T]:
        before, self.process = self.process, process
        try:
            return self.create_task(coroutine)
        finally:
            self.process = before

    def kill(self, process: Process) -> None:
        process.alive = False
        for task in asyncio.all_tasks(self):
            if isinstance(task, SimTask) and task.process is process:
                self._buried.append(task)
        self._ready.extend(process.backlog)  # skipped, but for the cleaning up at the end
        process.backlog.clear()

    def pause(self, process: Process) -> None:
        process.paused = True

    def resume(self, process: Process) -> None:
        process.paused = False
        if process.alive:
            self._ready.extend(process.backlog)
        process.backlog.clear()

    # -- running ---------------------------------------------------------------------------------------

    def run(self, until: float, stop: Callable[[], bool]) -> None:
        """Until that time, until `stop` says so after a turn, or until nothing is left to happen."""
        asyncio._set_running_loop(self)
        try:
            while not stop():
                turn = self._next(until)
                if turn is None:
                    return
                self._run(turn)
        finally:
            asyncio._set_running_loop(None)

    def _next(self, until: float) -> Turn | None:
        if self._ready:
            return self._ready.popleft()
        while self._timers:
            when, _, turn = self._timers[0]
            if turn.dropped:
                heapq.heappop(self._timers)
                continue
            if when > until:
                break
            heapq.heappop(self._timers)
            self._now = max(self._now, when)
            return turn
        self._now = max(self._now, until)
        return None

    def _run(self, turn: Turn) -> None:
        process = turn.process
        if turn.dropped:
            return
        if not process.alive and not self._over:
            if turn.within is not None:
                self._skipped.append(turn)
            return
        if process.paused and not self._over:
            process.backlog.append(turn)
            return
        self.process = process
        self.turns += 1
        if turn.within is None:
            turn.call(*turn.arguments)
        else:
            turn.within.run(turn.call, *turn.arguments)

    def end(self) -> None:
        """Let every task that is left run through its cancellation, those of killed processes too."""
        self._over = True
        self._timers.clear()
        self._ready.extend(self._skipped)
        asyncio._set_running_loop(self)
        try:
            for _ in range(100):
                tasks = asyncio.all_tasks(self)
                if not tasks:
                    break
                for task in tasks:
                    task.cancel()
                self._drain()
        finally:
            asyncio._set_running_loop(None)
        self._ready.clear()
        self._timers.clear()

    def _drain(self) -> None:
        deadline = self._now + 10.0
        while (turn := self._next(deadline)) is not None:
            self._run(turn)
