"""Who came in, who was refused, and what was changed for others: one line each in the server's log.

Never what was sent: no password, no token, no payload. Nor a name with which somebody tries to log in and that nobody
has: people type passwords into the wrong field.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import structlog

from hecaton.core.errors import Forbidden, HecatonError, Unauthenticated
from hecaton.core.model import Role
from hecaton.server.accounts.permissions import Action, Scope, scope

MAX_REFUSALS = 1000
"""Lines about refusals in a row, and as many about logins that were refused: strangers must not fill the disk."""

REFUSALS_PER_SECOND = 10
"""That are written however many there have been."""

MAX_OBJECT = 200
"""Characters of the name of what was changed."""

NOBODY = "unknown"

_log = structlog.get_logger("hecaton.audit")

_COMING_IN = frozenset({Action.LOG_IN, Action.JOIN})
_ALWAYS = _COMING_IN | {Action.SET_PASSWORD}
_CHANGING = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class Deed(msgspec.Struct, frozen=True):
    """What somebody did, or was kept from. `target`: the name of what it was done to."""

    action: Action
    address: str
    who: str = NOBODY
    role: str | None = None
    target: str = ""


def may_be_recorded(method: str, action: Action) -> bool:
    """Whether there is somebody whose calls of such a route are written although they are allowed."""
    return method in _CHANGING and any(is_recorded(role, action) for role in Role)


def is_recorded(role: Role | None, action: Action) -> bool:
    """Who comes in, passwords, and what one does with everybody's things; not what one does with one's own."""
    return action in _ALWAYS or (role is not None and scope(role, action) is Scope.ALL)


class Audit:
    """On the loop. Refusals, and what fails of those who are no admins, have a budget: what is over it is counted, and
    the next such line says how many were not written."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._logins, self._others = _RefusalLines(now()), _RefusalLines(now())

    def done(self, deed: Deed) -> None:
        _log.info("Audit", **_fields(deed, "done"))

    def failed(self, deed: Deed, error: HecatonError | None) -> None:
        """`error` None: by a fault of the server."""
        result = HecatonError.code if error is None else error.code
        login = deed.action in _COMING_IN
        refused = login or isinstance(error, Unauthenticated | Forbidden)
        write = _log.warning if refused else _log.info
        trusted = isinstance(deed.role, Role) and scope(deed.role, Action.FILL_DISK) is not None
        if error is None or (trusted and not refused):
            write("Audit", **_fields(deed, result))
            return
        budget = self._logins if login else self._others
        if budget.take(self._now()):
            missed = {"not_written": budget.missed} if budget.missed else {}
            budget.missed = 0
            write("Audit", **_fields(deed, result), **missed)


def _fields(deed: Deed, result: str) -> dict[str, str]:
    return {
        "who": deed.who, "role": deed.role or "none", "address": deed.address, "what": deed.action.value,
        "object": deed.target[:MAX_OBJECT], "result": result,
    }  # fmt: skip


class _RefusalLines:
    """Room for lines about refusals: a bucket that fills again."""

    def __init__(self, now: float) -> None:
        self.missed = 0
        self._left, self._at = float(MAX_REFUSALS), now

    def take(self, now: float) -> bool:
        self._left = min(float(MAX_REFUSALS), self._left + (now - self._at) * REFUSALS_PER_SECOND)
        self._at = now
        if self._left < 1:
            self.missed += 1
            return False
        self._left -= 1
        return True
