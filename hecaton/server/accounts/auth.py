"""Who is calling: passwords (argon2id), people's tokens (JWT) and workers' tokens (256 random bits, stored as SHA-256).

A person's token names the user and the version of his token; both are checked against the store's user on every call,
so a changed password, role or a deleted user ends all his tokens at once.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import TypeVar

import argon2
import jwt
import msgspec

from hecaton.core.errors import BadRequest, TooMany, Unauthenticated
from hecaton.core.model import Role, User
from hecaton.server.accounts.permissions import Action, Scope, scope
from hecaton.server.private_files import require_private

T = TypeVar("T")

WORKER_PREFIX = "hkw_"
_ALGORITHM = "HS256"
_ISSUER = "hecaton"
_REQUIRED = ["exp", "iat", "iss", "aud", "sub", "jti"]
MIN_PASSWORD, MAX_PASSWORD = 8, 128
MAX_TOKEN = 8 * 1024
"""Characters of a person's token: one of ours has some three hundred. It is parsed before its signature is checked."""


class Caller(msgspec.Struct, frozen=True):
    """Who calls, by the token that he showed."""

    user_id: int
    name: str
    role: Role
    version: int  # of the token

    def may(self, action: Action, owner_id: int | None = None) -> bool:
        """Whether he may do it with what belongs to that user; without one: with everybody's."""
        reach = scope(self.role, action)
        return reach is Scope.ALL or (reach is Scope.OWN and owner_id == self.user_id)


# OWASP's argon2id profile: 19 MiB, two passes, one lane.
_HASHER = argon2.PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)


@cache
def _decoy() -> str:
    """What the password of an unknown name is compared with: nobody's, the same in all of a process."""
    return _HASHER.hash(secrets.token_hex(16))


MAX_CHECKS = 16
"""Passwords that wait to be checked, all together: at 25 ms each in two threads, the last waits for a fifth of a
second. Some of the room is for those who have been right before."""

MAX_CHECKS_OF_ONE = 8
"""Of them from one address, or of one user."""

_ROOM_FOR_THE_KNOWN = 4
_THREADS = 2


class Passwords:
    """Hashing in at most two threads: a check costs 20-30 ms and 19 MiB, so a flood of logins must queue here and not
    stop the event loop (a synchronous hash raised other calls to 3.1 s). The queue is short, and who is cancelled
    leaves it. On any loop, and on one at a time."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="password")
        self._decoy = _decoy()  # now: the first unknown name must not take longer than the next
        self._busy = 0
        self._waiting: deque[tuple[str, asyncio.Future[None]]] = deque()

    async def hash(self, password: str, whose: str = "") -> str:
        """`whose`: that he may not have all of the queue. BadRequest for a bad one; TooMany: try again in a second."""
        if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
            raise BadRequest(
                f"a password has {MIN_PASSWORD} to {MAX_PASSWORD} characters, this one has {len(password)}"
            )
        return await self._in_turn(whose, MAX_CHECKS, _HASHER.hash, password)

    async def verify(self, user: User | None, password: str, whose: str = "", known: bool = True) -> bool:
        """As long for unknown names as for known ones: the time must not tell whether a user exists. One that is too
        long for anybody's is not looked at. TooMany: try again in a second."""
        if len(password) > MAX_PASSWORD:
            return False
        stored = user.password_hash if user else self._decoy
        room = MAX_CHECKS if known else MAX_CHECKS - _ROOM_FOR_THE_KNOWN
        return await self._in_turn(whose, room, _matches, stored, password) and user is not None

    async def _in_turn(self, whose: str, room: int, work: Callable[..., T], *args: str) -> T:
        if self._busy < _THREADS:
            self._busy += 1
        else:
            await self._turn(whose, room)
        job = asyncio.get_running_loop().run_in_executor(self._pool, work, *args)
        job.add_done_callback(self._done)
        return await asyncio.shield(job)  # its thread goes on, whoever leaves

    async def _turn(self, whose: str, room: int) -> None:
        own = sum(1 for other, _ in self._waiting if whose and other == whose)
        if len(self._waiting) >= room or own >= MAX_CHECKS_OF_ONE:
            raise TooMany("too many passwords are waiting to be checked", "Try again in a second.")
        place = whose, asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await place[1]
        except asyncio.CancelledError:
            if place in self._waiting:
                self._waiting.remove(place)
            elif not place[1].cancelled():
                self._done()  # its turn came in that moment
            raise

    def _done(self, _: object = None) -> None:
        """A thread is free: it is the next one's."""
        while self._waiting:
            _, turn = self._waiting.popleft()
            if not turn.cancelled():
                turn.set_result(None)
                return
        self._busy -= 1

    def close(self) -> None:
        self._pool.shutdown()


