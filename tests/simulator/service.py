"""The server's process: the real use cases and the real workers' channel over a simulated disk and network.

What `server.app` composes for uvicorn is composed here for the simulator; HTTP is the one part that is left out.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from pathlib import Path as FilePath
from typing import Any

from starlette.websockets import WebSocket

from hecaton.core.errors import HecatonError
from hecaton.core.model import JobState, Role, User, WorkerId
from hecaton.server.attempts import Attempts
from hecaton.server.auth import WORKER_PREFIX, Caller, Passwords, hash_worker_token
from hecaton.server.channel import Channel
from hecaton.server.clock import Clock
from hecaton.server.directory import Directory
from hecaton.server.duties import Duties
from hecaton.server.fleet import Fleet
from hecaton.server.holds import Holds
from hecaton.server.hub import Hub
from hecaton.server.jobs import Jobs
from hecaton.server.registry import check
from hecaton.server.scheduler import Scheduler
from hecaton.server.settings import Settings
from hecaton.store.port import Store
from tests.simulator.disk import Disk, NoBlobs, SimDatabase
from tests.simulator.loop import Process, SimLoop
from tests.simulator.network import Connection
from tests.simulator.oracle import Oracle

WALL = 1_800_000_000.0
"""The wall clock when virtual time begins."""


class SimClock(Clock):
    """The server's clock: the wall clock as it was at the start, carried on by virtual time."""

    def __init__(self, loop: SimLoop, wall: float) -> None:
        self._loop = loop
        self._offset = wall - loop.time()

    def now(self) -> float:
        return self._loop.time() + self._offset


class Service:
    """One incarnation of the server. `ready` once it answers."""

    def __init__(
        self,
        name: str,
        loop: SimLoop,
        disk: Disk,
        settings: Settings,
        passwords: Passwords,
        rng: random.Random,
        commit: float,
        wall: float,
        died: Callable[[str], None],
    ) -> None:
        self.process = Process(name)
        self.ready = False
        self._loop = loop
        self.database = SimDatabase(loop, self.process, disk, rng, commit)
        self.connections: dict[Connection, None] = {}
        blobs = NoBlobs()
        clock = self.clock = SimClock(loop, wall)
        self.directory = Directory(self.database, passwords, clock, check)
        self.fleet = Fleet()
        self.hub = Hub()
        self.scheduler = Scheduler(self.fleet, self.directory.image, clock.now)
        self.holds = Holds(self.database, self.fleet, self.scheduler, clock, settings)
        self.attempts = Attempts(
            self.database, blobs, self.fleet, self.scheduler, self.holds, self.hub, clock, settings, "sim"
        )
        self.jobs = Jobs(
            self.database, blobs, self.directory, self.fleet, self.scheduler, self.attempts, self.hub, clock, settings
        )
        self.channel = Channel(self.attempts, self.fleet, clock, self._find_worker)
        self.duties = Duties(self.database, blobs, self.fleet, self.holds, self.attempts, self.hub, clock, settings)
        self._died = died
        loop.spawn(self.process, self._run())

    async def _run(self) -> None:
        try:
            await self._start()
        except HecatonError as error:
            self._died(f"cannot start: {error.message}")

    async def _start(self) -> None:
        await self.directory.load()
        held, workers = await self.database.read(lambda store: (store.assigned(), store.workers()))
        names = {worker.id: worker.name for worker in workers}
        leases = [
            (worker, names.get(worker, worker), slot, ref, state is JobState.IN_PROGRESS)
            for worker, slot, ref, state in held
        ]
        self.fleet.restore(leases, self.clock.now())
        self.holds.load(workers)
        await self.attempts.refresh()
        self.ready = True
        await self.duties.loop()

    async def _find_worker(self, token: str) -> Any:
        return await self.directory.worker_by_token(hash_worker_token(token))

    def accept(self, connection: Connection) -> None:
        end = connection.server_end
        socket = WebSocket(end.scope, end.receive, end.send)
        task = self._loop.spawn(self.process, self.channel.serve(socket))
        task.add_done_callback(lambda done: self.connections.pop(connection, None))

    def caller(self, user: User) -> Caller:
        return Caller(user.id, user.name, user.role)

    def kill(self, silent: bool = False) -> None:
        """`silent`: the machine lost its power, so that nobody's connection is broken off."""
        self.ready = False
        self._loop.kill(self.process)
        for connection in self.connections:
            connection.server_died(silent)

    async def stop(self) -> None:
        """SIGTERM."""
        self.ready = False
        self.hub.close()
        await self.channel.close()
        await self.database.close()


Request = Callable[[Service], Awaitable[Any]]


def found_server(disk: Disk, oracle: Oracle, users: int, images: int, workers: list[str]) -> list[User]:
    """What an admin has set up before the first job."""

    def write(store: Store) -> list[User]:
        people = [store.create_user(f"user{n}", "-", Role.USER, WALL) for n in range(users)]
        for number in range(images):
            store.add_image(image_name(number), None, "", WALL)
        for name in workers:
            store.add_worker(WorkerId(f"id-{name}"), name, "user0", hash_worker_token(token_of(name)), WALL)
        return people

    return disk.run(write)


def image_name(number: int) -> str:
    return f"image:{number}"


def token_of(worker: str) -> str:
    return f"{WORKER_PREFIX}{worker}"


def settings_of(heartbeat: float, lost_after: float) -> Settings:
    return Settings(
        folder=FilePath("/nowhere"), heartbeat=heartbeat, suspect_after=3 * heartbeat, lost_after=lost_after
    )
