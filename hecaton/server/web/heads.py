"""How much one may say before a request is understood: the head of a request, and all that is no content in it. And
what is made of a request: a cycle, whose answer leaves in one piece.

httptools keeps what it has of a head and copies it with each piece that comes, and uvicorn keeps what it is handed. By
themselves both do so without end: a single client would take the memory and the event loop.
"""

from __future__ import annotations

import asyncio
from urllib.parse import unquote

import httptools
import msgspec
from starlette.types import ASGIApp, Message, Scope
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from hecaton.server.web.http import CUT
from hecaton.wire.errors import ErrorBody, ErrorReply

MAX_HEAD = 64 * 1024
"""Bytes of a request's line and headers; and of what stands around a body's chunks, trailers too, beyond what its
content is worth. What comes in one read with the end of the request before it is not counted."""

MAX_HEADERS = 100
"""Of a request; as many trailers."""

MAX_PIPELINED = 16
"""Requests that wait on their connection for the answer to one before them."""

GUARDED = b"cache-control: no-store\r\nx-content-type-options: nosniff\r\n\r\n"
"""The end of each reply's head: no answer is kept by what lies in between, or taken for a page. Constant bytes here
cost nothing."""

_CHUNKING = 8
"""Bytes around a chunk that each byte in it is worth: chunks of a single byte are odd, and honest."""

_BODILESS = frozenset({"GET", "HEAD"})