def _matches(stored: str, password: str) -> bool:
    try:
        return _HASHER.verify(stored, password)
    except argon2.exceptions.VerificationError:
        return False


class Tokens:
    """Issues and reads people's tokens. `find` looks a user up by id in memory."""

    def __init__(self, secret: bytes, server_id: str, life: float, now: Callable[[], float]) -> None:
        self._secret, self._audience, self._life, self._now = secret, server_id, life, now
        # hot: benchmarks/latency.py - a signature check costs 30 us, a look-up nothing; bounded, and dropped when full.
        self._read: dict[str, _Claims] = {}

    def issue(self, user: User) -> tuple[str, float]:
        now = self._now()
        claims = {
            "iss": _ISSUER, "aud": self._audience, "sub": str(user.id), "ver": user.token_version,
            "iat": int(now), "exp": int(now + self._life), "jti": secrets.token_hex(8),
        }  # fmt: skip
        return jwt.encode(claims, self._secret, algorithm=_ALGORITHM), float(int(now + self._life))

    def read(self, token: str, find: Callable[[int], User | None]) -> Caller:
        claims = self._read.get(token) or self._check(token)
        if claims.exp < self._now():
            raise _refused("the token has expired")
        user = find(claims.user_id)
        if user is None or user.token_version != claims.version:
            raise ended()
        return Caller(user.id, user.name, user.role, user.token_version)

    def _check(self, token: str) -> _Claims:
        if len(token) > MAX_TOKEN:
            raise _refused(f"no token of this server has {len(token)} characters")
        try:
            claims = jwt.decode(
                token, self._secret, algorithms=[_ALGORITHM], audience=self._audience, issuer=_ISSUER,
                # Expiry is judged by the server's own clock, which no jump of the wall clock moves.
                options={"require": _REQUIRED, "verify_exp": False, "verify_iat": False},
            )  # fmt: skip
            result = _Claims(int(claims["sub"]), int(claims["ver"]), float(claims["exp"]))
        except (jwt.PyJWTError, KeyError, ValueError, TypeError, OverflowError, RecursionError):
            raise _refused("the token does not hold on this server") from None
        if len(self._read) >= 10_000:
            self._read.clear()
        self._read[token] = result
        return result


class _Claims(msgspec.Struct, frozen=True):
    user_id: int
    version: int
    exp: float


def ended() -> Unauthenticated:
    return _refused("the token no longer holds: the user was deleted, or the role or password changed")


def _refused(why: str) -> Unauthenticated:
    return Unauthenticated(why, "Log in again: hecaton server login NAME")


def new_worker_token() -> tuple[str, bytes]:
    """The token and the hash to store. No slow hash: 256 random bits cannot be guessed, and 1,000 workers that come
    back at once would cost minutes of argon2."""
    token = WORKER_PREFIX + secrets.token_urlsafe(32)
    return token, hash_token(token)


def hash_token(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def load_secret(path: Path) -> bytes:
    """The key that signs people's tokens: 32 random bytes, made on the first start, readable by the owner alone."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        require_private(path)
        secret = path.read_bytes()
        if len(secret) != 32:
            raise BadRequest(
                f"{path} is damaged ({len(secret)} bytes, not 32)", "Remove it: all users log in again."
            ) from None
        return secret
    secret = secrets.token_bytes(32)
    with os.fdopen(descriptor, "wb") as file:
        file.write(secret)
        file.flush()
        os.fsync(file.fileno())
    return secret
