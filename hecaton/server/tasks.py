"""Work that is started and that nobody awaits. Used by `fleet` and `jobs`."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

SPARE = 4
"""Tasks that wait for the next work they are handed. Beyond that each ends with its own."""


class Tasks:
    """Keeps what it started until that is over: the event loop itself does not. On the server's loop only."""

    # hot: benchmarks/throughput.py

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()
        self._free: list[asyncio.Future[Coroutine[Any, Any, None]]] = []  # each one's task waits for the next work
        self._ending = False  # a task that is free now would keep `wait` waiting

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """`work` minds its own errors: what it raises is only logged, by the loop, when the task is collected."""
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    def hand(self, work: Coroutine[Any, Any, None]) -> None:
        """As `start`, for what comes with every job: a task that has done the like goes on with it. To make one, and to
        have it forgotten everywhere, costs as much again as to run it."""
        if self._free:
            self._free.pop().set_result(work)
        else:
            self.start(self._one_after_another(work))

    async def _one_after_another(self, work: Coroutine[Any, Any, None]) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                await work
            except Exception as error:
                loop.call_exception_handler({"message": "work that nobody awaits has failed", "exception": error})
            if self._ending or len(self._free) >= SPARE:
                return
            turn: asyncio.Future[Coroutine[Any, Any, None]] = loop.create_future()
            self._free.append(turn)
            try:
                work = await turn
            except asyncio.CancelledError:
                if turn in self._free:
                    self._free.remove(turn)
                raise

    def cancel(self) -> None:
        for task in self._running:
            task.cancel()

    async def wait(self, seconds: float) -> None:
        """Until all are over, or that long. No task waits for the next work from now on."""
        self._ending = True
        for turn in self._free:
            turn.cancel()
        self._free.clear()
        if self._running:
            await asyncio.wait(self._running, timeout=seconds)
