"""Users, images and workers in SQLite."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import msgspec

from hecaton.core.errors import Conflict, NotFound, Unauthenticated
from hecaton.core.model import Image, KeyScope, Role, User, WorkerId, WorkerRecord
from hecaton.core.options import NOTHING_ASKED, Options, same_container, with_defaults
from hecaton.store.port import Home, Used
from hecaton.store.sqlite.rows import Columns, defaults_of, defaults_text, json_text
from hecaton.store.sqlite.run_after import IS_DELAYED, IS_READY, IS_WITHHELD
from hecaton.store.sqlite.statements import Statements
from hecaton.store.sqlite.there import AllThere

_USERS = Columns(User, "user", made={"role": Role})
_IMAGES = Columns(Image, "image", made={"env": json.loads, "defaults": lambda text: defaults_of(text) or NOTHING_ASKED})
_HOMES = Columns(Home, "home")
_WORKERS = Columns(WorkerRecord, "worker", made={"removed": bool, "drained": bool})

_USER = f"SELECT {_USERS.sql} FROM user WHERE deleted = 0"  # noqa: S608
_IMAGE = f"SELECT {_IMAGES.sql} FROM image WHERE deleted = 0"  # noqa: S608
_WORKER = f"SELECT {_WORKERS.sql} FROM worker WHERE removed = 0"  # noqa: S608


_LEAP = "abs(random() % 2147483648)"
"""How far a version of tokens leaps: an old copy of the database, put in place by whichever means, does not give out
those again that were given out since."""

_CREATE_USER = f"""
    INSERT INTO user (name, name_key, role, password_hash, created_at, token_version) VALUES (?, ?, ?, ?, ?, {_LEAP})
"""  # noqa: S608

END_TOKENS = f"UPDATE user SET token_version = token_version + 1 + {_LEAP}"  # noqa: S608
"""Of all users."""

_SET_PASSWORD = f"{END_TOKENS}, password_hash = ? WHERE id = ?"

_HAD = "SELECT id FROM image WHERE owner_id = ? AND (deleted = 0 OR used_at >= ?) AND name <> ?"

_USE_AGAIN = """
    UPDATE image SET deleted = 0, created_at = ?, updated_at = ?, digest = NULL
    WHERE id = (SELECT max(id) FROM image WHERE name = ? AND owner_id = ? AND deleted = 1)
"""


_USE_KEY = """
    DELETE FROM access_key WHERE hash = ? AND scope = ? AND expires_at > ? RETURNING user_id, token_version
