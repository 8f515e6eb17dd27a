"""Bounds on connections: how many there may be, and how long somebody may take to say what they want. Used by `app`.

Without them one machine that opens connections and sends a byte now and then takes the server from everybody else.
"""

from __future__ import annotations

import asyncio
import resource

from hecaton.server.replies import Replying
from hecaton.server.settings import Settings

SLOWEST = 8 * 1024
"""Bytes per second below which a request body is given up, once it has had `request_timeout` (half a dozen times
slower than an old modem line)."""

_RESERVED = 512
"""File descriptors kept for the database, blobs, and the answers that say that there is no room."""


def patient(settings: Settings) -> type[asyncio.Protocol]:
    """uvicorn's protocol for HTTP/1.1, which by itself waits for ever for the rest of a request."""

    class Patient(Replying):
        """Looks at the connection once per `request_timeout`; requests that are on time cost nothing."""

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._seen: tuple[str, int] | None = None
            self._looks = 0
            self._look_later()

        def connection_lost(self, exc: Exception | None) -> None:
            self._timer.cancel()
            super().connection_lost(exc)

        def _look_later(self) -> None:
            self._timer = self.loop.call_later(settings.request_timeout, self._look)

        def _look(self) -> None:
            if self not in self.connections:
                return  # it is a worker's channel by now
            unfinished = self._unfinished()
            self._looks = self._looks + 1 if unfinished is not None and unfinished == self._seen else 0
            self._seen = unfinished
            if self._looks and self._looks * settings.request_timeout > self._allowed():
                self.transport.close()
            else:
                self._look_later()

        def _unfinished(self) -> tuple[str, int] | None:
            """What has not arrived in full: the head of a request, or the body of this one; None: nothing."""
            cycle = self.cycle
            if cycle is None or cycle.response_complete:
                return None if self.timeout_keep_alive_task is not None else ("head", id(cycle))
            return ("body", id(cycle)) if cycle.more_body else None

        def _allowed(self) -> float:
            """Seconds from the first look on."""
            if self._seen is None or self._seen[0] == "head":
                return 0.0
            length = dict(self.cycle.scope["headers"]).get(b"content-length", b"")
            size = int(length) if length.isdigit() else settings.max_payload
            return min(size, max(settings.max_payload, settings.max_result)) / SLOWEST

    return Patient


def most_connections() -> int:
    """As many as this process may have files open, less what it needs itself; raises the limit as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    usable = 1 << 20 if hard == resource.RLIM_INFINITY else hard
    return usable - min(_RESERVED, usable // 2)
