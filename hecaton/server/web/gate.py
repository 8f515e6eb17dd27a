"""Who is let in to which endpoint."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from hecaton.core.errors import Forbidden, Unauthenticated
from hecaton.core.model import WorkerRecord
from hecaton.server.accounts.auth import Caller
from hecaton.server.accounts.permissions import OPEN_TO_ALL, REGISTERED_WORKER, Action, refusal, scope
from hecaton.server.connections import Standing, seat_of
from hecaton.server.web.http import Call


class Gate:
    """Turns an Authorization header into a caller or worker, or refuses. The call knows whom, where that is known."""

    def __init__(
        self,
        read_user: Callable[[str], Caller],
        read_worker: Callable[[str], Awaitable[WorkerRecord | None]],
        worker_prefix: str,
    ) -> None:
        self._read_user, self._read_worker, self._prefix = read_user, read_worker, worker_prefix

    async def admit(self, call: Call, action: Action) -> None:
        if action in OPEN_TO_ALL:
            return
        token = _bearer(call)
        if token.startswith(self._prefix):
            worker = await self._read_worker(token)
            if worker is None:
                raise Unauthenticated("the worker's token does not hold: was the worker removed?")
            call.admit(None, worker)
            if action not in REGISTERED_WORKER:
                raise Forbidden("a worker's token does not open this")
            seat_of(call.scope).rise(Standing.KEPT, worker.id)
            return
        caller = self._read_user(token)
        call.admit(caller, None)
        if scope(caller.role, action) is None:
            raise Forbidden(refusal(caller.name, caller.role, action))
        seat = seat_of(call.scope)
        if seat.standing is Standing.STRANGER:
            seat.rise(Standing.KEPT if caller.may(Action.MANAGE_WORKERS) else Standing.KNOWN, caller.user_id)


def _bearer(call: Call) -> str:
    said = call.header(b"authorization") or ""
    if said.startswith("Bearer "):  # as nearly everybody writes it
        return said[7:].strip()
    scheme, _, token = said.partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise Unauthenticated("this needs a token", "Log in: hecaton server login NAME")
    return token.strip()
