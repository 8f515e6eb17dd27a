"""A server that a test plays: a real WebSocket and real HTTP, and every word that the worker said."""

from __future__ import annotations

import asyncio
import hashlib
import os
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import msgspec
from aiohttp import WSMsgType, web

from hecaton.core.files import manifest
from hecaton.core.files.manifest import Entry
from hecaton.core.model import AttemptRef
from hecaton.wire import channel
from hecaton.wire.api import Wanted
from hecaton.wire.bundles import head
from hecaton.wire.channel import (
    Accepted,
    Assign,
    Assignment,
    FileRef,
    FromWorker,
    Hello,
    Log,
    Outcome,
    Results,
    ServerBeat,
    ToWorker,
    WorkerBeat,
)
from hecaton.wire.errors import ErrorBody, ErrorReply, from_status
from hecaton.worker.link.registration import WorkerConfig

M = TypeVar("M")
TOKEN = "t0ken"

WORKER = f"w0rker-{os.getpid()}"
"""Its own in each test run: a worker removes whatever on this machine has its label and is not in use."""

PATIENCE = 20.0


class ScriptedServer:
    """`heard`: all messages in order. `accepts`: whether results are accepted at once. `beats`: whether beats are
    answered. `drop` and `lost_after`: said in Welcome."""

    def __init__(self, *, tls: ssl.SSLContext | None = None, heartbeat: float = 5.0) -> None:
        self.heard: list[FromWorker] = []
        self.hellos: list[Hello] = []
        self.accepts = True
        self.beats = True
        self.lost_after = 60.0
        self.silent = False
        self.drop: tuple[AttemptRef, ...] = ()
        self.drained = False
        self.tokens = {TOKEN}
        self.blobs: dict[str, bytes] = {}
        self.fetched: list[str] = []  # blobs that were asked for
        self.bundles: list[tuple[str, ...]] = []  # files of folders that were asked for together
        self.spoils: Callable[[bytes], bytes] | None = None  # what comes instead of the next bundle
        self.hold_bundles: asyncio.Event | None = None  # bundles stop in their middle until it is set
        self.cut_bundles = 0  # whose reader has gone away
        self.refuse_blobs = 0  # status of the next answers about blobs
        self.proxy_says: Callable[[], web.Response] | None = None  # in place of the server
        self.cannot_store = 0  # the next so many results: the connection is closed instead
        self.max_result = 256 << 20
        self.protocol = channel.PROTOCOL
        self.socket: web.WebSocketResponse | None = None
        self.port = 0
        self.heartbeat = heartbeat
        self._tls = tls
        self._changed = asyncio.Condition()
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> ScriptedServer:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, e: BaseException | None, t: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_get(channel.PATH, self._channel)
        app.router.add_get("/v1/worker/jobs/{job}/blobs/{sha}", self._get_blob)
        app.router.add_put("/v1/worker/jobs/{job}/blobs/{sha}", self._put_blob)
        app.router.add_post("/v1/worker/jobs/{job}/bundle", self._get_bundle)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=self._tls, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self.socket is not None and not self.socket.closed:
            await self.cut()
        if self._runner is not None:
            await self._runner.cleanup()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://localhost:{self.port}"

    def config(self, folder: Path, ca_file: Path | None = None) -> WorkerConfig:
        folder.mkdir(exist_ok=True)
        return WorkerConfig("bench", self.url, WORKER, TOKEN, folder, ca_file)

    # -- what the test says ---------------------------------------------------------------------------

    async def say(self, *messages: ToWorker) -> None:
        assert self.socket is not None
        await self._send(self.socket, *messages)

    async def assign(self, *jobs: Assignment) -> None:
        await self.say(Assign(jobs))

    async def close(self, code: int) -> None:
        assert self.socket is not None
        await self.socket.close(code=code)

    async def cut(self) -> None:
        """The connection breaks, without a word."""
        assert self.socket is not None
        transport = self.socket._req.transport if self.socket._req else None
        if transport is not None:
            transport.abort()

    # -- what the test waits for ----------------------------------------------------------------------

    async def until(self, condition: Callable[[], bool], what: str = "the worker's next word") -> None:
        try:
            async with asyncio.timeout(PATIENCE), self._changed:
                await self._changed.wait_for(condition)
        except TimeoutError:
            raise AssertionError(f"waited in vain for {what}; heard: {self.heard[-20:]}") from None

    async def connected(self, times: int = 1) -> Hello:
        await self.until(lambda: len(self.hellos) >= times, "a hello")
        return self.hellos[-1]

    async def message(self, kind: type[M], count: int = 1) -> M:
        await self.until(lambda: len(self.all(kind)) >= count, kind.__name__)
        return self.all(kind)[count - 1]

    async def outcome(self, ref: AttemptRef) -> Outcome:
        await self.until(lambda: ref in self.outcomes(), f"the result of {ref}")
        return self.outcomes()[ref]

    def all(self, kind: type[M]) -> list[M]:
        return [message for message in self.heard if isinstance(message, kind)]

    def outcomes(self) -> dict[AttemptRef, Outcome]:
        return {outcome.ref: outcome for message in self.all(Results) for outcome in message.outcomes}

    def log(self, ref: AttemptRef) -> bytes:
        """The log as a server puts it together: pieces may come twice."""
        text = bytearray()
        for piece in self.all(Log):
            if piece.ref == ref:
                assert piece.offset <= len(text), "a gap in the log"
                text[piece.offset :] = (
                    piece.data if piece.offset + len(piece.data) > len(text) else text[piece.offset :]
                )
        return bytes(text)

    # -- the server -----------------------------------------------------------------------------------

    async def _channel(self, request: web.Request) -> web.StreamResponse:
        if self.proxy_says is not None:
            return self.proxy_says()
        socket = web.WebSocketResponse(max_msg_size=0)
        await socket.prepare(request)
        if not self._knows(request):
            await socket.close(code=channel.CLOSE_UNAUTHENTICATED)
            return socket
        self.socket = socket
        async for frame in socket:
            if frame.type is not WSMsgType.BINARY or self.silent:
                continue
            for message in channel.decode_for_server(frame.data):
                await self._hear(socket, message)
            async with self._changed:
                self._changed.notify_all()
        return socket

    async def _hear(self, socket: web.WebSocketResponse, message: FromWorker) -> None:
        if isinstance(message, Hello):
            self.hellos.append(message)
            dropped = set(self.drop)
            keep = tuple(item.ref for item in message.held if item.ref not in dropped)
            limits = self.heartbeat, self.max_result
            welcome = channel.Welcome(self.protocol, "srv", *limits, keep, self.drop, self.lost_after, self.drained)
            await self._send(socket, welcome)
        self.heard.append(message)
        if isinstance(message, Results) and self.cannot_store:
            self.cannot_store -= 1
            await socket.close(code=1013)
        elif isinstance(message, Results) and self.accepts:
            refs = tuple(outcome.ref for outcome in message.outcomes)
            await self._send(socket, Accepted(refs))
        if isinstance(message, WorkerBeat) and self.beats:
            await self._send(socket, ServerBeat())

    async def _send(self, socket: web.WebSocketResponse, *messages: ToWorker) -> None:
        await socket.send_bytes(channel.encode(list(messages)))

    async def _get_blob(self, request: web.Request) -> web.Response:
        self._authenticate(request)
        self.fetched.append(request.match_info["sha"])
        return self._refusal() or web.Response(body=self.blobs[request.match_info["sha"]])

    async def _get_bundle(self, request: web.Request) -> web.StreamResponse:
        self._authenticate(request)
        wanted = msgspec.json.decode(await request.read(), type=Wanted).files
        self.bundles.append(wanted)
        body = b"".join(head(name, len(self.blobs[name])) + self.blobs[name] for name in wanted)
        if self.spoils is not None:
            body, self.spoils = self.spoils(body), None
        answer = web.StreamResponse()
        await answer.prepare(request)
        await answer.write(body[: len(body) // 2])
        await self._changing()
        try:
            if self.hold_bundles is not None:
                await self.hold_bundles.wait()
        except asyncio.CancelledError:
            self.cut_bundles += 1
            await self._changing()
            raise
        await answer.write(body[len(body) // 2 :])
        return answer

    async def _changing(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _put_blob(self, request: web.Request) -> web.Response:
        self._authenticate(request)
        body = await request.read()
        refusal = self._refusal()
        if refusal is not None:
            return refusal
        assert hashlib.sha256(body).hexdigest() == request.match_info["sha"]
        self.blobs[request.match_info["sha"]] = body
        return web.Response(status=201)

    def _refusal(self) -> web.Response | None:
        if self.proxy_says is not None:
            return self.proxy_says()
        if not self.refuse_blobs:
            return None
        reply = ErrorReply(ErrorBody(from_status(self.refuse_blobs).code, "not this one"))
        return web.Response(status=self.refuse_blobs, body=msgspec.json.encode(reply))

    def _knows(self, request: web.Request) -> bool:
        return request.headers.get("Authorization", "").removeprefix("Bearer ") in self.tokens

    def _authenticate(self, request: web.Request) -> None:
        if not self._knows(request):
            raise web.HTTPUnauthorized

    def keep(self, data: bytes) -> str:
        """Store a blob; its name."""
        name = hashlib.sha256(data).hexdigest()
        self.blobs[name] = data
        return name

    def keep_folder(self, files: Mapping[str, bytes], *others: Entry, programs: tuple[str, ...] = ()) -> FileRef:
        """Store a folder with these files, and what else is in it; its name."""
        entries = (Entry(path, "file", self.keep(data), len(data), path in programs) for path, data in files.items())
        return FileRef(self.keep(manifest.encoded([*entries, *others])), "workdir")
