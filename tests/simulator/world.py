"""One world from one seed: put together, run to the end of its faults, healed, run until all is quiet, judged."""

from __future__ import annotations

import contextlib
import gc
import logging
import random
import sys
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any

import msgspec
import structlog

from hecaton.server.accounts.auth import Passwords
from tests.simulator import service as server
from tests.simulator.clients import People
from tests.simulator.disk import Disk, DiskFull
from tests.simulator.faults import Faults
from tests.simulator.judge import judge
from tests.simulator.loop import Process, SimLoop
from tests.simulator.machine import Machine
from tests.simulator.network import Connection, Item, Path
from tests.simulator.oracle import Broken, Oracle
from tests.simulator.plan import Plan, make_plan
from tests.simulator.service import Service

PATIENCE = 2 * 3600.0
"""Virtual seconds after the last fault within which every job has to end, beside the time that all of them run."""

SETTLE = 90.0
"""Virtual seconds after the last job's end within which everything has to be quiet."""


class Report(msgspec.Struct, frozen=True):
    seed: int
    profile: str
    digest: str
    turns: int
    worker_seconds: float
    jobs: int
    executions: int
    faults: int


class World:
    def __init__(self, plan: Plan, passwords: Passwords, keep_trace: bool = False) -> None:
        self.plan = plan
        self.process = Process("fate")
        self.loop = SimLoop(  # type: ignore[abstract]  # sockets, signals and subprocesses do not exist in here
            lambda what: self.oracle.fail(f"an exception that nobody looks at: {what}")
        )
        self.oracle = Oracle(self.loop.time, keep_trace)
        self.disk = Disk(self.oracle)
        self.service: Service | None = None
        self.wall_offset = 0.0
        self._passwords = passwords
        self._starts = 0
        self._settings = server.settings_of(plan.heartbeat, plan.lost_after)
        names = [f"w{number}" for number in range(plan.workers)]
        users = server.found_server(self.disk, self.oracle, plan.users, plan.images, names)
        self.machines = [self._machine(name, slots) for name, slots in zip(names, plan.slots, strict=True)]
        self.people = People(
            self.loop, self.oracle, self._rng("people"), users, plan.latency, lambda: self._listening()
        )  # fmt: skip
        self._faults = Faults(self, self._rng("faults"))

    def _rng(self, name: str) -> random.Random:
        return random.Random(f"{self.plan.seed}/{name}")

    def _machine(self, name: str, slots: int) -> Machine:
        path = Path(self.loop, self._rng(f"path {name}"), self.plan.latency)
        return Machine(name, slots, self.loop, self.oracle, self._rng(name), path, self._connect, self.wall)

    def wall(self) -> float:
        return server.WALL + self.loop.time() + self.wall_offset

    # -- the server ------------------------------------------------------------------------------------

    def start_server(self) -> None:
        if self.service is not None:
            return
        self._starts += 1
        name = f"server.{self._starts}"
        rng = self._rng(name)
        self.service = Service(
            name, self.loop, self.disk, self._settings, self._passwords, rng, self.plan.commit, self.wall(),
            self._server_died,
        )  # fmt: skip

    def _server_died(self, why: str) -> None:
        self.oracle.say("server", why)
        self.kill_server()
        self.loop.post(self.process, 5.0, self.start_server)

    def kill_server(self, silent: bool = False) -> None:
        service, self.service = self.service, None
        if service is not None:
            service.kill(silent)

    def stop_server(self) -> None:
        service = self.service
        if service is None:
            return

        async def stop() -> None:
            await service.stop()
            if self.service is service:
                self.service = None
            service.kill()

        self.loop.spawn(service.process, stop())

    def _listening(self) -> Service | None:
        return self.service if self.service is not None and self.service.ready else None

    def _connect(self, path: Path, process: Process, name: str, heard: Callable[[Item], None]) -> Connection | None:
        service = self._listening()
        if service is None or path.refuses:
            return None
        connection = Connection(path, process, service.process, server.token_of(name), heard, service.accept)
        service.connections[connection] = None
        return connection

    # -- time ------------------------------------------------------------------------------------------

    def run(self) -> Report:
        plan, loop = self.plan, self.loop
        self.start_server()
        for number, machine in enumerate(self.machines):
            loop.post(self.process, 0.1 + number * 0.01, machine.start)
        self.people.plan(plan.jobs)
        self._faults.begin()
        self._advance(plan.duration, lambda: False)
        self._heal()
        patience = PATIENCE + 4 * sum(max(job.runs, job.timeout or 0.0) for job in plan.jobs)
        self._advance(plan.duration + patience, lambda: self.people.unfinished == 0 and self.oracle.open == 0)
        if self.people.unfinished or self.oracle.open:
            self.oracle.fail(f"{self.people.unfinished} people still wait, {self.oracle.open} jobs have not ended")
        self._advance(loop.time() + SETTLE, lambda: False)
        judge(self)
        self._check()
        report = self._report()
        self.end()
        return report

    def _advance(self, until: float, done: Callable[[], bool]) -> None:
        oracle, loop = self.oracle, self.loop

        def stop() -> bool:
            return oracle.broken is not None or done()

        loop.run(until, stop)
        self._check()

    def _check(self) -> None:
        if self.oracle.broken is not None:
            self.end()
            raise Broken(self.oracle.broken)

    def _heal(self) -> None:
        """Nothing is broken from here on."""
        self.oracle.say("FATE", "all faults are over")
        self.disk.full, self.disk.slow = False, 1.0
        self.people.lossy = 0.0
        if self.service is not None:
            self.loop.resume(self.service.process)
        self.start_server()
        for machine in self.machines:
            machine.heal()

    def end(self) -> None:
        self.oracle.over = True
        self.service = None
        self.loop.end()

    def _report(self) -> Report:
        oracle = self.oracle
        return Report(
            self.plan.seed,
            self.plan.profile,
            oracle.digest(),
            self.loop.turns,
            self.loop.time() * self.plan.workers,
            len(oracle.states),
            len(oracle.executions),
            len(oracle.faults),
        )


def run(seed: int, passwords: Passwords) -> Report:
    """Raises Broken, with the tail of the trace, if a rule does not hold."""
    world = World(make_plan(seed), passwords)
    try:
        with _errors_only(world):
            return world.run()
    except Broken as broken:
        tail = "\n".join(world.oracle.tail)
        message = f"{tail}\n\nseed {seed}: {broken}\nReplay: python -m tests.simulator --seed {seed}"
        raise Broken(message) from None
    except Exception:
        world.end()  # what it has left running would be found, and counted, in whatever runs next
        raise
    finally:
        gc.collect()


@contextlib.contextmanager
def _errors_only(world: World) -> Iterator[None]:
    """The server's log is silent here, but for errors: those are findings."""

    def found(logger: object, method: str, event: MutableMapping[str, Any]) -> str:
        if method in ("error", "exception", "critical") and not isinstance(sys.exception(), DiskFull):
            world.oracle.fail(f"the log has an error: {event}")
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(processors=[found], wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    try:
        yield
    finally:
        structlog.configure(**before)
