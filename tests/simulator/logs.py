"""What simulated jobs print, and the worker's own way of it (`Exchange`, `ContainerLog`, `Outbox`) to the server."""

from __future__ import annotations

import os
import weakref
from collections.abc import Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from hecaton.core.model import AttemptRef
from hecaton.wire.channel import Assignment
from hecaton.worker.brain import events as ev
from hecaton.worker.doors.door import Door
from hecaton.worker.doors.exchange import Exchange
from hecaton.worker.link.bodies import Say
from hecaton.worker.link.logs import FIRST
from hecaton.worker.memory.outbox import Outbox

if TYPE_CHECKING:
    from tests.simulator.engine import Container
    from tests.simulator.machine import Worker


def line_of(ref: AttemptRef, what: str) -> bytes:
    """Everything that is printed says whose it is."""
    return f"{ref.job} {ref.attempt} {what}\n".encode()


def is_silent(n: int) -> bool:
    """Whether a job prints nothing: the one behind it then prints into the same file."""
    return n % 3 == 0


class NoFiles:
    """Simulated jobs make none."""

    def has(self, ref: AttemptRef) -> bool:
        return False

    async def send(self, ref: AttemptRef, say: Say) -> None:
        raise AssertionError("there are none")

    def forget(self, ref: AttemptRef) -> None:
        """There are none."""


class Files:
    """The log files of one container, in memory, as `serverless.output` makes them and as the worker opens them."""

    def __init__(self) -> None:
        self.log_fd = os.memfd_create(FIRST)
        self.now = FIRST
        self._fds = {FIRST: self.log_fd}
        self._made = 0
        weakref.finalize(self, _close, self._fds)  # a world ends in the middle, with many containers

    def print(self, text: bytes) -> None:
        os.write(self._fds[self.now], text)

    def settle(self) -> tuple[int, str | None]:
        """After a job: where its output ends, and the next file if it printed."""
        end = os.fstat(self._fds[self.now]).st_size
        if end == 0:
            return 0, None
        self._made += 1
        self.now = f"{FIRST}.{self._made}"
        self._fds[self.now] = os.memfd_create(self.now)
        return end, self.now

    def open_log(self, name: str) -> int | None:
        return self._fds.get(name)

    def drop_log(self, fd: int, name: str) -> None:
        os.close(self._fds.pop(name))

    def close(self) -> None:
        _close(self._fds)


def _close(fds: dict[str, int]) -> None:
    for fd in fds.values():
        os.close(fd)
    fds.clear()


class _Door:
    """Of the real door what an exchange asks of it."""

    def __init__(self, container: Container) -> None:
        self._container = container

    def give(self, job: Assignment, payload: bytes, file: str | None) -> None:
        self._container.give(job)

    def give_ahead(self, jobs: Sequence[Assignment]) -> None:
        self._container.give_ahead(tuple(jobs))

    def withdraw(self) -> tuple[AttemptRef, ...]:
        return self._container.withdraw()

    def acknowledge(self, ref: AttemptRef) -> None:
        self._container.acknowledge(ref)


class Logs:
    """Of one process of a worker: the exchange with each container, and the outbox."""

    def __init__(self, worker: Worker) -> None:
        self.outbox = Outbox(cast(Any, worker.link), cast(Any, None), cast(Any, None), NoFiles())
        self.exchanges: dict[str, Exchange] = {}
        self._worker = worker
        journal = SimpleNamespace(give=_nothing, forget=_nothing, placed={})  # no process goes on with a container here
        self._site = SimpleNamespace(
            outbox=self.outbox,
            leftovers=SimpleNamespace(of=lambda container: SimpleNamespace(room=0, take=_nothing)),
            journal=journal,
            guard=SimpleNamespace(release=_nothing),
            post=worker.post,
            now=worker.loop.time,
            finds_no_room=lambda: False,
        )

    def add(self, container: Container) -> None:
        exchange = Exchange(cast(Any, self._site), container.id, cast(Any, container.files), on_card=False, begun=False)
        exchange.door = cast(Door, _Door(container))
        self.exchanges[container.id] = exchange

    def look(self) -> None:
        """As `LiveContainer.look_at_log` and then the outbox."""
        for name, exchange in list(self.exchanges.items()):
            if exchange.talks_in_doubt():
                self._worker.post(ev.Withdrawn(self._worker.loop.time(), name, exchange.withdraw()))
        self.outbox.tick()

    def ends(self, ref: AttemptRef) -> None:
        log = self.outbox.log_of(ref)
        if log is not None and log.end is None:
            log.finish()

    def forget(self, ref: AttemptRef) -> None:
        self.outbox.forget(ref)
        for exchange in self.exchanges.values():
            exchange.log.forget(ref)


def _nothing(*arguments: object) -> None:
    pass
