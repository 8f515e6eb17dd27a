"""What workers say about images."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog

from hecaton.core.errors import HecatonError
from hecaton.core.model import WorkerId
from hecaton.server.fleet.images.pulls import Pulls
from hecaton.server.fleet.images.versions import Versions
from hecaton.server.tasks import Tasks
from hecaton.wire.channel import Have, Pulled, Resolved

_log = structlog.get_logger("hecaton.images")


class ImageNews:
    """On the server's event loop. `pin`: keep the digest of an image of which none is known; others use it, too.
    `kick`: hand out what waits. `knows`: is there an image of this name? What workers say of others is forgotten."""

    def __init__(
        self,
        versions: Versions,
        pulls: Pulls,
        pin: Callable[[str, str], Awaitable[None]],
        kick: Callable[[], None],
        knows: Callable[[str], bool],
    ) -> None:
        self._versions, self._pulls, self._pin, self._kick, self._knows = versions, pulls, pin, kick, knows
        self._tasks = Tasks()

    def hear(self, worker: WorkerId, message: Resolved | Pulled | Have) -> None:
        match message:
            case Resolved():
                self._versions.answered(worker, message)
            case Pulled(name, digest):
                self._tasks.start(self._keep(name, digest))
            case Have(names):
                for name in filter(self._knows, names):
                    self._pulls.has(worker, name)
                self._kick()

    def runs(self, worker: WorkerId, image: str | None) -> None:
        """A container of it has come up there."""
        if image is not None and self._knows(image):
            self._pulls.has(worker, image)

    def starts_anew(self, worker: WorkerId) -> None:
        """Its machine may have a network, a login or an image that it had not before."""
        self._pulls.forget(worker)

    async def _keep(self, name: str, digest: str) -> None:
        try:
            await self._pin(name, digest)
        except HecatonError as error:  # with the next pull, then
            _log.warning("Could not keep the digest of an image", image=name[:255], error=str(error))
