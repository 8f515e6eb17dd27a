"""A thread that runs work in batches, so that a hundred callers share one commit.

    event loop(s)                     the thread
    ─────────────                     ──────────
    run(work) ── queue ─────────────► takes all that waits (up to `limit`)
        │                             runner(batch): one transaction, one fsync
    await future ◄── call_soon_threadsafe, once per batch and loop ── outcomes

While the thread waits for the disk it does not hold the GIL, and the next batch gathers in the queue: under load
batches grow by themselves, and a lone caller never waits for company.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

from hecaton.core.errors import Unavailable
from hecaton.store.port import Store

T = TypeVar("T")

Work = Callable[[Store], Any]
Outcome = tuple[Any, BaseException | None]
"""What a work returned, or what it raised."""

Runner = Callable[[Sequence[Work]], list[Outcome]]
"""Runs a batch and returns its outcomes in order. Must not raise."""

_Waiting = tuple["asyncio.Future[Any]", Work]
_Settled = tuple["asyncio.Future[Any]", Outcome]


class BatchThread:
    """`limit`: works per batch. It bounds how long the first of them waits for the last.

    `run` and `close` are called on event loops, of which there may be several; the runner on this thread alone. Every
    work that was handed in before `close` is answered, in the order of the calls."""

    def __init__(self, name: str, runner: Runner, limit: int) -> None:
        self._runner = runner
        self._limit = limit
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._closed = False
        self._gate = threading.Lock()
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)
        self._thread.start()

    async def run(self, work: Callable[[Store], T]) -> T:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        with self._gate:  # nothing may slip in behind the end marker: it would never be answered
            if self._closed:
                raise Unavailable("the store is closed: the server is shutting down", "Try again when it is back.")
            self._queue.put((future, work))
        return cast(T, await future)

    async def close(self) -> None:
        """Finishes all that was handed in before, then ends the thread."""
        with self._gate:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _loop(self) -> None:
        ended = False
        while not ended:
            first = self._queue.get()
            if first is None:
                return
            batch = [first]
            while len(batch) < self._limit:
                try:
                    item = self._queue.get_nowait()
                except queue.Empty:
                    break
                if item is None:
                    ended = True
                    break
                batch.append(item)
            # hot: benchmarks/instructions.py - a lone caller has a batch of his own
            if len(batch) == 1:
                [outcome] = self._runner((first[1],))
                _tell(first[0].get_loop(), [(first[0], outcome)])
            else:
                outcomes = self._runner([work for _, work in batch])
                _deliver([(future, outcome) for (future, _), outcome in zip(batch, outcomes, strict=True)])


def _deliver(settled: list[_Settled]) -> None:
    by_loop: dict[asyncio.AbstractEventLoop, list[_Settled]] = {}
    for pair in settled:
        by_loop.setdefault(pair[0].get_loop(), []).append(pair)
    for loop, pairs in by_loop.items():
        _tell(loop, pairs)


def _tell(loop: asyncio.AbstractEventLoop, pairs: list[_Settled]) -> None:
    # A loop that was closed meanwhile has nobody left who waits.
    if not loop.is_closed():
        loop.call_soon_threadsafe(_settle, pairs)


def _settle(pairs: list[_Settled]) -> None:
    for future, (value, error) in pairs:
        if future.done():
            continue  # its caller was cancelled; the work is done all the same
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)
