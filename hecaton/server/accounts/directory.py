"""Use cases around users, images and workers. Users and images are few and read on every call: they are kept in memory,
behind the store, and changed only after the store has changed."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable

import msgspec

from hecaton.core.errors import BadRequest, Conflict, Forbidden, NotFound, TooMany
from hecaton.core.model import Image, Role, User, WorkerId, WorkerRecord
from hecaton.core.options import NOTHING_ASKED, with_defaults
from hecaton.core.references import is_digest, parse
from hecaton.server.accounts.auth import Caller, Passwords, ended, new_worker_token
from hecaton.server.accounts.entries import KEPT_UNUSED, MOST_OWN, Entries
from hecaton.server.accounts.permissions import Action
from hecaton.server.accounts.registry import Checked
from hecaton.server.accounts.resolver import Resolver
from hecaton.server.clock import Clock, uuid7
from hecaton.store.port import Database, Store
from hecaton.wire import api

MAX_NAME = 64
OWN_JOBS = "For your own jobs: hecaton run -e KEY=VALUE FILE"
NAME = re.compile(r"[A-Za-z0-9_@][A-Za-z0-9._@-]*")


class Directory:
    """Users and images, in memory for every look-up and in the store for good. On the loop.

    Memory says what the store has said: a change is written first, and a failed write changes nothing here. `resolver`
    asks registries and workers; nothing else here waits for anybody outside. `revoke` hears of each user whose rights
    have changed, `gone` of each name that means no image any more."""

    def __init__(
        self,
        database: Database,
        passwords: Passwords,
        clock: Clock,
        resolver: Resolver,
        entries: Entries,
        revoke: Callable[[int], None],
        gone: Callable[[str], None],
    ) -> None:
        self._database = database
        self._passwords = passwords
        self._clock = clock
        self._resolver = resolver
        self._entries = entries
        self._revoke, self._gone = revoke, gone
        self._users: dict[int, User] = {}
        self._asking: set[int] = set()  # who waits for what a registry says

    async def load(self) -> None:
        users, images = await self._database.read(lambda store: (store.users(), store.images()))
        self._users = {user.id: user for user in users}
        self._entries.load(images)

    # -- users ---------------------------------------------------------------------------------

    def user(self, user_id: int) -> User | None:
        return self._users.get(user_id)

    def user_by_name(self, name: str) -> User | None:
        """Without case. A name that was given before names were ASCII is found in each of its Unicode forms, after
        those that are written just so."""
        if len(name) > MAX_NAME:  # nobody's; and what NFKC costs rises with the square of the length
            return None
        for key in (str.casefold, _compatible):
            wanted = key(name)
            found = next((user for user in self._users.values() if key(user.name) == wanted), None)
            if found is not None:
                return found
        return None

    def require(self, caller: Caller) -> None:
        """Unauthenticated if he would not be let in any more with the token and the role that he came with."""
        user = self._users.get(caller.user_id)
        if user is None or user.token_version != caller.version or user.role is not caller.role:
            raise ended()

    @property
    def has_admin(self) -> bool:
        return any(user.role is Role.ADMIN for user in self._users.values())

    async def create_user(self, request: api.NewUser, caller: Caller | None = None) -> api.UserView:
        """`caller`: who asks for it, but for the first admin."""
        name = checked_name(request.username, "user")
        if (known := self.user_by_name(name)) is not None:
            raise Conflict(f"there is a user {known.name!r} already")
        hashed = await self._passwords.hash(request.password)
        if caller is not None:
            self.require(caller)
        now = self._clock.now()
        user = await self._database.write(lambda store: store.create_user(name, hashed, request.role, now))
        self._users[user.id] = user
        return _user_view(user)

    def everybody(self) -> list[User]:
        return list(self._users.values())

    def users(self) -> list[api.UserView]:
        return [_user_view(user) for user in sorted(self._users.values(), key=lambda user: user.name)]

    def require_settable(self, caller: Caller, name: str) -> User | None:
        """The user of that name, if there is one. Forbidden unless the caller may change his password."""
        known = self.user_by_name(name)
        if not caller.may(Action.SET_PASSWORD, known.id if known else None):
            raise Forbidden("only an admin may change another user's password")
        return known

    async def set_password(self, caller: Caller, name: str, password: str) -> None:
        known = self.require_settable(caller, name)
        stored = known.name if known is not None else name
        hashed = await self._passwords.hash(password, f"user {caller.user_id}")
        self.require(caller)
        user = await self._database.write(lambda store: store.set_password(stored, hashed))
        self._users[user.id] = user
        self._revoke(user.id)

    async def change_user(self, name: str, change: api.UserChange) -> api.UserView:
        """What he began under another role ends; his tokens hold for the new one. Conflict for the last admin,
        BadRequest where nothing is to change."""
        known = self.user_by_name(name)
        stored = known.name if known is not None else name
        role, uid = change.role, change.uid
        if role is None and isinstance(uid, msgspec.UnsetType):
            raise BadRequest("nothing is to change", "A user has a role and a uid.")

        def write(store: Store) -> User:
            changed = None if role is None else store.set_role(stored, role)
            if not isinstance(uid, msgspec.UnsetType):
                changed = store.set_uid(stored, uid)
            assert changed is not None
            return changed

        user = await self._database.write(write)
        self._users[user.id] = user
        if known is None or known.role is not user.role:
            self._revoke(user.id)
        return _user_view(user)

    async def delete_user(self, caller: Caller, name: str) -> None:
        known = self.user_by_name(name)
        if known is not None and known.id == caller.user_id:
            raise Conflict("you cannot delete yourself", "Let another admin do it.")
        stored = known.name if known is not None else name
        user = await self._database.write(lambda store: store.delete_user(stored))
        self._users.pop(user.id, None)
        self._forget_images(self._entries.of(user.id))
        self._revoke(user.id)

    # -- images --------------------------------------------------------------------------------

    def image(self, image_id: int) -> Image | None:
        return self._entries.get(image_id)

    async def image_of(self, caller: Caller, owner_id: int, name: str | None) -> Image:
        """For a job of that owner; no name: the default one. Raises as `Entries.name_to_use`, `Store.use_image`."""
        # hot: benchmarks/throughput.py
        known = self._entries.usable(owner_id, name, self._clock.now())
        return known if known is not None else await self._use_image(caller, owner_id, name)

    async def _use_image(self, caller: Caller, owner_id: int, name: str | None) -> Image:
        """One that he has not used yet, or not for a day. No registry is asked: the workers do, when they need it."""
        chosen, owner = self._entries.name_to_use(caller, owner_id, name)
        now = self._clock.now()
        used = await self._database.write(
            lambda store: store.use_image(chosen, owner, now, now - KEPT_UNUSED, MOST_OWN)
        )
        self._entries.keep(used.image)
        self._forget_images(used.forgotten)
        self.require(caller)
        return used.image

    async def add_image(self, request: api.NewImage, caller: Caller) -> api.ImageView:
        reference = parse(request.name)
        if (known := self._entries.registered(request.name)) is not None:
            same = "" if known.name == request.name else f" as {known.name!r}, which is the same image"
            raise Conflict(
                f"image {request.name!r} is registered already{same}",
                f"To resolve its tag again: hecaton image update {known.name} --refresh",
            )
        defaults = with_defaults(NOTHING_ASKED, request.defaults)
        checked = Checked(reference.digest)
        if request.verify:
            checked = await self._resolver.first(request.name, reference)
            self.require(caller)
        now = self._clock.now()
        image = await self._database.write(
            lambda store: store.add_image(request.name, checked.digest, request.description, now, defaults)
        )
        self._entries.keep(image)
        return self._image_view(caller, image, checked.warning)

    async def update_image(self, name: str, change: api.ImageChange, caller: Caller) -> api.ImageView:
        known = self._entries.find(caller, name)
        if change.env is not None or change.description is not None or change.defaults or known.owner_id is None:
            refresh_only = change.refresh and change.env is None and change.description is None and not change.defaults
            instead = f"Ask an admin: hecaton image update {known.name} --refresh" if refresh_only else OWN_JOBS
            self._entries.require_settable(caller, known, instead)
        _check_env(change.env)
        with_defaults(known.defaults, change.defaults or {})  # before a registry is asked
        digest = await self._digest_now(caller, known) if change.refresh else None
        self.require(caller)  # a registry and the workers may have taken seconds
        now = self._clock.now()
        image = await self._database.write(
            lambda store: store.update_image(
                known.name,
                now,
                env=change.env,
                description=change.description,
                digest=digest,
                defaults=change.defaults,
                owner_id=known.owner_id,
            )
        )
        self._entries.keep(image)
        return self._image_view(caller, image)

    async def _digest_now(self, caller: Caller, image: Image) -> str:
        """TooMany while another question of the same user is out: each may take seconds, of workers as well."""
        if caller.user_id in self._asking:
            raise TooMany("another image of yours is being refreshed", "Refresh one after the other.")
        self._asking.add(caller.user_id)
        try:
            private = caller.may(Action.CHANGE_IMAGES)
            return await self._resolver.again(image.name, parse(image.name), private=private)
        finally:
            self._asking.discard(caller.user_id)

    async def pin_image(self, name: str, digest: str) -> None:
        """A worker has pulled what nobody knew the digest of: the others use the same from now on."""
        now = self._clock.now()
        if self._entries.has(name) and is_digest(digest):
            for image in await self._database.write(lambda store: store.pin_image(name, digest, now)):
                self._entries.keep(image)

    async def delete_image(self, name: str, caller: Caller) -> None:
        known = self._entries.find(caller, name)
        if known.owner_id is None:
            self._entries.require_settable(caller, known, f"Ask an admin: hecaton image delete {known.name}")
        await self._database.write(lambda store: store.delete_image(known.name, known.owner_id))
        self._forget_images([known.id])

    def _forget_images(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            image = self._entries.get(number)
            self._entries.drop(number)
            if image is not None and not self._entries.has(image.name):
                self._gone(image.name)

    def images(self, caller: Caller) -> list[api.ImageView]:
        """Those that everybody may use, and his own."""
        return [self._image_view(caller, image) for image in self._entries.visible(caller.user_id)]

    async def show_image(self, caller: Caller, name: str) -> api.ImageView:
        """With what each worker has under that name."""
        image = self._entries.find(caller, name)
        view = self._image_view(caller, image)
        return msgspec.structs.replace(view, versions=tuple(await self._resolver.on_machines(image.name)))

    def _image_view(self, caller: Caller, image: Image, warning: str | None = None) -> api.ImageView:
        owner = self._users.get(image.owner_id) if image.owner_id is not None else None
        return api.ImageView(
            image.name,
            image.digest,
            image.description,
            image.env if caller.may(Action.SEE_ENVIRONMENT) else None,
            image.env_revision,
            image.created_at,
            image.updated_at,
            warning,
            defaults=image.defaults,
            owner=owner.name if owner is not None else None,
        )

    # -- workers -------------------------------------------------------------------------------

    async def register_worker(self, caller: Caller, name: str) -> api.WorkerCredentials:
        clean = checked_name(name, "worker")
        token, hashed = new_worker_token()
        now = self._clock.now()
        worker_id = WorkerId(uuid7(now))
        await self._database.write(lambda store: store.add_worker(worker_id, clean, caller.name, hashed, now))
        return api.WorkerCredentials(worker_id, clean, token)

    async def worker_by_token(self, token_hash: bytes) -> WorkerRecord | None:
        return await self._database.read(lambda store: store.worker_by_token(token_hash))

    async def workers(self) -> list[WorkerRecord]:
        return await self._database.read(lambda store: store.workers())

    async def worker(self, name: str) -> WorkerRecord:
        """By its name, or its id. NotFound."""
        found = next((worker for worker in await self.workers() if name in (worker.name, worker.id)), None)
        if found is None:
            raise NotFound(f"there is no worker {name!r}", "hecaton worker list shows them.")
        return found

    async def remove_worker(self, name: str) -> WorkerRecord:
        return await self._database.write(lambda store: store.remove_worker(name))


def checked_name(text: str, what: str) -> str:
    """Names appear in URLs, logs, tables and file names, and no two may look alike: ASCII, no spaces or slashes."""
    if not NAME.fullmatch(text) or len(text) > MAX_NAME:
        raise BadRequest(
            f"{text[:80]!r} is not a name for a {what}",
            f"Use A to Z, a to z, digits, '.', '_', '@' and '-', at most {MAX_NAME}, beginning with a letter or digit.",
        )
    return text


def _compatible(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold()


def _check_env(env: dict[str, str] | None) -> None:
    for key in env or {}:
        if not key or "=" in key or "\0" in key or "\0" in (env or {})[key]:
            raise BadRequest(f"{key!r} is not a name for an environment variable")


def _user_view(user: User) -> api.UserView:
    return api.UserView(user.name, user.role, user.created_at, user.uid)