class Refused(Exception):
    """Ends the parsing. httptools hands it on as the context of an error of its own."""

    def __init__(self, status: int, code: str, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = ErrorBody(code, message, hint)


class Cycle(RequestResponseCycle):
    """A request and its answer, as uvicorn's protocol and the application know it.

    uvicorn's own sends a head as soon as it is known: for each answer one system call more, and one wake-up of the
    client for nothing. This one keeps it until the next piece comes, which may be empty."""

    # hot: benchmarks/instructions.py - half of what uvicorn's own costs: no logger is asked, no header is looked
    # through that this server has written itself, and nothing is made that few requests need

    def __init__(self, protocol: Bounded, scope: Scope, *, keep_alive: bool) -> None:
        self.scope = scope  # type: ignore[assignment]
        self.transport, self.flow, self.logger = protocol.transport, protocol.flow, protocol.logger
        self.on_response = protocol.on_response_complete
        self.message_event = self  # type: ignore[assignment] # whoever has news of it calls `set`
        self.disconnected = False
        self.keep_alive = keep_alive
        self.waiting_for_100_continue = protocol.expect_100_continue
        self.body = bytearray()
        self.more_body = True
        self.response_started = False
        self.response_complete = False
        self.chunked_encoding = None
        self.expected_content_length = 0
        self._protocol = protocol
        self._head = b""
        self._news = False
        self._waiter: asyncio.Future[None] | None = None

    def set(self) -> None:
        """There is more of the request, or there will be no more."""
        self._news = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def run_asgi(self, app: ASGIApp) -> None:  # type: ignore[override]
        try:
            await app(self.scope, self.receive, self.send)  # type: ignore[arg-type]
        except BaseException as error:
            self.logger.error("a request failed", exc_info=error)
            await self._give_up()
        else:
            if not self.response_complete and not self.disconnected:
                self.logger.error("a request was left without a whole answer")
                await self._give_up()
        finally:
            self.on_response = _nothing

    async def _give_up(self) -> None:
        if not self.response_started:
            await self.send_500_response()
            return
        if self._head:
            self.transport.write(self._head)
        self.transport.close()

    async def receive(self) -> Message:  # type: ignore[override]
        """For one at a time."""
        if self.waiting_for_100_continue and not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.waiting_for_100_continue = False
        if not self.disconnected and not self.response_complete:
            self.flow.resume_reading()
            if not self._news:
                self._waiter = asyncio.get_running_loop().create_future()
                await self._waiter
            self._news = False
        if self.disconnected or self.response_complete:
            return {"type": "http.disconnect"}
        body, self.body = bytes(self.body), bytearray()
        return {"type": "http.request", "body": body, "more_body": self.more_body}

    async def send(self, message: Message) -> None:  # type: ignore[override]
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if not self.response_started:
            self._begin(message["status"], message.get("headers", ()))
        elif self.response_complete:
            raise RuntimeError("the answer is complete")
        else:
            self._go_on(message.get("body", b""), more=message.get("more_body", False))

    def _begin(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.response_started = True
        self.waiting_for_100_continue = False
        lines = [STATUS_LINE[status], self._protocol.dated()]
        for name, value in headers:
            if b"\n" in value or b"\r" in value:
                raise RuntimeError(f"a header of more than one line: {name!r}")
            if name == b"content-length":
                self.chunked_encoding, self.expected_content_length = False, int(value)
            elif name == b"connection" and value == b"close":
                self.keep_alive = False
                continue
            lines += (name, b": ", value, b"\r\n")
        if not self.keep_alive:
            lines.append(b"connection: close\r\n")
        if self.chunked_encoding is None and self.scope["method"] != "HEAD" and status not in (204, 304):
            self.chunked_encoding = True
            lines.append(b"transfer-encoding: chunked\r\n")
        lines.append(GUARDED)
        self._head = b"".join(lines)

    def _go_on(self, body: bytes, *, more: bool) -> None:
        if self.scope["method"] == "HEAD":
            body, self.expected_content_length = b"", 0
        elif self.chunked_encoding:
            piece = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            body = piece if more else piece + b"0\r\n\r\n"
        else:
            self.expected_content_length -= len(body)
            if self.expected_content_length < 0 or (self.expected_content_length and not more):
                raise RuntimeError("the answer is not as long as its head says")
        head, self._head = self._head, b""
        if head or body:
            self.transport.write(head + body)
        if not more:
            self.response_complete = True
            self.set()
            if not self.keep_alive:
                self.transport.close()
            self.on_response()


def _nothing() -> None:
    """Of a request whose application has returned."""


class Bounded(HttpToolsProtocol):
    """uvicorn's protocol for HTTP/1.1, whose peers may say only so much that is no content."""

    # hot: benchmarks/throughput.py

    framing = 0
    """Bytes of the head that is being read, or around the chunks of the body that is."""

    behind: tuple[RequestResponseCycle, ...] = ()
    """Requests before the newest one that others came behind, unanswered: uvicorn itself knows the newest alone."""

    _free: tuple[asyncio.Task[None], asyncio.Future[RequestResponseCycle | None]] | None = None
    """The task that waits for the next request."""

    _dated: tuple[object, bytes] = (None, b"")

    def dated(self) -> bytes:
        """What stands in each answer's head, as lines: uvicorn makes it anew once a second."""
        headers = self.server_state.default_headers
        if self._dated[0] is not headers:
            self._dated = headers, b"".join(b"%b: %b\r\n" % header for header in headers)
        return self._dated[1]

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        self.framing += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            if self._should_upgrade():  # to anything else there is none, and nobody's log is filled with that
                self.handle_websocket_upgrade()
            return
        except httptools.HttpParserError as error:
            why = error.__context__
            self.refuse(why if isinstance(why, Refused) else Refused(400, "bad_request", "this is no HTTP/1.1"))
            return
        if self.framing > MAX_HEAD:
            self.refuse(_too_large())

    def on_header(self, name: bytes, value: bytes) -> None:
        """As uvicorn does it, and counted."""
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        headers = self.headers
        headers.append((name, value))
        if len(headers) > MAX_HEADERS:
            raise Refused(431, "too_large", f"the request has more than {MAX_HEADERS} headers")

    def on_headers_complete(self) -> None:
        if self.framing > MAX_HEAD:  # or this is the body, which came along with its head
            around = sum(len(name) + len(value) for name, value in self.headers)
            if len(self.url) + around > MAX_HEAD:
                raise _too_large()
        self.framing = 0
        parser, before = self.parser, self.cycle
        scope: Scope = self.scope  # type: ignore[assignment]
        version = parser.get_http_version()
        scope["method"] = parser.get_method().decode("ascii")
        if version != "1.1":
            scope["http_version"] = version
        if parser.should_upgrade():
            if self._should_upgrade():
                return
            self._require_no_body()
        url = httptools.parse_url(self.url)
        path = url.path.decode("ascii")
        scope["path"] = unquote(path) if "%" in path else path
        scope["raw_path"], scope["query_string"] = url.path, url.query or b""
        scope[CUT] = self.transport.abort
        cycle = self.cycle = Cycle(self, scope, keep_alive=version != "1.0" and parser.should_keep_alive())
        self.headers = []  # of the trailers, which nobody asks for
        if before is None or before.response_complete:
            self._start_asgi_task(cycle, self.app)
            return
        self.flow.pause_reading()
        self.pipeline.appendleft((cycle, self.app))
        self.behind = (*(cycle for cycle in self.behind if not cycle.response_complete), before)
        if len(self.pipeline) > MAX_PIPELINED:
            raise Refused(429, "too_many", f"more than {MAX_PIPELINED} requests wait for an answer to another one")

    def _require_no_body(self) -> None:
        """Behind an Upgrade httptools takes nothing for a body: what comes is dropped, or would be the next request."""
        headers = dict(self.headers)
        if b"transfer-encoding" in headers or headers.get(b"content-length", b"0").strip(b"0"):
            why = "a request with an Upgrade, as to h2c, has no body here"
            raise Refused(400, "bad_request", why, "Send it as plain HTTP/1.1 (curl --http1.1).")

    def on_body(self, body: bytes) -> None:
        if self.scope["method"] in _BODILESS:  # nobody would read it: it would lie here until the answer is there
            raise Refused(400, "bad_request", "a GET has no body")
        cycle = self.cycle
        if not cycle.response_complete and not (self.parser.should_upgrade() and self._should_upgrade()):
            cycle.body += body
            if len(cycle.body) > HIGH_WATER_LIMIT:
                self.flow.pause_reading()
            cycle.message_event.set()
        framing = self.framing - len(body) * _CHUNKING
        self.framing = framing if framing > 0 else 0

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: object) -> None:
        """By the task that did so for the request before: to make one for each takes twice as much."""
        free, self._free = self._free, None
        if free is None:
            task = self.loop.create_task(self._serve(cycle))
        else:
            task, turn = free
            turn.set_result(cycle)
        self.tasks.add(task)

    async def _serve(self, cycle: RequestResponseCycle | None) -> None:
        task = asyncio.current_task()
        assert task is not None
        while cycle is not None:
            try:
                await cycle.run_asgi(self.app)
            finally:
                self.tasks.discard(task)
            if self._free is not None or self.parser is None:
                return
            turn: asyncio.Future[RequestResponseCycle | None] = self.loop.create_future()
            self._free = task, turn
            cycle = await turn

    def _let_go(self) -> None:
        """There will be no more requests here."""
        if self._free is not None:
            _, turn = self._free
            self._free = None
            if not turn.done():
                turn.set_result(None)

    def handle_websocket_upgrade(self) -> None:
        self._let_go()
        super().handle_websocket_upgrade()

    def refuse(self, why: Refused) -> None:
        """The answer, unless another one is under way, and the end of the connection."""
        cycle = self.cycle
        if not self.pipeline and (cycle is None or cycle.response_complete or not cycle.response_started):
            self.transport.write(last_answer(why.status, why.body))
        self._hang_up(*self.behind, *((cycle,) if cycle is not None else ()))
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._hang_up(*self.behind)
        super().connection_lost(exc)
        self._let_go()

    @staticmethod
    def _hang_up(*cycles: RequestResponseCycle) -> None:
        """Whoever works on these has nobody to answer."""
        for cycle in cycles:
            cycle.disconnected = True
            cycle.message_event.set()


def _too_large() -> Refused:
    return Refused(431, "too_large", f"the head of the request has more than {MAX_HEAD} bytes")


def last_answer(status: int, error: ErrorBody) -> bytes:
    """An answer without an application behind it, after which the connection is closed."""
    body = msgspec.json.encode(ErrorReply(error))
    headers = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n" % len(body)
    later = b"retry-after: 1\r\n" if status in (429, 503) else b""
    return STATUS_LINE[status] + headers + later + GUARDED + body