"""


class AccountVerbs:
    """Nothing is deleted: rows stay with a flag, for the names on old jobs; among those without it names are unique."""

    def __init__(self, statements: Statements, there: AllThere) -> None:
        self._there = there
        self._sql = statements.run
        self._sql_many = statements.run_many
        self._first = statements.first

    # -- users ---------------------------------------------------------------------------------
    def create_user(self, name: str, password_hash: str, role: Role, now: float) -> User:
        if self.user_by_name(name):
            raise Conflict(f"there is a user {name!r} already")
        self._sql(_CREATE_USER, (name, name.casefold(), role.value, password_hash, now))
        user = self._named_user(name)
        self._sql("INSERT INTO stored (owner_id) VALUES (?)", (user.id,))
        return user

    def user(self, user_id: int) -> User | None:
        row = self._first(f"{_USER} AND id = ?", user_id)
        return _USERS.of(row) if row else None

    def user_by_name(self, name: str) -> User | None:
        row = self._first(f"{_USER} AND name_key = ?", name.casefold())
        return _USERS.of(row) if row else None

    def users(self) -> list[User]:
        return [_USERS.of(row) for row in self._sql(f"{_USER} ORDER BY name_key")]

    def set_password(self, name: str, password_hash: str) -> User:
        user = self._named_user(name)
        self._sql(_SET_PASSWORD, (password_hash, user.id))
        return self._named_user(name)

    def delete_user(self, name: str) -> User:
        user = self._named_user(name)
        self._require_other_admin(user)
        if self._unfinished("owner_id", user.id):
            raise Conflict(f"{user.name!r} has unfinished jobs", "Cancel them or wait for them, then delete the user.")
        self._sql("UPDATE user SET deleted = 1 WHERE id = ?", (user.id,))
        self._there.users.forget(user.id)
        self._sql("DELETE FROM home WHERE owner_id = ?", (user.id,))
        self._remove_images(self._sql("SELECT id FROM image WHERE deleted = 0 AND owner_id = ?", (user.id,)).fetchall())
        return user

    def set_role(self, name: str, role: Role) -> User:
        user = self._named_user(name)
        if role is not Role.ADMIN:
            self._require_other_admin(user)
        self._sql("UPDATE user SET role = ? WHERE id = ?", (role.value, user.id))
        return self._named_user(name)

    def set_uid(self, name: str, uid: int | None) -> User:
        user = self._named_user(name)
        self._sql("UPDATE user SET uid = ? WHERE id = ?", (uid, user.id))
        return self._named_user(name)

    def _require_other_admin(self, user: User) -> None:
        others = self._first("SELECT 1 FROM user WHERE deleted = 0 AND role = 'admin' AND id <> ?", user.id)
        if user.role is Role.ADMIN and not others:
            raise Conflict(f"{user.name!r} is the last admin", "Make somebody else an admin first.")

    def homes(self, since: float) -> list[Home]:
        rows = self._sql(f"SELECT {_HOMES.sql} FROM home WHERE used_at > ? ORDER BY owner_id, used_at", (since,))  # noqa: S608
        return [_HOMES.of(row) for row in rows]

    def add_home(self, home: Home, most: int) -> None:
        self._sql(
            "INSERT INTO home (owner_id, network, used_at) VALUES (?, ?, ?)"
            " ON CONFLICT (owner_id, network) DO UPDATE SET used_at = excluded.used_at",
            (home.owner_id, home.network, home.used_at),
        )
        self._sql(
            "DELETE FROM home WHERE owner_id = ?1 AND network NOT IN"
            " (SELECT network FROM home WHERE owner_id = ?1 ORDER BY used_at DESC LIMIT ?2)",
            (home.owner_id, most),
        )

    def _named_user(self, name: str) -> User:
        if user := self.user_by_name(name):
            return user
        raise NotFound(f"there is no user {name!r}")

    def _unfinished(self, column: str, value: int) -> bool:
        """Looks at unfinished jobs only: a million finished ones cost nothing."""
        sources = (
            f"job INDEXED BY job_ready WHERE state = 'IN_QUEUE' AND {IS_READY}",
            f"job INDEXED BY job_delayed WHERE state = 'IN_QUEUE' AND {IS_DELAYED}",
            f"job INDEXED BY job_withheld WHERE state = 'IN_QUEUE' AND {IS_WITHHELD}",
            "job INDEXED BY job_held WHERE state IN ('ASSIGNED', 'IN_PROGRESS')",
        )
        return any(self._first(f"SELECT 1 FROM {source} AND {column} = ? LIMIT 1", value) for source in sources)  # noqa: S608

    # -- keys ----------------------------------------------------------------------------------
    def add_key(
        self, key_hash: bytes, scope: KeyScope, user_id: int, token_version: int, now: float, expires_at: float
    ) -> None:
        self._sql("DELETE FROM access_key WHERE expires_at <= ?", (now,))
        row = key_hash, scope.value, user_id, token_version, expires_at
        self._sql("INSERT INTO access_key VALUES (?, ?, ?, ?, ?)", row)

    def use_key(self, key_hash: bytes, scope: KeyScope, now: float) -> User:
        user_id, version = self._first(_USE_KEY, key_hash, scope.value, now) or (None, None)
        user = None if user_id is None else self.user(user_id)
        if user is None or user.token_version != version:
            raise Unauthenticated(
                "this key does not hold: each is for one use, within an hour, and for one kind of machine",
                "Get a new line on the server's machine: hecaton up",
            )
        return user

    # -- images --------------------------------------------------------------------------------
    def add_image(
        self, name: str, digest: str | None, description: str, now: float, defaults: Options = NOTHING_ASKED
    ) -> Image:
        if self.image_by_name(name):
            raise Conflict(f"the image {name!r} is registered already", f"To change it: hecaton image update {name}")
        self._sql(
            "INSERT INTO image (name, digest, description, created_at, updated_at, defaults) VALUES (?, ?, ?, ?, ?, ?)",
            (name, digest, description, now, now, defaults_text(defaults)),
        )
        return self._named_image(name)

    def use_image(self, name: str, owner_id: int | None, now: float, unused: float, most: int) -> Used:
        """One that was removed is taken up again: who removes and uses in turn leaves no rows."""
        if owner_id is not None and self.user(owner_id) is None:
            raise NotFound(f"there is no user with number {owner_id}: deleted meanwhile?")
        known = self.image_by_name(name, owner_id)
        if known is None:
            self._require_few(name, owner_id, unused, most)
            if not self._sql(_USE_AGAIN, (now, now, name, owner_id)).rowcount:
                self._sql(
                    "INSERT INTO image (name, description, created_at, updated_at, owner_id) VALUES (?, '', ?, ?, ?)",
                    (name, now, now, owner_id),
                )
        self._sql("UPDATE image SET used_at = ? WHERE id = ?", (now, self._named_image(name, owner_id).id))
        return Used(self._named_image(name, owner_id), self._forget_unused(unused))

    def _require_few(self, name: str, owner_id: int | None, unused: float, most: int) -> None:
        rows = self._sql(_HAD, (owner_id, unused, name)).fetchall()
        if len(rows) >= most:
            raise Conflict(
                f"you have used {len(rows)} images that are not registered, the most for one user",
                "Use one of those (hecaton image list), or let an admin register it: hecaton image new NAME",
            )

    def _forget_unused(self, unused: float) -> tuple[int, ...]:
        rows = self._sql(f"{_IMAGE} AND owner_id IS NOT NULL AND used_at < ?", (unused,)).fetchall()
        old = [image.id for image in map(_IMAGES.of, rows) if not self._unfinished("image_id", image.id)]
        self._remove_images([(number,) for number in old])
        return tuple(old)

    def image(self, image_id: int) -> Image | None:
        row = self._first(f"{_IMAGE} AND id = ?", image_id)
        return _IMAGES.of(row) if row else None

    def image_by_name(self, name: str, owner_id: int | None = None) -> Image | None:
        row = self._first(f"{_IMAGE} AND name = ? AND owner_id IS ?", name, owner_id)
        return _IMAGES.of(row) if row else None

    def images(self) -> list[Image]:
        return [_IMAGES.of(row) for row in self._sql(f"{_IMAGE} ORDER BY name")]

    def pin_image(self, name: str, digest: str, now: float) -> list[Image]:
        rows = self._sql(f"{_IMAGE} AND name = ? AND digest IS NULL", (name,)).fetchall()
        unpinned = [_IMAGES.of(row).id for row in rows]
        self._sql_many(
            "UPDATE image SET digest = ?, updated_at = ? WHERE id = ?", [(digest, now, number) for number in unpinned]
        )
        return [image for image in map(self.image, unpinned) if image is not None]

    def update_image(
        self,
        name: str,
        now: float,
        *,
        env: dict[str, str] | None,
        description: str | None,
        digest: str | None,
        defaults: Mapping[str, object] | None = None,
        owner_id: int | None = None,
    ) -> Image:
        old = self._named_image(name, owner_id)
        new_env = old.env if env is None else env
        new_defaults = with_defaults(old.defaults, defaults or {})
        outdated = new_env != old.env or not same_container(new_defaults, old.defaults)
        self._sql(
            "UPDATE image SET digest = ?, description = ?, env = ?, env_revision = ?, updated_at = ?, defaults = ? "
            "WHERE id = ?",
            (
                old.digest if digest is None else digest,
                old.description if description is None else description,
                json_text(new_env),
                old.env_revision + outdated,
                now,
                defaults_text(new_defaults),
                old.id,
            ),
        )
        return self._named_image(name, owner_id)

    def delete_image(self, name: str, owner_id: int | None = None) -> Image:
        image = self._named_image(name, owner_id)
        if self._unfinished("image_id", image.id):
            raise Conflict(
                f"the image {name!r} has unfinished jobs", "Cancel them or wait for them, then delete the image."
            )
        self._remove_images([(image.id,)])
        return image

    def _remove_images(self, keys: Sequence[tuple[int]]) -> None:
        self._sql_many("UPDATE image SET deleted = 1 WHERE id = ?", keys)
        for (number,) in keys:
            self._there.images.forget(number)

    def _named_image(self, name: str, owner_id: int | None = None) -> Image:
        if image := self.image_by_name(name, owner_id):
            return image
        raise NotFound(f"the image {name!r} is not registered", f"An admin can register it: hecaton image new {name}")

    # -- workers -------------------------------------------------------------------------------
    def add_worker(self, worker_id: WorkerId, name: str, registered_by: str, token_hash: bytes, now: float) -> None:
        if self._first("SELECT 1 FROM worker WHERE (removed = 0 AND name = ?1) OR id = ?1", name):
            raise Conflict(
                f"there is a worker {name!r} already", f"Choose another name, or: hecaton worker remove {name}"
            )
        self._sql(
            "INSERT INTO worker (id, name, registered_by, token_hash, created_at, last_seen) VALUES (?, ?, ?, ?, ?, ?)",
            (worker_id, name, registered_by, token_hash, now, now),
        )

    def worker_by_token(self, token_hash: bytes) -> WorkerRecord | None:
        row = self._first(f"{_WORKER} AND token_hash = ?", token_hash)
        return _WORKERS.of(row) if row else None

    def workers(self) -> list[WorkerRecord]:
        return [_WORKERS.of(row) for row in self._sql(f"{_WORKER} ORDER BY name")]

    def seen(self, workers: Sequence[WorkerId], now: float) -> None:
        self._sql_many("UPDATE worker SET last_seen = ? WHERE id = ?", [(now, worker) for worker in workers])

    def remove_worker(self, name_or_id: str) -> WorkerRecord:
        worker = self._named_worker(name_or_id)
        self._sql("UPDATE worker SET removed = 1 WHERE id = ?", (worker.id,))
        self._there.workers.forget(worker.id)
        return msgspec.structs.replace(worker, removed=True)

    def set_drained(self, name_or_id: str, drained: bool) -> WorkerRecord:
        worker = self._named_worker(name_or_id).id
        if drained:
            self._sql("UPDATE worker SET drained = 1 WHERE id = ?", (worker,))
        else:
            self._sql("UPDATE worker SET drained = 0, quarantine = NULL WHERE id = ?", (worker,))
        return self._named_worker(worker)

    def enrol_slots(self, worker: WorkerId, slots: int, more: bool = False) -> None:
        self._sql(
            "UPDATE worker SET slots = ?2 WHERE id = ?1 AND (slots IS NULL OR (?3 AND slots < ?2))",
            (worker, slots, more),
        )

    def set_quarantine(self, worker: WorkerId, why: str | None, until: float) -> None:
        self._sql("UPDATE worker SET quarantine = ?, quarantined_until = ? WHERE id = ?", (why, until, worker))

    def _named_worker(self, name_or_id: str) -> WorkerRecord:
        row = self._first(f"{_WORKER} AND (name = ?1 OR id = ?1) ORDER BY name = ?1 DESC", name_or_id)
        if row is None:
            raise NotFound(f"there is no worker {name_or_id!r}", "hecaton worker list shows them.")
        return _WORKERS.of(row)
