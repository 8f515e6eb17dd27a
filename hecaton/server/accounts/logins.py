"""Whether a password is right, for as many as may ask at a time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from hecaton.core.errors import Forbidden, TooMany, Unauthenticated
from hecaton.core.model import User
from hecaton.server.accounts.auth import MAX_PASSWORD, Passwords
from hecaton.server.accounts.homes import Homes
from hecaton.server.accounts.throttle import Throttle, network
from hecaton.server.clock import Clock

T = TypeVar("T")


class Logins:
    """The guard of all passwords: counts guesses, and keeps the queue of checks open to those who were right before.
    On the loop. What it counts is gone with the process; where somebody was right is not."""

    def __init__(self, passwords: Passwords, clock: Clock, homes: Homes) -> None:
        self._passwords, self._clock, self._homes = passwords, clock, homes
        self._throttle = Throttle()

    async def check(self, user: User | None, name: str, password: str, address: str) -> User:
        """`user`: who has that name, if anybody. Unauthenticated if it is wrong; TooMany if nobody looked. May be
        cancelled: a check that has begun counts as wrong then."""
        if len(password) > MAX_PASSWORD:
            raise _wrong()
        name = name if user is None else user.name  # one name, however it is spelt
        now = self._clock.now()
        known = self._homes.has(user, address)
        self._throttle.guess(name, address, now, known)
        try:
            right = await self._passwords.verify(user, password, network(address), known)
        except TooMany:
            self._throttle.withdraw(name, address, now)
            raise
        if user is None or not right:
            raise _wrong()
        self._throttle.withdraw(name, address, now)
        await self._homes.add(user, address)
        return user

    async def check_key(self, address: str, use: Callable[[], Awaitable[T]]) -> T:
        """What comes of the use of a key, which raises Unauthenticated if it is wrong. TooMany if nobody looked."""
        now = self._clock.now()
        self._throttle.guess_key(address, now)
        right = True
        try:
            return await use()
        except Unauthenticated:
            right = False
            raise
        finally:
            if right:
                self._throttle.withdraw_key(address, now)

    async def prove(self, user: User, password: str | None, address: str) -> None:
        """That it is he himself who asks, and not whoever came upon his token: Forbidden. TooMany as in `check`."""
        if password is None:
            raise Forbidden("your own password changes with the old one alone", "Give it too, as `old_password`.")
        try:
            await self.check(user, user.name, password, address)
        except Unauthenticated:
            raise Forbidden("the old password is wrong", "Who has forgotten it asks an admin for a new one.") from None


def _wrong() -> Unauthenticated:
    return Unauthenticated("wrong user name or password")
