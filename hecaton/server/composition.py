"""What the server is, but for HTTP and files: memory and use cases over a store, put together in one place.

`app` gives it to people and workers; the tests' simulator runs the same over a simulated disk, clock and network.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets

import structlog

from hecaton.core.errors import HecatonError, Unauthenticated
from hecaton.core.lifecycle import RETRY_DELAY
from hecaton.core.model import JobState, WorkerRecord
from hecaton.server.accounts.audit import Audit, Deed
from hecaton.server.accounts.auth import WORKER_PREFIX, Passwords, hash_token
from hecaton.server.accounts.directory import Directory
from hecaton.server.accounts.entries import Entries
from hecaton.server.accounts.homes import Homes
from hecaton.server.accounts.logins import Logins
from hecaton.server.accounts.permissions import Action
from hecaton.server.accounts.registry import check
from hecaton.server.accounts.resolver import Resolver
from hecaton.server.duties import Duties
from hecaton.server.fleet.attempts import Attempts
from hecaton.server.fleet.channel import Channel
from hecaton.server.fleet.dispatcher import Dispatcher
from hecaton.server.fleet.images.news import ImageNews
from hecaton.server.fleet.images.pulls import NOWHERE, Pulls
from hecaton.server.fleet.images.versions import Versions
from hecaton.server.fleet.members import Fleet
from hecaton.server.fleet.quarantine import Quarantine
from hecaton.server.fleet.scheduler import Scheduler
from hecaton.server.fleet.workers import Workers
from hecaton.server.hub import Hub
from hecaton.server.jobs.batches import Batches
from hecaton.server.jobs.budget import Budget
from hecaton.server.jobs.jobs import Jobs
from hecaton.server.jobs.quotas import Quotas
from hecaton.server.jobs.sweeper import BatchSweeper
from hecaton.server.jobs.usages import Usages
from hecaton.server.resources import Resources
from hecaton.server.tasks import Tasks
from hecaton.store.port import Database, Store

_log = structlog.get_logger("hecaton.composition")


class Composition:
    """`start` comes before everything else. On the loop, but for what `database` is given to do.

    Each part gets what it needs when it is made and nothing later, so they are made in the order of their needs, and
    none knows who uses it. What may not be lost is in the store: the parts can be thrown away at any moment, and a new
    composition over the same store goes on (the simulator does that to it)."""

    def __init__(self, resources: Resources, passwords: Passwords) -> None:
        self.resources = resources
        database, clock = resources.database, resources.clock
        self.fleet = Fleet()
        versions = Versions(self.fleet, clock.now)
        self.hub = Hub()
        self.audit = Audit(clock.now)
        resolver = Resolver(check, versions, clock.now)
        self._homes = Homes(database, clock)
        self.logins = Logins(passwords, clock, self._homes)
        self._tasks = Tasks()
        self._pulls = pulls = Pulls(clock.now, resources.settings.pull_patience, self._keep_pulls)
        entries = Entries(resources.settings)
        self.directory = Directory(database, passwords, clock, resolver, entries, self.hub.revoke, pulls.gone)
        most = resources.settings.max_running
        self.scheduler = Scheduler(self.fleet, entries.as_used, clock.now, pulls, most)
        self.dispatcher = Dispatcher(database, clock, self.scheduler)
        self.budget = Budget(resources, self.scheduler, self.dispatcher.kick)
        quotas = Quotas(resources.settings, self.scheduler, self.budget)
        self.usages = Usages(resources, self.directory, self.scheduler, self.budget)
        self.quarantine = Quarantine(resources, self.fleet, self.scheduler)
        self.attempts = Attempts(resources, self.fleet, self.scheduler, self.dispatcher, self.quarantine, self.hub)
        self.workers = Workers(resources, self.fleet, self.dispatcher, self.attempts, self.quarantine, self.hub)
        self.jobs = Jobs(resources, self.directory, self.fleet, self.scheduler, quotas, self.attempts, self.hub)
        self.batches = Batches(resources, self.directory, self.scheduler, quotas, self.hub)
        images = ImageNews(versions, pulls, self.directory.pin_image, self.dispatcher.kick, entries.has)
        self.channel = Channel(self.workers, self.attempts, self.quarantine, self.fleet, self.enter_worker, images)
        self.duties = Duties(
            resources, self.fleet, self.quarantine, self.workers, self.dispatcher, self.hub, self.budget
        )
        self._sweeper = BatchSweeper(
            resources, self.scheduler, self.fleet, self.hub, self.dispatcher.kick, quotas.resumed
        )

    async def start(self, last_known: float | None = None) -> None:
        """Read what the store knows: leases of workers that may come back, and what waits. `last_known`: if this store
        was put in place of another one, when it was last known to be in its place itself."""
        await self._adopt_copy(last_known)
        await self.directory.load()
        await self._homes.load()
        held, workers = await self.resources.database.read(lambda store: (store.assigned(), store.workers()))
        names = {worker.id: worker.name for worker in workers}
        leases = [
            (worker, names.get(worker, worker), slot, ref, state is JobState.IN_PROGRESS)
            for worker, slot, ref, state in held
        ]
        now = self.resources.clock.now()
        self.fleet.load(leases, now)
        self.fleet.enrolled(worker.id for worker in workers)
        self.quarantine.load(workers)
        await self.resources.database.write(lambda store: store.cap_waits(now, RETRY_DELAY[-1]))
        self._pulls.load(await self.resources.database.read(lambda store: store.meta(NOWHERE)))
        await self.budget.look()
        await self.dispatcher.read_waiting()

    def _keep_pulls(self, text: str) -> None:
        async def keep() -> None:
            with contextlib.suppress(HecatonError):  # the next one says it anew
                await self.resources.database.write(lambda store: store.set_meta(NOWHERE, text))

        self._tasks.start(keep())

    async def _adopt_copy(self, last_known: float | None) -> None:
        now = self.resources.clock.now()
        age = await self.resources.database.write(lambda store: store.adopt_copy(now, last_known))
        if age is not None:
            _log.warning(
                "This is a backup, or another old copy: what was unfinished in it runs again, and all log in again",
                hours_old=round(age / 3600, 1),
            )

    async def run(self) -> None:
        """What the server does by itself, until cancelled."""
        await asyncio.gather(self.duties.loop(), self._sweeper.loop())

    async def enter_worker(self, token: str, address: str) -> WorkerRecord | None:
        """Whose token this is, who wants to be given jobs; None: he is refused."""
        worker = await self.find_worker(token) if token.startswith(WORKER_PREFIX) else None
        if worker is None:
            refused = Unauthenticated("the worker's token does not hold")
            self.audit.failed(Deed(Action.WORK, address), refused)
        return worker

    async def find_worker(self, token: str) -> WorkerRecord | None:
        return await self.directory.worker_by_token(hash_token(token))


async def identify(database: Database) -> str:
    """The id of this server, made when its store is used for the first time."""

    def get(store: Store) -> str:
        known = store.meta("server_id")
        if known is None:
            known = secrets.token_hex(8)
            store.set_meta("server_id", known)
        return known

    return await database.write(get)
