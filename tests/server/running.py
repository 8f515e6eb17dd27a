"""A real server for tests: real HTTP on loopback, a real SQLite file, inside the test's own event loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import uvicorn

from hecaton.server.app import Server, _config, _Uvicorn
from hecaton.server.settings import Settings
from hecaton.server.web.http import Route
from tests.server.people import Person
from tests.server.scripted_worker import ScriptedWorker

PASSWORD = "mysecurepassword"
IMAGE = "team/app:1"


class _Web(_Uvicorn):
    """uvicorn without its ticks of 0.1 s: they would be most of a short test."""

    def __init__(self, config: uvicorn.Config, closing: Callable[[], None]) -> None:
        super().__init__(config, lambda: None, closing)
        self.enough = asyncio.Event()

    async def main_loop(self) -> None:
        await self.on_tick(0)
        await self.enough.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Nor its pause of 0.1 s for what is still being sent, when all clients have gone."""
        for _ in range(20):
            if not self.server_state.connections and not self.server_state.tasks:
                for server in self.servers:
                    server.close()
                return
            await asyncio.sleep(0.001)
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals belong to pytest here; tests of signals run the server as a process."""
        yield


class Running:
    """A started server with its admin, and the people and workers of a test."""

    def __init__(self, server: Server, routes: list[Route], url: str, session: aiohttp.ClientSession) -> None:
        self.server = server
        self.routes = routes
        self.url = url
        self.session = session
        self.nobody = Person(session, url)
        self.admin = self.nobody
        self.workers: list[ScriptedWorker] = []

    async def user(self, name: str, role: str = "user") -> Person:
        await self.admin.must("POST", "/v1/users", {"username": name, "password": PASSWORD, "role": role})
        return await self.nobody.login(name, PASSWORD)

    async def image(self, name: str = IMAGE, **change: Any) -> str:
        await self.admin.must("POST", "/v1/images", {"name": name, "verify": False})
        if change:
            await self.admin.must("PATCH", f"/v1/images/{name}", change)
        return name

    def later(self, seconds: float) -> None:
        """The server's clock is so much later: what a test is about need not be waited for. Leases run out too."""
        self.server.parts.resources.clock._offset += seconds

    async def enrol(self, name: str) -> ScriptedWorker:
        """Registered, not connected."""
        made = await self.admin.must("POST", "/v1/workers", {"name": name})
        worker = ScriptedWorker(self.session, self.url, made["token"])
        self.workers.append(worker)
        return worker

    async def worker(self, name: str = "w1", **hello: Any) -> ScriptedWorker:
        worker = await self.enrol(name)
        await worker.connect(**hello)
        return worker


@asynccontextmanager
async def running(folder: Path, **settings: Any) -> AsyncIterator[Running]:
    """From start to clean stop. Long leases unless told otherwise: a busy machine must not lose workers."""
    defaults = {"host": "127.0.0.1", "heartbeat": 0.2, "suspect_after": 15.0, "lost_after": 30.0}
    server = Server(Settings(folder=folder, **{**defaults, **settings}))
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
        web = None
        try:
            application = await server.start()
            await server.ensure_admin(PASSWORD)
            web = _Web(_config(server, application), server.closing)
            serving = asyncio.create_task(web.serve([listener]))
            async with aiohttp.ClientSession() as session:
                found = Running(
                    server, list(application.routes), f"http://127.0.0.1:{listener.getsockname()[1]}", session
                )
                found.admin = await found.nobody.login("admin", PASSWORD)
                try:
                    yield found
                finally:
                    for worker in found.workers:
                        await worker.gone()
            server.closing()
            web.enough.set()
            await serving
        finally:
            await server.stop()
