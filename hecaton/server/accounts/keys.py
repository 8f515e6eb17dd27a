"""Keys: what lets in whoever holds it, once and within an hour. They stand in the lines that people paste."""

from __future__ import annotations

import secrets

from hecaton.core.errors import Forbidden
from hecaton.core.model import KeyScope, User, WorkerId
from hecaton.server.accounts.auth import Caller, hash_token, new_worker_token
from hecaton.server.accounts.directory import checked_name
from hecaton.server.accounts.logins import Logins
from hecaton.server.accounts.permissions import Action
from hecaton.server.clock import uuid7
from hecaton.server.resources import Resources
from hecaton.store.port import Store
from hecaton.wire import api
from hecaton.wire.api import Key

KEY_LIFE = 3600.0
"""Seconds in which it may be used."""


class Keys:
    """On the loop. The store keeps hashes alone, and a key that was used is gone with what came of it, in one
    transaction."""

    def __init__(self, resources: Resources, logins: Logins) -> None:
        self._database, self._clock = resources.database, resources.clock
        self._logins = logins

    async def make(self, caller: Caller, scope: KeyScope) -> Key:
        """It holds as long as the maker's own tokens do, and for what the maker may do when it is used."""
        key = secrets.token_urlsafe(32)
        now = self._clock.now()
        user_id, version = caller.user_id, caller.version
        await self._database.write(
            lambda store: store.add_key(hash_token(key), scope, user_id, version, now, now + KEY_LIFE)
        )
        return Key(key, scope, now + KEY_LIFE)

    async def log_in(self, key: str, address: str) -> User:
        """Who made it. Unauthenticated if it does not hold, or not any more; TooMany as for passwords."""
        now = self._clock.now()

        def use(store: Store) -> User:
            return store.use_key(hash_token(key), KeyScope.LOGIN, now)

        return await self._logins.check_key(address, lambda: self._database.write(use))

    async def enrol(self, key: str, name: str, address: str) -> tuple[api.WorkerCredentials, User]:
        """A worker of that name, and who made the key. Raises as above; Conflict if the name is taken: the key holds
        on then. Forbidden if its maker is no admin any more."""
        clean = checked_name(name, "worker")
        token, hashed = new_worker_token()
        now = self._clock.now()
        worker_id = WorkerId(uuid7(now))

        def enrol(store: Store) -> User:
            maker = store.use_key(hash_token(key), KeyScope.ENROL, now)
            if not Caller(maker.id, maker.name, maker.role, maker.token_version).may(Action.MAKE_KEYS):
                raise Forbidden(f"{maker.name!r}, who made this key, is no admin any more", "Ask an admin for another.")
            store.add_worker(worker_id, clean, maker.name, hashed, now)
            return maker

        maker = await self._logins.check_key(address, lambda: self._database.write(enrol))
        return api.WorkerCredentials(worker_id, clean, token), maker
