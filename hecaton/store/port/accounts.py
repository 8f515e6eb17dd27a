"""The part of the port about users, images and workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from hecaton.core.model import Image, KeyScope, Role, User, WorkerId, WorkerRecord
from hecaton.core.options import NOTHING_ASKED, Options


class Home(msgspec.Struct, frozen=True):
    """A network from which a user's password was right. `used_at`: when last, as far as that was written."""

    owner_id: int
    network: str
    used_at: float


class Used(msgspec.Struct, frozen=True):
    """`forgotten`: numbers of images of whomever that were removed on this occasion."""

    image: Image
    forgotten: tuple[int, ...]


class Accounts(Protocol):
    # -- users ---------------------------------------------------------------------------------
    def create_user(self, name: str, password_hash: str, role: Role, now: float) -> User:
        """Conflict if the name is taken (names are compared without case)."""

    def user(self, user_id: int) -> User | None: ...
    def user_by_name(self, name: str) -> User | None: ...
    def users(self) -> list[User]: ...
    def set_password(self, name: str, password_hash: str) -> User:
        """Raises the token version: tokens issued before no longer hold. NotFound."""

    def delete_user(self, name: str) -> User:
        """NotFound; Conflict for the last admin and for owners of unfinished jobs. Ended jobs stay, under the name;
        his own images go."""

    def set_role(self, name: str, role: Role) -> User:
        """NotFound; Conflict if there would be no admin any more."""

    def set_uid(self, name: str, uid: int | None) -> User:
        """As whom his jobs write into folders of the machines; None: nobody says any more. NotFound."""

    def homes(self, since: float) -> list[Home]:
        """Used after that time; of each user the oldest first. A deleted user has none."""

    def add_home(self, home: Home, most: int) -> None:
        """New, or used again. Its user keeps so many, those used last."""

    # -- keys ----------------------------------------------------------------------------------
    def add_key(
        self, key_hash: bytes, scope: KeyScope, user_id: int, token_version: int, now: float, expires_at: float
    ) -> None:
        """What has expired goes."""

    def use_key(self, key_hash: bytes, scope: KeyScope, now: float) -> User:
        """Whose it was: it is gone. Unauthenticated if there is none such for that, it has expired, or its maker's
        tokens have been ended since."""

    # -- images --------------------------------------------------------------------------------
    def add_image(
        self, name: str, digest: str | None, description: str, now: float, defaults: Options = NOTHING_ASKED
    ) -> Image:
        """For everybody. Conflict if registered."""

    def use_image(self, name: str, owner_id: int | None, now: float, unused: float, most: int) -> Used:
        """That of this owner, made if he has none; None: the registered one. Own images that were used before `unused`
        for the last time and have no unfinished jobs are removed. Conflict if he has had `most` since then, also where
        he has removed some; NotFound if he was deleted."""

    def image(self, image_id: int) -> Image | None: ...
    def image_by_name(self, name: str, owner_id: int | None = None) -> Image | None:
        """`owner_id`: of his own ones; None: of the registered ones."""

    def images(self) -> list[Image]:
        """Everybody's."""

    def pin_image(self, name: str, digest: str, now: float) -> list[Image]:
        """Its digest, wherever one of this name has none yet. Those that it is new to."""

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
        """`owner_id`: as in `image_by_name`. None leaves a field as it is; `env` replaces and raises `env_revision`
        when it differs; `defaults` are changed as `core.options.with_defaults` does. NotFound, BadRequest."""

    def delete_image(self, name: str, owner_id: int | None = None) -> Image:
        """NotFound; Conflict while jobs of it are unfinished. Ended jobs stay and keep its name."""

    # -- workers -------------------------------------------------------------------------------
    def add_worker(self, worker_id: WorkerId, name: str, registered_by: str, token_hash: bytes, now: float) -> None:
        """Conflict if a worker that was not removed has the name, or any has it as its id."""

    def worker_by_token(self, token_hash: bytes) -> WorkerRecord | None:
        """None also for removed workers."""

    def workers(self) -> list[WorkerRecord]:
        """Without the removed ones, by name."""

    def seen(self, workers: Sequence[WorkerId], now: float) -> None: ...
    def remove_worker(self, name_or_id: str) -> WorkerRecord:
        """Its token stops to hold. Its jobs are the caller's to end. NotFound."""

    def set_drained(self, name_or_id: str, drained: bool) -> WorkerRecord:
        """False ends a quarantine too. NotFound."""

    def enrol_slots(self, worker: WorkerId, slots: int, more: bool = False) -> None:
        """How many it may use, where nothing is known of that; `more`: also where it may use fewer."""

    def set_quarantine(self, worker: WorkerId, why: str | None, until: float) -> None:
        """None ends it."""
