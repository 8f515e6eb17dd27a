"""What the name of an image means: its registry is asked, and where that is closed, the workers with their logins."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from hecaton.core.errors import Conflict
from hecaton.core.image_versions import SHOWN, version_lines
from hecaton.core.references import Reference, is_digest
from hecaton.server.accounts.registry import Checked
from hecaton.wire.api import ImageVersion


class Machines(Protocol):
    """The workers, as far as images are concerned: `server.fleet.images.versions`."""

    async def on_machines(self, name: str) -> list[ImageVersion]: ...
    async def at_registry(self, name: str) -> list[ImageVersion]: ...


class Resolver:
    """`check` asks a registry without a login, and where it may, in a private network too."""

    def __init__(
        self, check: Callable[[Reference, bool], Awaitable[Checked]], machines: Machines, now: Callable[[], float]
    ) -> None:
        self._check, self._machines, self._now = check, machines, now

    async def first(self, name: str, reference: Reference) -> Checked:
        """For a new image. Raises NotFound if its registry says that there is none."""
        checked = await self._check(reference, True)
        if not checked.wants_login:
            return checked
        digest = _digest(await self._machines.at_registry(name))
        return checked if digest is None else Checked(digest)

    async def again(self, name: str, reference: Reference, *, private: bool) -> str:
        """Its digest now. Conflict, with what each machine has, if nobody can tell; NotFound. `private`: who asks may
        name a registry in a private network, or on the server itself; else the workers alone ask that one."""
        checked = await self._check(reference, private)
        if checked.digest is not None:
            return checked.digest
        versions = await self._machines.at_registry(name)
        digest = _digest(versions)
        if digest is None:
            raise self._unknown(reference, checked, versions)
        return digest

    def _unknown(self, reference: Reference, checked: Checked, versions: Sequence[ImageVersion]) -> Conflict:
        text = f"not refreshed: {checked.warning}. Nobody here knows what {reference.tag!r} is now"
        if not versions:
            return Conflict(f"{text}, and no worker is connected whose login could tell.", _BUILT)
        lines = "\n".join(version_lines(versions, self._now()))
        names = ", ".join(version.worker for version in versions[:SHOWN])
        login = f"Log in to the registry on one of {names} (docker login, as the user that the worker runs as)"
        return Conflict(
            f"{text}. Jobs go on with what each machine has:\n{lines}", f"{login}, and refresh again. {_BUILT}"
        )

    async def on_machines(self, name: str) -> list[ImageVersion]:
        return await self._machines.on_machines(name)


_BUILT = "An image that is built or loaded on a machine needs no refresh: it is used there with the next job."


def _digest(versions: Sequence[ImageVersion]) -> str | None:
    found = (version.digest for version in versions)
    return next((digest for digest in found if digest is not None and is_digest(digest)), None)
