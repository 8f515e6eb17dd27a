"""How much one may say before a request is understood: the head of a request, and all that is no content in it.

httptools keeps what it has of a head and copies it with each piece that comes, and uvicorn keeps what it is handed. By
themselves both do so without end: a single client would take the memory and the event loop.
"""

from __future__ import annotations

import httptools
import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

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
cost nothing; as headers of each reply they are looked through by uvicorn every time."""

_CHUNKING = 8
"""Bytes around a chunk that each byte in it is worth: chunks of a single byte are odd, and honest."""

_BODILESS = frozenset({"GET", "HEAD"})


class Refused(Exception):
    """Ends the parsing. httptools hands it on as the context of an error of its own."""

    def __init__(self, status: int, code: str, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = ErrorBody(code, message, hint)


class Bounded(HttpToolsProtocol):
    """uvicorn's protocol for HTTP/1.1, whose peers may say only so much that is no content."""

    # hot: benchmarks/throughput.py

    framing = 0
    """Bytes of the head that is being read, or around the chunks of the body that is."""

    behind: tuple[RequestResponseCycle, ...] = ()
    """Requests before the newest one that others came behind, unanswered: uvicorn itself knows the newest alone."""

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        self.framing += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            if self._should_upgrade():
                self.handle_websocket_upgrade()
            else:
                self._unsupported_upgrade_warning()
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
        before = self.cycle
        super().on_headers_complete()
        self.framing = 0
        if self.cycle is not before:
            self.headers = []  # of the trailers, which nobody asks for
            if not self.pipeline or before is None:
                return
            self.behind = (*(cycle for cycle in self.behind if not cycle.response_complete), before)
            if len(self.pipeline) > MAX_PIPELINED:
                raise Refused(429, "too_many", f"more than {MAX_PIPELINED} requests wait for an answer to another one")

    def on_body(self, body: bytes) -> None:
        if self.scope["method"] in _BODILESS:  # nobody would read it: it would lie here until the answer is there
            raise Refused(400, "bad_request", "a GET has no body")
        super().on_body(body)
        framing = self.framing - len(body) * _CHUNKING
        self.framing = framing if framing > 0 else 0

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
