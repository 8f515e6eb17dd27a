"""Which image a name means, and for whom: a registered one is everybody's, any other one is his who uses it.

Two users who use the same reference have two images, which know nothing of each other; where one of that name is
registered, it goes first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec

from hecaton.core.errors import Forbidden, NotFound
from hecaton.core.model import Image
from hecaton.core.references import parse, same_repository
from hecaton.server.accounts.auth import Caller
from hecaton.server.accounts.permissions import Action
from hecaton.server.settings import DAY, LISTED, Settings

MOST_OWN = 200
"""Images of one user that nobody has registered."""

KEPT_UNUSED = 30 * DAY
"""Seconds for which they stay when they are not used; those that he removes count as long."""

TOUCHED_AFTER = DAY
"""Seconds after which another use is written down."""


class Entries:
    """In memory, as the store has said. On the loop."""

    def __init__(self, settings: Settings) -> None:
        self._only_listed = settings.images == LISTED
        self.default = settings.default_image
        self._timeout = settings.default_timeout
        self._images: dict[int, Image] = {}
        self._registered: dict[str, Image] = {}
        self._own: dict[tuple[int, str], Image] = {}
        self._named: Counter[str] = Counter()

    def load(self, images: Iterable[Image]) -> None:
        for image in images:
            self.keep(image)

    def keep(self, image: Image) -> None:
        self._named[image.name] += image.id not in self._images
        self._images[image.id] = image
        if image.owner_id is None:
            self._registered[image.name] = image
        else:
            self._own[image.owner_id, image.name] = image

    def drop(self, image_id: int) -> None:
        image = self._images.pop(image_id, None)
        if image is None:
            return
        self._named[image.name] -= 1
        if not self._named[image.name]:
            del self._named[image.name]
        if image.owner_id is None:
            del self._registered[image.name]
        else:
            del self._own[image.owner_id, image.name]

    def get(self, image_id: int) -> Image | None:
        return self._images.get(image_id)

    def as_used(self, image_id: int) -> Image | None:
        """As its jobs have it: of what neither they nor the image ask for, what the server says."""
        image = self._images.get(image_id)
        if image is None or self._timeout is None:
            return image
        asked = msgspec.structs.replace(image.defaults, timeout=self._timeout)
        return msgspec.structs.replace(image, defaults=asked)

    def has(self, name: str) -> bool:
        """Anybody's."""
        return name in self._named

    def registered(self, name: str) -> Image | None:
        """`name` and `name:latest` are the same image."""
        return self._registered.get(name) or self._registered.get(_other(name))

    def usable(self, owner_id: int, name: str | None, now: float) -> Image | None:
        """What he may use without further ado. None: it is to be written down first that he does, once a day."""
        # hot: benchmarks/throughput.py - with every job, and mostly it is registered
        name = self.default if name is None else name
        image = self._registered.get(name)
        if image is not None:
            return image
        image = self._seen(owner_id, name)
        fresh = image is not None and (image.owner_id is None or now - image.used_at < TOUCHED_AFTER)
        return image if fresh else None

    def _seen(self, owner_id: int, name: str) -> Image | None:
        image = self.registered(name)
        if image is not None or self._only_listed:
            return image
        return self._own.get((owner_id, name)) or self._own.get((owner_id, _other(name)))

    def visible(self, owner_id: int) -> list[Image]:
        """By name; a registered one stands in the place of an own one."""
        own = {} if self._only_listed else {name: image for (of, name), image in self._own.items() if of == owner_id}
        return [image for _, image in sorted({**own, **self._registered}.items())]

    def of(self, owner_id: int) -> list[int]:
        return [image.id for (of, _), image in self._own.items() if of == owner_id]

    def find(self, caller: Caller, name: str) -> Image:
        """To look at or to change. NotFound."""
        image = self._seen(caller.user_id, name)
        if image is None:
            raise NotFound(f"there is no image {name[:80]!r} here", self._instead(caller, name))
        return image

    def name_to_use(self, caller: Caller, owner_id: int, name: str | None) -> tuple[str, int | None]:
        """By which name whose image it is to be. BadRequest for what is no reference; NotFound where only registered
        ones may be used: there the default one is registered by its first job."""
        name = self.default if name is None else name
        if name == self.default and self._only_listed:
            return name, None
        parse(name)
        if self._only_listed:
            raise NotFound(
                f"image {name[:80]!r} is not registered, and this server takes no other ones (--images listed)",
                self._instead(caller, name),
            )
        image = self._seen(owner_id, name)
        return name if image is None else image.name, owner_id

    def require_settable(self, caller: Caller, image: Image, instead: str) -> None:
        """Forbidden unless the caller may change what an image is for everybody. `instead`: what he can do."""
        if not caller.may(Action.CHANGE_IMAGES):
            what = (
                f"the image {image.name!r}, which is everybody's," if image.owner_id is None else "an image's settings"
            )
            raise Forbidden(f"only an admin changes {what}; {caller.name!r} has the role {caller.role}", instead)
        if image.owner_id is not None:
            raise NotFound(
                f"image {image.name!r} is used but not registered: it has no settings",
                f"Register it: hecaton image new {image.name}",
            )

    def _instead(self, caller: Caller, name: str) -> str:
        found = same_repository(name, (image.name for image in self.visible(caller.user_id)))
        if found is not None:
            return f"Did you mean {found!r}?"
        if caller.may(Action.REGISTER_IMAGES):
            return f"Register it: hecaton image new {name[:255]}"
        if self._only_listed:
            return "Ask an admin to register it. Those that there are: hecaton image list"
        return f"It is here with your first job of it: hecaton run -i {name[:255]} FILE"


def _other(name: str) -> str:
    return name.removesuffix(":latest") if name.endswith(":latest") else f"{name}:latest"
