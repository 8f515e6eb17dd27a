"""Users, images, workers and server-wide facts in SQLite."""

from __future__ import annotations

import json
from collections.abc import Sequence

from hecaton.core.errors import Conflict, NotFound
from hecaton.core.model import Image, Role, User, WorkerId, WorkerRecord
from hecaton.store.sqlite.rows import Row, Verbs, json_text

_USER = "SELECT id, name, role, password_hash, token_version, created_at FROM user WHERE deleted = 0"
_IMAGE = "SELECT id, name, digest, description, env, env_revision, created_at, updated_at FROM image WHERE deleted = 0"
_WORKER = """
    SELECT id, name, registered_by, token_hash, created_at, last_seen, removed, drained, quarantine, quarantined_until
    FROM worker WHERE removed = 0
"""


class AccountVerbs(Verbs):
    # -- users ---------------------------------------------------------------------------------
    def create_user(self, name: str, password_hash: str, role: Role, now: float) -> User:
        if self.user_by_name(name):
            raise Conflict(f"there is a user {name!r} already")
        self._sql(
            "INSERT INTO user (name, name_key, role, password_hash, created_at) VALUES (?, ?, ?, ?, ?)",
            (name, name.casefold(), role.value, password_hash, now),
        )
        return self._named_user(name)

    def user(self, user_id: int) -> User | None:
        row = self._row(f"{_USER} AND id = ?", user_id)
        return _user_of(row) if row else None

    def user_by_name(self, name: str) -> User | None:
        row = self._row(f"{_USER} AND name_key = ?", name.casefold())
        return _user_of(row) if row else None

    def users(self) -> list[User]:
        return [_user_of(row) for row in self._sql(f"{_USER} ORDER BY name_key")]

    def set_password(self, name: str, password_hash: str) -> User:
        user = self._named_user(name)
        self._sql(
            "UPDATE user SET password_hash = ?, token_version = token_version + 1 WHERE id = ?",
            (password_hash, user.id),
        )
        return self._named_user(name)

    def delete_user(self, name: str) -> User:
        user = self._named_user(name)
        others = self._row("SELECT 1 FROM user WHERE deleted = 0 AND role = 'admin' AND id <> ?", user.id)
        if user.role is Role.ADMIN and not others:
            raise Conflict(f"{user.name!r} is the last admin", "Create another admin first.")
        if self._unfinished("owner_id", user.id):
            raise Conflict(f"{user.name!r} has unfinished jobs", "Cancel them or wait for them, then delete the user.")
        self._sql("UPDATE user SET deleted = 1 WHERE id = ?", (user.id,))
        return user

    def _named_user(self, name: str) -> User:
        if user := self.user_by_name(name):
            return user
        raise NotFound(f"there is no user {name!r}")

    def _unfinished(self, column: str, value: int) -> bool:
        """Looks at unfinished jobs only: a million finished ones cost nothing."""
        sources = (
            "job INDEXED BY job_ready WHERE state = 'IN_QUEUE' AND run_after = 0",
            "job INDEXED BY job_delayed WHERE state = 'IN_QUEUE' AND run_after > 0",
            "job INDEXED BY job_withheld WHERE state = 'IN_QUEUE' AND run_after < 0",
            "job INDEXED BY job_held WHERE state IN ('ASSIGNED', 'IN_PROGRESS')",
        )
        return any(self._row(f"SELECT 1 FROM {source} AND {column} = ? LIMIT 1", value) for source in sources)  # noqa: S608

    # -- images --------------------------------------------------------------------------------
    def add_image(self, name: str, digest: str | None, description: str, now: float) -> Image:
        if self.image_by_name(name):
            raise Conflict(f"the image {name!r} is registered already", f"To change it: hecaton image update {name}")
        self._sql(
            "INSERT INTO image (name, digest, description, created_at, updated_at) VALUES (?, ?, ?, ?, ?)",
            (name, digest, description, now, now),
        )
        return self._named_image(name)

    def image(self, image_id: int) -> Image | None:
        row = self._row(f"{_IMAGE} AND id = ?", image_id)
        return _image_of(row) if row else None

    def image_by_name(self, name: str) -> Image | None:
        row = self._row(f"{_IMAGE} AND name = ?", name)
        return _image_of(row) if row else None

    def images(self) -> list[Image]:
        return [_image_of(row) for row in self._sql(f"{_IMAGE} ORDER BY name")]

    def update_image(
        self, name: str, now: float, *, env: dict[str, str] | None, description: str | None, digest: str | None
    ) -> Image:
        old = self._named_image(name)
        new_env = old.env if env is None else env
        self._sql(
            "UPDATE image SET digest = ?, description = ?, env = ?, env_revision = ?, updated_at = ? WHERE id = ?",
            (
                old.digest if digest is None else digest,
                old.description if description is None else description,
                json_text(new_env),
                old.env_revision + (new_env != old.env),
                now,
                old.id,
            ),
        )
        return self._named_image(name)

    def delete_image(self, name: str) -> Image:
        image = self._named_image(name)
        if self._unfinished("image_id", image.id):
            raise Conflict(
                f"the image {name!r} has unfinished jobs", "Cancel them or wait for them, then delete the image."
            )
        self._sql("UPDATE image SET deleted = 1 WHERE id = ?", (image.id,))
        return image

    def _named_image(self, name: str) -> Image:
        if image := self.image_by_name(name):
            return image
        raise NotFound(f"the image {name!r} is not registered", f"An admin can register it: hecaton image new {name}")

    # -- workers -------------------------------------------------------------------------------
    def add_worker(self, worker_id: WorkerId, name: str, registered_by: str, token_hash: bytes, now: float) -> None:
        if self._row("SELECT 1 FROM worker WHERE removed = 0 AND name = ?", name):
            raise Conflict(
                f"there is a worker {name!r} already", f"Choose another name, or: hecaton worker remove {name}"
            )
        self._sql(
            "INSERT INTO worker (id, name, registered_by, token_hash, created_at, last_seen) VALUES (?, ?, ?, ?, ?, ?)",
            (worker_id, name, registered_by, token_hash, now, now),
        )

    def worker_by_token(self, token_hash: bytes) -> WorkerRecord | None:
        row = self._row(f"{_WORKER} AND token_hash = ?", token_hash)
        return _worker_of(row) if row else None

    def workers(self) -> list[WorkerRecord]:
        return [_worker_of(row) for row in self._sql(f"{_WORKER} ORDER BY name")]

    def seen(self, workers: Sequence[WorkerId], now: float) -> None:
        self._sql_many("UPDATE worker SET last_seen = ? WHERE id = ?", [(now, worker) for worker in workers])

    def remove_worker(self, name_or_id: str) -> WorkerRecord:
        row = self._named_worker(name_or_id)
        self._sql("UPDATE worker SET removed = 1 WHERE id = ?", (row[0],))
        return _worker_of((*row[:6], 1, *row[7:]))

    def set_drained(self, name_or_id: str, drained: bool) -> WorkerRecord:
        worker = self._named_worker(name_or_id)[0]
        if drained:
            self._sql("UPDATE worker SET drained = 1 WHERE id = ?", (worker,))
        else:
            self._sql("UPDATE worker SET drained = 0, quarantine = NULL WHERE id = ?", (worker,))
        return _worker_of(self._named_worker(worker))

    def set_quarantine(self, worker: WorkerId, why: str | None, until: float) -> None:
        self._sql("UPDATE worker SET quarantine = ?, quarantined_until = ? WHERE id = ?", (why, until, worker))

    def _named_worker(self, name_or_id: str) -> Row:
        row = self._row(f"{_WORKER} AND (name = ?1 OR id = ?1) ORDER BY name = ?1 DESC", name_or_id)
        if row is None:
            raise NotFound(f"there is no worker {name_or_id!r}", "hecaton worker list shows them.")
        return row

    # -- meta ----------------------------------------------------------------------------------
    def meta(self, key: str) -> str | None:
        row = self._row("SELECT value FROM meta WHERE key = ?", key)
        return row[0] if row else None

    def set_meta(self, key: str, value: str) -> None:
        self._sql(
            "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            (key, value),
        )


def _user_of(row: Row) -> User:
    return User(row[0], row[1], Role(row[2]), row[3], row[4], row[5])


def _image_of(row: Row) -> Image:
    return Image(row[0], row[1], row[2], row[3], json.loads(row[4]), row[5], row[6], row[7])


def _worker_of(row: Row) -> WorkerRecord:
    return WorkerRecord(
        row[0], row[1], row[2], row[3], row[4], row[5], bool(row[6]), bool(row[7]), row[8], row[9]
    )  # fmt: skip
