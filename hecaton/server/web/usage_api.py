"""HTTP for what is stored and used: parse, one use case, answer. A table of routes beside that of `api`."""

from __future__ import annotations

from hecaton.server.accounts.permissions import Action
from hecaton.server.jobs.usages import Usages
from hecaton.server.web.http import Call, Route, decode
from hecaton.wire.api import Clear, Cleared, Usage


class UsageApi:
    def __init__(self, usages: Usages) -> None:
        self._usages = usages

    async def show(self, call: Call) -> Usage:
        return await self._usages.show(call.caller)

    async def by_user(self, call: Call) -> list[Usage]:
        return await self._usages.by_user()

    async def clear(self, call: Call) -> Cleared:
        return await self._usages.clear(call.caller, decode(await call.body(), Clear))

    def routes(self) -> list[Route]:
        see, everybody, clear = Action.SEE_USAGE, Action.SEE_ALL_USAGE, Action.CLEAR
        return [
            Route("GET", "/v1/usage", see, self.show, "What I have stored and waiting", None, Usage),
            Route("GET", "/v1/usage/users", everybody, self.by_user, "What everybody has", None, list[Usage]),
            Route("POST", "/v1/usage/clear", clear, self.clear, "Remove what has ended", Clear, Cleared),
        ]
