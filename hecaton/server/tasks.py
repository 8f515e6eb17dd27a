"""Work that is started and that nobody awaits. Used by `fleet` and `jobs`."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


class Tasks:
    """Keeps what it started until that is over: the event loop itself does not. On the server's loop only."""

    # hot: benchmarks/throughput.py

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """`work` minds its own errors: what it raises is only logged, by the loop, when the task is collected."""
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    def cancel(self) -> None:
        for task in self._running:
            task.cancel()

    async def wait(self, seconds: float) -> None:
        """Until all are over, or that long."""
        if self._running:
            await asyncio.wait(self._running, timeout=seconds)
