"""The root of everything: settings -> files, composition, routes -> one ASGI application, served by uvicorn."""

from __future__ import annotations

import asyncio
import fcntl
import gc
import os
import secrets
import socket
from collections.abc import AsyncIterator, Callable
from functools import cache, partial
from types import FrameType
from typing import IO, cast

import msgspec
import structlog
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.protocol import CLOSED, CLOSING

from hecaton.core.errors import BadRequest, Conflict, HecatonError
from hecaton.core.model import Role
from hecaton.server.accounts.auth import WORKER_PREFIX, Passwords, Tokens, load_secret
from hecaton.server.accounts.permissions import Action
from hecaton.server.clock import Clock
from hecaton.server.composition import Composition, identify
from hecaton.server.connections import Connections, memory_here
from hecaton.server.files.checkpoints import JobCheckpoints
from hecaton.server.files.files_api import FilesApi
from hecaton.server.files.folders import JobFolders
from hecaton.server.files.folders_api import FoldersApi
from hecaton.server.files.kept import JobFiles
from hecaton.server.forwarded import Proxies
from hecaton.server.metrics.statistics import Statistics
from hecaton.server.resources import Resources
from hecaton.server.settings import BOTH_FAMILIES, Settings
from hecaton.server.web.api import Api
from hecaton.server.web.batch_api import BatchApi
from hecaton.server.web.gate import Gate
from hecaton.server.web.handshake import Handshakes
from hecaton.server.web.http import Call, Route, Stream
from hecaton.server.web.openapi import describe
from hecaton.server.web.protocol import Patient, Reading, most_connections, patient
from hecaton.server.web.routing import Application, Prefixed
from hecaton.server.web.usage_api import UsageApi
from hecaton.store.blobs import FolderBlobs
from hecaton.store.instance import Instance
from hecaton.store.sqlite.database import SqliteDatabase, open_database
from hecaton.store.sqlite.file import without_locks
from hecaton.wire.api import NewUser
from hecaton.wire.bounds import MAX_FRAME
from hecaton.wire.channel import PATH
from hecaton.wire.reach.address import parse

ADMIN = "admin"

_log = structlog.get_logger("hecaton.app")

GARBAGE = 20_000
"""New objects after which the collector looks for cycles among them: a few MiB."""

IDLE = 75
"""Seconds that a connection may be kept without a request."""

STOP_SECONDS = 8
"""Answers in flight get this long after SIGTERM; docs/reliability.md (C7) allows ten seconds in all."""


class Announcement(msgspec.Struct, frozen=True):
    """What there is to say once the server answers. `admin_password`: set if one had to be invented;
    `password_ignored`: one was given, and there is an admin with another."""

    settings: Settings
    port: int
    admin_password: str | None
    password_ignored: bool = False


class Server:
    """The composition with HTTP around it and files below. Built, then `start`ed in the event loop that serves it.

    One per folder: the lock is taken before anything is read, and goes last. `parts` is there from `start` on; nothing
    is served before its memory is what the store has, and the store is closed after all who write to it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        settings.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = _lock(settings)
        self.statistics = Statistics(settings.metrics is not None)
        timed = self.statistics.timed if self.statistics.on else None
        self.database: SqliteDatabase = open_database(settings.folder / "hecaton.db", timed)
        self.passwords = Passwords()
        self.connections = Connections(most_connections(), Proxies(settings.trusted_proxies), memory_here())
        self.parts: Composition
        self._working: asyncio.Future[None] | None = None

    async def start(self) -> Application:
        settings = self.settings
        secret = load_secret(settings.folder / "secret")
        server_id = await identify(self.database)
        blobs = FolderBlobs(settings.folder / "blobs")
        resources = Resources(self.database, blobs, Clock(), settings, server_id, self.statistics)
        parts = self.parts = Composition(resources, self.passwords)
        self._tokens = Tokens(secret, server_id, settings.token_life, resources.clock.now)
        self._instance = Instance(settings.folder / "instance", self.database)
        await parts.start(await self._instance.last_known())
        await self._mark()
        self._working = asyncio.ensure_future(parts.run())
        api = Api(
            resources=resources,
            directory=parts.directory,
            logins=parts.logins,
            tokens=self._tokens,
            fleet=parts.fleet,
            workers=parts.workers,
            jobs=parts.jobs,
        )
        files = FilesApi(JobFiles(resources, parts.fleet), JobCheckpoints(resources, parts.fleet))
        folders = FoldersApi(JobFolders(resources, parts.fleet, parts.budget))
        others = [*BatchApi(parts.batches).routes(), *UsageApi(parts.usages).routes()]
        return self._application([*api.routes(), *others, *files.routes(), *folders.routes()])

    async def ensure_admin(self, password: str | None) -> str | None:
        """Make the user `admin` if there is no admin yet. Returns the password if it had to be invented."""
        if self.parts.directory.has_admin:
            return None
        chosen = password or secrets.token_urlsafe(12)
        try:
            await self.parts.directory.create_user(NewUser(ADMIN, chosen, Role.ADMIN))
        except BadRequest as error:
            raise BadRequest(f"HECATON_ADMIN_PASS: {error.message}", error.hint) from error
        return None if password else chosen

    async def is_ignored(self, password: str | None) -> bool:
        """Whether that is not the password of the user `admin`, though there is an admin."""
        directory = self.parts.directory
        if password is None or not directory.has_admin:
            return False
        return not await self.passwords.verify(directory.user_by_name(ADMIN), password)

    def _application(self, routes: list[Route]) -> Application:
        parts = self.parts
        gate = Gate(lambda token: self._tokens.read(token, parts.directory.user), parts.find_worker, WORKER_PREFIX)

        @cache
        def description() -> bytes:  # made when somebody asks for it: no start waits for it
            return msgspec.json.encode(describe(routes, self.settings.root_path))

        async def openapi(call: Call) -> Stream:
            text = await asyncio.to_thread(description)

            async def once() -> AsyncIterator[bytes]:
                yield text

            return Stream(once(), "application/json", len(text))

        every = [*routes, Route("GET", "/openapi.json", Action.SEE_API, openapi, "This description")]
        return Application(every, gate, parts.hub, parts.audit, PATH, parts.channel.serve)

    def closing(self) -> None:
        """SIGTERM arrived: everyone who waits is answered now, workers are sent away."""
        self.parts.hub.close()

    async def _mark(self) -> None:
        try:
            await self._instance.mark(self.parts.resources.clock.now())
        except (OSError, HecatonError) as error:
            _log.warning("An old copy of the database could not be told from it after this", error=str(error))

    async def stop(self) -> None:
        if self._working is not None:
            self._working.cancel()
            await asyncio.gather(self._working, return_exceptions=True)
            await self.parts.channel.close()
            await self._mark()
        await self.database.close()
        self.passwords.close()
        self._lock.close()


def _lock(settings: Settings) -> IO[str]:
    """One server per folder. The lock goes with the process, however it ends."""
    path = settings.folder / "lock"
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip() or "unknown"
        file.close()
        raise Conflict(
            f"another server (process {holder}) already uses {settings.folder}",
            "Stop it first, or give this one a folder of its own: HECATON_HOME=/some/folder hecaton-server",
        ) from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


class _Uvicorn(uvicorn.Server):
    """uvicorn waits for open requests before it runs the application's shutdown; long polls must end before that."""

    def __init__(
        self,
        config: uvicorn.Config,
        started: Callable[[], None],
        closing: Callable[[], None],
        tls: Handshakes | None = None,
    ) -> None:
        super().__init__(config)
        self._on_started, self._on_closing, self._tls = started, closing, tls
        self._accepting: list[asyncio.Task[None]] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        if self._tls is None:
            await super().startup(sockets)
        else:
            await super().startup([])
            made = partial(
                cast("type[Patient]", self.config.http_protocol_class),
                config=self.config,
                server_state=self.server_state,
                app_state=self.lifespan.state,
            )
            self._accepting = [asyncio.ensure_future(self._tls.accept(one, made)) for one in sockets or ()]
        self._on_started()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._on_closing()
        super().handle_exit(sig, frame)
        self._captured_signals.clear()  # uvicorn would raise it again at the end: a crash to systemd

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """uvicorn says goodbye on every WebSocket, and fails on one that the other side is just closing."""
        for accepting in self._accepting:
            accepting.cancel()
        if self._tls is not None:
            self._tls.close()
        for connection in list(self.server_state.connections):
            if isinstance(connection, WebSocketsSansIOProtocol) and connection.conn.state in (CLOSING, CLOSED):
                connection.transport.close()
                self.server_state.connections.discard(connection)
        await super().shutdown(sockets)


