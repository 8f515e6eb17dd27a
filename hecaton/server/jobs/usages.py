"""Use cases around what is stored and used, for people: who has how much, and making room. No HTTP, no SQL."""

from __future__ import annotations

import asyncio

from hecaton.core.errors import NotFound
from hecaton.core.model import User
from hecaton.server.accounts.auth import Caller
from hecaton.server.accounts.directory import Directory
from hecaton.server.accounts.permissions import Action
from hecaton.server.fleet.scheduler import Scheduler
from hecaton.server.jobs.budget import Budget
from hecaton.server.jobs.quotas import MAX_WAITING_LANES
from hecaton.server.resources import Resources
from hecaton.wire.api import Clear, Cleared, Usage

STEP = 200
"""Jobs looked at in one transaction."""

PAUSE = 0.01
"""Seconds between two of them, for everybody else."""


class Usages:
    """On the server's event loop; keeps nothing of its own between two calls."""

    def __init__(self, resources: Resources, directory: Directory, scheduler: Scheduler, budget: Budget) -> None:
        self._database, self._clock, self._settings = resources.database, resources.clock, resources.settings
        self._directory, self._scheduler, self._budget = directory, scheduler, budget

    async def show(self, caller: Caller) -> Usage:
        await self._budget.look()
        return self._usage(caller.user_id, caller.name)

    async def by_user(self) -> list[Usage]:
        """Who has the most stored comes first."""
        await self._budget.look()
        every = [self._usage(user.id, user.name) for user in self._directory.everybody()]
        return sorted(every, key=lambda usage: (-usage.total, usage.username))

    def _usage(self, owner: int, name: str) -> Usage:
        stored = self._budget.stored(owner)
        return Usage(
            username=name,
            payloads=stored.payloads,
            results=stored.results,
            logs=stored.logs,
            files=stored.files,
            total=stored.total,
            max_bytes=self._budget.limit,
            waiting=self._scheduler.queued(owner),
            max_waiting=self._settings.max_queued,
            kinds=self._scheduler.waiting_lanes(owner),
            max_kinds=MAX_WAITING_LANES,
            running=self._scheduler.running(owner),
            max_running=self._settings.max_running,
        )

    async def clear(self, caller: Caller, request: Clear) -> Cleared:
        """Remove what has ended so long ago, with payloads, results and logs. Uploads go as soon as no job names them,
        with the next cleaning."""
        user = self._whose(caller, request.username)
        before, after, removed = self._clock.now() - request.older_than, 0, 0
        while True:
            step = await self._database.write(
                lambda store, after=after: store.forget_ended(user.id, before, after, STEP)  # type: ignore[misc]
            )
            removed += step.count
            if step.next is None:
                break
            after = step.next
            await asyncio.sleep(PAUSE)
        await self._budget.look()
        return Cleared(removed, self._usage(user.id, user.name))

    def _whose(self, caller: Caller, name: str | None) -> User:
        """The same answer for somebody else as for one who does not exist."""
        user = self._directory.user(caller.user_id) if name is None else self._directory.user_by_name(name)
        if user is None or not caller.may(Action.CLEAR, user.id):
            raise NotFound(f"there is no user {name!r}, or what is theirs is not yours to remove")
        return user
