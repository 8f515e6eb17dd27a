"""What workers say about images."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog

from hecaton.core.errors import HecatonError
from hecaton.core.model import WorkerId
from hecaton.server.fleet.images.versions import Versions
from hecaton.server.tasks import Tasks
from hecaton.wire.channel import Have, Pulled, Resolved

_log = structlog.get_logger("hecaton.images")


class ImageNews:
    """On the server's event loop. `pin`: keep the digest of an image of which none is known; others use it, too."""

    def __init__(self, versions: Versions, pin: Callable[[str, str], Awaitable[None]]) -> None:
        self._versions, self._pin = versions, pin
        self._tasks = Tasks()

    def hear(self, worker: WorkerId, message: Resolved | Pulled | Have) -> None:
        match message:
            case Resolved():
                self._versions.answered(worker, message)
            case Pulled(name, digest):
                self._tasks.start(self._keep(name, digest))

    async def _keep(self, name: str, digest: str) -> None:
        try:
            await self._pin(name, digest)
        except HecatonError as error:  # with the next pull, then
            _log.warning("Could not keep the digest of an image", image=name[:255], error=str(error))
