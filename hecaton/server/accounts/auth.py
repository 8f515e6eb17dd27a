"""Who is calling: passwords (argon2id), people's tokens (JWT) and workers' tokens (256 random bits, stored as SHA-256).

A person's token names the user and the version of his token; both are checked against the store's user on every call,
so a changed password, role or a deleted user ends all his tokens at once.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import os
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import argon2
import jwt
import msgspec

from hecaton.core.errors import BadRequest, TooMany, Unauthenticated
from hecaton.core.model import Role, User
from hecaton.server.accounts.permissions import Action, Scope, scope

WORKER_PREFIX = "hkw_"
_ALGORITHM = "HS256"
_ISSUER = "hecaton"
_REQUIRED = ["exp", "iat", "iss", "aud", "sub", "jti"]
MIN_PASSWORD, MAX_PASSWORD = 8, 128


class Caller(msgspec.Struct, frozen=True):
    """Who calls, by the token that he showed."""

    user_id: int
    name: str
    role: Role
    version: int = 0  # of the token

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


class Passwords:
    """Hashing in at most two threads: a check costs 20-30 ms and 19 MiB, so a flood of logins must queue here and not
    stop the event loop (a synchronous hash raised other calls to 3.1 s)."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="password")
        self._decoy = _decoy()  # now: the first unknown name must not take longer than the next

    async def hash(self, password: str) -> str:
        if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
            raise BadRequest(
                f"a password has {MIN_PASSWORD} to {MAX_PASSWORD} characters, this one has {len(password)}"
            )
        return await asyncio.get_running_loop().run_in_executor(self._pool, _HASHER.hash, password)

    async def verify(self, user: User | None, password: str) -> bool:
        """As long for unknown names as for known ones: the time must not tell whether a user exists."""
        stored = user.password_hash if user else self._decoy
        matches = await asyncio.get_running_loop().run_in_executor(self._pool, self._verify, stored, password)
        return matches and user is not None

    def _verify(self, stored: str, password: str) -> bool:
        if len(password) > MAX_PASSWORD:
            return False
        try:
            return _HASHER.verify(stored, password)
        except argon2.exceptions.VerificationError:
            return False

    def close(self) -> None:
        self._pool.shutdown()


class Throttle:
    """Wrong passwords per name and address: `burst` at once, then one every `interval` seconds. Right ones are free.

    A guess is counted before it is checked and given back when it was right: else a hundred at once would all pass."""

    def __init__(self, burst: int = 10, interval: float = 30.0) -> None:
        self._burst, self._interval = burst, interval
        self._failures: dict[tuple[str, str], tuple[float, float]] = {}

    def guess(self, name: str, address: str, now: float) -> None:
        """Raises TooMany if the name has had its share of guesses from this address."""
        key = _key(name, address)
        level = self._level(key, now)
        if level > self._burst - 1:
            wait = (level - self._burst + 1) * self._interval
            raise TooMany(
                f"too many wrong passwords for {name[:80]!r}", f"Try again in {wait:.0f} s.", retry_after=wait
            )
        if len(self._failures) > 10_000:  # a flood of names must not fill the memory
            self._failures.clear()
        self._failures[key] = (level + 1, now)

    def right(self, name: str, address: str, now: float) -> None:
        key = _key(name, address)
        self._failures[key] = (max(0.0, self._level(key, now) - 1), now)

    def _level(self, key: tuple[str, str], now: float) -> float:
        count, at = self._failures.get(key, (0.0, now))
        return max(0.0, count - (now - at) / self._interval)


def _key(name: str, address: str) -> tuple[str, str]:
    """Names are compared without case; whoever has one IPv6 address has the other 2^64 of its network too."""
    if ":" in address:
        address = str(ipaddress.ip_network((address.partition("%")[0], 64), strict=False))
    return name[:80].casefold(), address


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
        try:
            claims = jwt.decode(
                token, self._secret, algorithms=[_ALGORITHM], audience=self._audience, issuer=_ISSUER,
                # Expiry is judged by the server's own clock, which no jump of the wall clock moves.
                options={"require": _REQUIRED, "verify_exp": False, "verify_iat": False},
            )  # fmt: skip
            result = _Claims(int(claims["sub"]), int(claims["ver"]), float(claims["exp"]))
        except (jwt.PyJWTError, KeyError, ValueError, TypeError, OverflowError):
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
    return _refused("the token no longer holds: the user was deleted or the password changed")


def _refused(why: str) -> Unauthenticated:
    return Unauthenticated(why, "Log in again: hecaton server login NAME")


def new_worker_token() -> tuple[str, bytes]:
    """The token and the hash to store. No slow hash: 256 random bits cannot be guessed, and 1,000 workers that come
    back at once would cost minutes of argon2."""
    token = WORKER_PREFIX + secrets.token_urlsafe(32)
    return token, hash_worker_token(token)


def hash_worker_token(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def load_secret(path: Path) -> bytes:
    """The key that signs people's tokens: 32 random bytes, made on the first start, readable by the owner alone."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
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
