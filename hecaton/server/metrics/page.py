"""The one page of the metrics' own port."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.types import ASGIApp, Receive, Scope, Send

from hecaton.core.errors import HecatonError, NotFound, WrongMethod
from hecaton.server.metrics.collector import Metrics
from hecaton.server.web.http import send_error

PATH = "/metrics"


class Beside:
    """An application, and the metrics for whoever has come to their port: both are served by the same rules."""

    def __init__(self, application: ASGIApp, metrics: Metrics, port: int) -> None:
        self._application, self._metrics, self._port = application, metrics, port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["server"][1] != self._port:
            await self._application(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
        else:
            await self._answer(scope, send)

    async def _answer(self, scope: Scope, send: Send) -> None:
        try:
            if scope["path"] != PATH:
                raise NotFound(f"there is nothing here but {PATH}")
            if scope["method"] not in ("GET", "HEAD"):
                raise WrongMethod(f"{PATH} is only read", allowed=("GET", "HEAD"))
            text = await self._metrics.text()
        except HecatonError as error:
            await send_error(send, error)
            return
        headers = [(b"content-type", CONTENT_TYPE_LATEST.encode()), (b"content-length", str(len(text)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": text})