async def serve(settings: Settings, admin_password: str | None, say: Callable[[Announcement], None]) -> None:
    """Until SIGTERM or SIGINT. `say` is called once the server answers."""
    another = "--port chooses another port, --host another address."
    listeners = [_listen(settings.host, settings.port, another)]
    if settings.metrics is not None:
        place = parse(settings.metrics)
        listeners.append(_listen(place.host, place.port, "--metrics chooses another place."))
    without_locks()
    server = Server(settings)
    try:
        application: ASGIApp = await server.start()
        if settings.metrics is not None:
            application = _beside_metrics(application, server, *listeners)
        invented = await server.ensure_admin(admin_password)
        ignored = await server.is_ignored(admin_password)
        announcement = Announcement(settings, listeners[0].getsockname()[1], invented, ignored)
        certificate, key = settings.ssl_certfile, settings.ssl_keyfile
        tls = Handshakes(certificate, key, server.connections) if certificate else None
        web = _Uvicorn(_config(server, application), lambda: say(announcement), server.closing, tls)
        _collect_less_often()
        await web.serve(listeners)
    finally:
        await server.stop()
        for listener in listeners:
            listener.close()


def _beside_metrics(application: ASGIApp, server: Server, own: socket.socket, metrics_own: socket.socket) -> ASGIApp:
    from hecaton.server.metrics.collector import Metrics  # prometheus_client takes 70 ms, and most have no use for it
    from hecaton.server.metrics.page import Beside

    port = metrics_own.getsockname()[1]
    if port == own.getsockname()[1]:
        raise Conflict(f"--metrics and --port are both {port}", "Choose another port for one of them.")
    return Beside(application, Metrics(server.parts, server.connections), port)


def _collect_less_often() -> None:
    """What is there at the start stays for good, and few cycles come after it: looking for some at every 700 objects
    costs 7 % of a job."""
    # hot: benchmarks/throughput.py
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE, 20, 20)


def _listen(host: str, port: int, hint: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    both = host == BOTH_FAMILIES and socket.has_dualstack_ipv6()
    try:
        return socket.create_server((host, port), family=family, backlog=2048, dualstack_ipv6=both)
    except OSError as error:
        raise Conflict(
            f"cannot listen on {host} port {port}: {error.strerror}",
            f"Is another server running there? {hint}",
        ) from None


def _config(server: Server, application: ASGIApp) -> uvicorn.Config:
    settings = server.settings
    return uvicorn.Config(
        Prefixed(application, settings.root_path) if settings.root_path else application,
        interface="asgi3",
        http=patient(settings, server.connections),
        ws=Reading,
        ws_max_size=MAX_FRAME,
        ws_ping_interval=None,  # the channel has its own heartbeat
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # `server.forwarded` reads them
        timeout_keep_alive=IDLE,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
