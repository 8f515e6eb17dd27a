"""All endpoints as one ASGI application: which of them a request means."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from re import Pattern

from starlette.routing import compile_path
from starlette.types import ASGIApp, Receive, Scope, Send

from hecaton.core.errors import HecatonError, NotFound, NoUpgrade, WrongMethod
from hecaton.server.accounts.audit import Audit
from hecaton.server.hub import Hub
from hecaton.server.web.gate import Gate
from hecaton.server.web.http import Endpoint, Route, send_error
from hecaton.wire.errors import IN_NGINX


class Application:
    """`serve` gets the WebSockets that are opened at `channel`."""

    # hot: benchmarks/throughput.py - Starlette's application, with five layers around each call and each piece of an
    # answer, cost 30 us of a job's 400

    def __init__(
        self, routes: Sequence[Route], gate: Gate, hub: Hub, audit: Audit, channel: str, serve: ASGIApp
    ) -> None:
        self.routes = routes
        self._channel, self._serve = channel, serve
        self._exact: dict[tuple[str, str], Endpoint] = {}
        self._patterns: list[tuple[str, Pattern[str], Endpoint]] = []
        for route in routes:
            endpoint = Endpoint(route, gate.admit, hub, audit)
            if "{" in route.path:
                self._patterns.append((route.method, compile_path(route.path)[0], endpoint))
            else:
                self._exact[route.method, route.path] = endpoint

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """What is to be awaited: a layer around it would be passed with each turn of the loop."""
        if scope["type"] == "websocket":
            return self._open(scope, receive, send)
        method, path = scope["method"], scope["path"]
        endpoint = self._find(method, path, scope)
        if endpoint is None and method == "HEAD":
            endpoint = self._find("GET", path, scope)
        if endpoint is None:
            return send_error(send, self._missing(method, path))
        return endpoint(scope, receive, send)

    def _find(self, method: str, path: str, scope: Scope) -> Endpoint | None:
        endpoint = self._exact.get((method, path))
        if endpoint is not None:
            return endpoint
        for its_method, pattern, candidate in self._patterns:
            if its_method == method and (match := pattern.match(path)):
                scope["path_params"] = match.groupdict()
                return candidate
        return None

    def _missing(self, method: str, path: str) -> HecatonError:
        if path == self._channel:
            return NoUpgrade(
                "this is the workers' connection, a WebSocket, and the request has no Upgrade to one",
                f"A proxy in front has to pass it on. {IN_NGINX}",
            )
        allowed = {its for its, known in self._exact if known == path}
        allowed.update(its for its, pattern, _ in self._patterns if pattern.match(path))
        if not allowed:
            return NotFound(f"{method[:20]} {path[:200]} is not part of the API", "See /openapi.json")
        names = tuple(sorted({*allowed, "HEAD"} if "GET" in allowed else allowed))
        return WrongMethod(f"{method[:20]} {path[:200]}: there is only {', '.join(names)}", "See /openapi.json", names)

    async def _open(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == self._channel:
            await self._serve(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1000})


class Prefixed:
    """An application that is below a path, too: some proxies take that away before they pass a request on, others do
    not."""

    def __init__(self, application: ASGIApp, prefix: str) -> None:
        self._application, self._prefix = application, prefix

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["path"].startswith(f"{self._prefix}/"):
            scope["path"] = scope["path"][len(self._prefix) :]
        return self._application(scope, receive, send)
