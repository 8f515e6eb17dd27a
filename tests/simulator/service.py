"""The server's process: the real composition over a simulated disk and network. HTTP is the one part left out."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from pathlib import Path as FilePath
from typing import Any

from hecaton.core.errors import HecatonError
from hecaton.core.model import Role, User, WorkerId
from hecaton.server.accounts.auth import WORKER_PREFIX, Caller, Passwords, hash_token
from hecaton.server.clock import Clock
from hecaton.server.composition import Composition, identify
from hecaton.server.resources import Resources
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
        self.connections: dict[Connection, None] = {}
        self.parts: Composition
        self._loop, self._died = loop, died
        database = SimDatabase(loop, self.process, disk, rng, commit)
        loop.spawn(self.process, self._run(database, passwords, SimClock(loop, wall), settings))

    async def _run(self, database: SimDatabase, passwords: Passwords, clock: Clock, settings: Settings) -> None:
        try:
            server_id = await identify(database)
            self.parts = Composition(Resources(database, NoBlobs(), clock, settings, server_id), passwords)
            await self.parts.start()
        except HecatonError as error:
            self._died(f"cannot start: {error.message}")
            return
        self.ready = True
        await self.parts.run()

    def accept(self, connection: Connection) -> None:
        end = connection.server_end
        task = self._loop.spawn(self.process, self.parts.channel.serve(end.scope, end.receive, end.send))
        task.add_done_callback(lambda done: self.connections.pop(connection, None))

    def caller(self, user: User) -> Caller:
        return Caller(user.id, user.name, user.role, user.token_version)

    def kill(self, silent: bool = False) -> None:
        """`silent`: the machine lost its power, so that nobody's connection is broken off."""
        self.ready = False
        self._loop.kill(self.process)
        for connection in self.connections:
            connection.server_died(silent)

    async def stop(self) -> None:
        """SIGTERM."""
        if self.ready:
            self.ready = False
            self.parts.hub.close()
            await self.parts.channel.close()
            await self.parts.resources.database.close()


Request = Callable[[Service], Awaitable[Any]]


def found_server(disk: Disk, oracle: Oracle, users: int, images: int, workers: list[str]) -> list[User]:
    """What an admin has set up before the first job."""

    def write(store: Store) -> list[User]:
        people = [store.create_user(f"user{n}", "-", Role.USER, WALL) for n in range(users)]
        for number in range(images):
            store.add_image(image_name(number), None, "", WALL)
        for name in workers:
            store.add_worker(WorkerId(f"id-{name}"), name, "user0", hash_token(token_of(name)), WALL)
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
