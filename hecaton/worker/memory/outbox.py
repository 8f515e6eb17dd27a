"""Results, logs and progress on their way to the server.

A small result whose log is nearly sent leaves in the same turn of the event loop. A large body or log goes in a task
of its own, so that nothing else waits for it; the result follows what belongs to it.
"""

from __future__ import annotations

import asyncio
import json
from functools import partial
from typing import Any, Protocol

import msgspec
import structlog

from hecaton.core.errors import TooLarge
from hecaton.core.model import AttemptRef, Failure, Reason
from hecaton.serverless.protocol import MAX_PROGRESS
from hecaton.wire.channel import Note, Outcome, Progress, Results
from hecaton.worker.link.bodies import Bodies, BodyRefused, Say
from hecaton.worker.link.link import Sender
from hecaton.worker.link.logs import AttemptLog
from hecaton.worker.memory.spool import Spool

AT_ONCE = 256 * 1024
"""Bytes of log that go out together with a result, without a task of their own."""

PER_TICK = 1024 * 1024
"""Bytes of log that a running job may send with each tick (four times a second)."""

_log = structlog.get_logger("hecaton.worker.memory.outbox")


class WithFiles(Protocol):
    """What attempts have made, which leaves before their results."""

    def has(self, ref: AttemptRef) -> bool: ...
    async def send(self, ref: AttemptRef, say: Say) -> None:
        """As much of it as can be sent; raises for nothing."""

    def forget(self, ref: AttemptRef) -> None: ...


class Outbox:
    """The result of an attempt leaves behind its log and its last progress. Logs are kept until `forget`: what was on
    its way when a connection broke goes again on the next one."""

    def __init__(self, link: Sender, bodies: Bodies, spool: Spool, files: WithFiles) -> None:
        self._link = link
        self._bodies = bodies
        self._spool = spool
        self._files = files
        self._logs: dict[AttemptRef, AttemptLog] = {}
        self._progress: dict[AttemptRef, Any] = {}
        self._stored: set[AttemptRef] = set()
        self._tasks: dict[AttemptRef, asyncio.Task[None]] = {}
        self._ending: set[asyncio.Task[None]] = set()

    def track(self, log: AttemptLog) -> None:
        self._logs[log.ref] = log

    def log_of(self, ref: AttemptRef) -> AttemptLog | None:
        return self._logs.get(ref)

    def progress(self, ref: AttemptRef, value: Any) -> None:
        """The newest one counts; it leaves with the next tick or with the result."""
        self._progress[ref] = value

    def note(self, ref: AttemptRef, text: str) -> None:
        """What the worker does for a job, for who looks at it."""
        self._link.send(Note(ref, text))

    def tick(self) -> None:
        """Send what running jobs have said since the last time."""
        for ref, log in self._logs.items():
            if log.end is None:
                log.trim()
                if self._link.connected and not self._link.congested:
                    self._send_progress(ref)
                    self._send_log(log, PER_TICK)

    def deliver(self, outcome: Outcome) -> None:
        """Send it, if there is a connection; the brain orders it again after the next Welcome."""
        if not self._link.connected or outcome.ref in self._tasks:
            return
        log = self._logs.get(outcome.ref)
        self._send_progress(outcome.ref)
        has_file = outcome.body is not None and outcome.body.blob is not None and outcome.ref not in self._stored
        if has_file or self._files.has(outcome.ref) or (log is not None and log.unsent > AT_ONCE):
            task = asyncio.get_running_loop().create_task(self._deliver_large(outcome, log))
            self._tasks[outcome.ref] = task
            task.add_done_callback(lambda done: self._ended(outcome.ref, done))
        else:
            if log is not None:
                self._send_log(log, AT_ONCE)
            self._send_result(outcome, log)

    def lost(self) -> None:
        """The connection broke: what was on its way goes again on the next."""
        for task in self._tasks.values():
            task.cancel()
            self._ending.add(task)
        self._tasks.clear()
        for log in self._logs.values():
            log.rewind()

    def forget(self, ref: AttemptRef) -> None:
        self._logs.pop(ref, None)
        self._progress.pop(ref, None)
        self._files.forget(ref)
        self._stored.discard(ref)
        task = self._tasks.get(ref)
        if task is not None:
            task.cancel()

    async def close(self) -> None:
        self.lost()
        await asyncio.gather(*self._ending, return_exceptions=True)

    async def _deliver_large(self, outcome: Outcome, log: AttemptLog | None) -> None:
        while log is not None and log.unsent > 0 and self._link.connected:
            if self._link.congested:
                await asyncio.sleep(0.05)
            else:
                self._send_log(log, AT_ONCE)
                await asyncio.sleep(0)
        if self._files.has(outcome.ref):
            await self._files.send(outcome.ref, partial(self.note, outcome.ref))
        body = outcome.body
        if body is not None and body.blob is not None:
            try:
                file = self._spool.result(outcome.ref)
                await self._bodies.store(outcome.ref.job, body.blob, file, say=partial(self.note, outcome.ref))
                self._stored.add(outcome.ref)
            except BodyRefused as refused:
                large = isinstance(refused.error, TooLarge)
                reason = Reason.RESULT_TOO_LARGE if large else Reason.WORKER_ERROR
                outcome = _without_body(outcome, reason, refused.error.message)
            except OSError as error:
                outcome = _without_body(outcome, Reason.WORKER_ERROR, f"the worker lost the result: {error}")
        self._send_result(outcome, log)

    def _ended(self, ref: AttemptRef, task: asyncio.Task[None]) -> None:
        self._ending.discard(task)
        if self._tasks.get(ref) is task:
            del self._tasks[ref]
        if not task.cancelled() and task.exception() is not None:
            _log.error("A result could not be sent", job=ref.job, error=str(task.exception()))

    def _send_result(self, outcome: Outcome, log: AttemptLog | None) -> None:
        if log is not None:
            outcome = msgspec.structs.replace(outcome, log_size=log.size)
        self._link.send(Results((outcome,)))

    def _send_log(self, log: AttemptLog, limit: int) -> None:
        for piece in log.pieces(limit):
            self._link.send(piece)

    def _send_progress(self, ref: AttemptRef) -> None:
        if ref not in self._progress:
            return
        value = shown(self._progress.pop(ref))
        self._link.send(Progress(ref, msgspec.Raw(msgspec.msgpack.encode(value))))


def shown(value: Any) -> Any:
    """What a message can carry and the server shows of a value that a container reported."""
    try:
        size = len(msgspec.json.encode(value))
        msgspec.msgpack.encode(value)
    except (ValueError, TypeError, OverflowError, RecursionError):  # JSON can spell longer integers than that
        try:
            value = json.dumps(value)
        except RecursionError:
            return "(a value that is nested too deep to be shown)"
        size = len(value)
    return value if size <= MAX_PROGRESS else f"(a value of {size} bytes: up to {MAX_PROGRESS} are shown)"


def _without_body(outcome: Outcome, reason: Reason, message: str) -> Outcome:
    return msgspec.structs.replace(outcome, reason=reason, body=None, failure=Failure(message))
