"""The plumbing between ASGI and handlers: one declared `Route` per endpoint, one place for access, bodies and errors.

A route declares its action; there is no default, and `accounts.permissions` says who may do it. A handler gets a
`Call` and returns a message of `wire.api`, a `Stream` or None. Plain ASGI: Starlette's Request and JSONResponse would
halve the rate.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

import msgspec
import structlog
from starlette.types import Receive, Scope, Send

from hecaton.core.errors import (
    BadRequest,
    Forbidden,
    HecatonError,
    NoUpgrade,
    TooLarge,
    TooMany,
    Unauthenticated,
    WrongMethod,
)
from hecaton.core.model import User, WorkerRecord
from hecaton.server.accounts.audit import Audit, Deed, is_recorded, may_be_recorded
from hecaton.server.accounts.auth import Caller
from hecaton.server.accounts.permissions import Action
from hecaton.server.bodies import SMALL_BODY, Reservation
from hecaton.server.connections import seat_of
from hecaton.server.hub import Holder, Hub
from hecaton.server.web.queries import Parameter, Query
from hecaton.wire.errors import to_reply

T = TypeVar("T")

BODY_LIMIT = 2 * 1024 * 1024
"""Of a JSON body: an inline payload of 1 MiB in base64, and room to spare."""

CUT = "hecaton.cut"
"""Of a scope: what ends its connection at once (`protocol`)."""

_log = structlog.get_logger("hecaton.http")


class Stream(msgspec.Struct, frozen=True):
    """A body in pieces. `length` None: not known before (sent chunked)."""

    pieces: AsyncIterator[bytes]
    content_type: str
    length: int | None = None
    endless: bool = False  # goes on for long: the client's end must be noticed


_NO_QUERY: Mapping[str, Any] = MappingProxyType({})


class Call:
    """One request. `caller` for people, `worker` for workers, as the route's action says. `reservation`: where
    its body has more than a little, until the answer is there."""

    reservation: Reservation | None = None
    status = 200
    target = ""
    """The name of what it changes, where the path does not say it."""
    endpoint: Endpoint | None = None
    revocations = 0
    """How often somebody's rights had changed before it was let in."""
    _caller: Caller | None = None
    _worker: WorkerRecord | None = None
    _claimed: User | None = None

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.scope = scope
        self._receive = receive
        self.params: dict[str, str] = scope.get("path_params", {})
        self.query: Mapping[str, Any] = _NO_QUERY  # by the names that the route declares

    @property
    def caller(self) -> Caller:
        assert self._caller is not None, "the route is open or for workers"
        return self._caller

    @property
    def worker(self) -> WorkerRecord:
        assert self._worker is not None, "the route is not for workers"
        return self._worker

    def claims(self, user: User | None) -> None:
        """Whom somebody says he is who logs in, if there is one of that name."""
        self._claimed = user

    def deed(self, action: Action) -> Deed:
        """What it is about, for the audit."""
        target = self.target or "/".join(self.params.values())
        someone = self._caller or self._claimed
        if someone is not None:
            return Deed(action, self.address, someone.name, someone.role, target)
        if self._worker is not None:
            return Deed(action, self.address, self._worker.name, "a registered worker", target)
        return Deed(action, self.address, target=target)

    def recorded(self, action: Action) -> bool:
        """Whether a line is written about it although it is allowed."""
        return is_recorded(self._caller.role if self._caller is not None else None, action)

    def admit(self, caller: Caller | None, worker: WorkerRecord | None) -> None:
        self._caller, self._worker = caller, worker

    def header(self, name: bytes) -> str | None:
        for key, value in self.scope["headers"]:
            if key == name:
                return str(value, "latin-1")
        return None

    @property
    def address(self) -> str:
        """Where it comes from, behind a proxy too if that is believed."""
        return seat_of(self.scope).client(self.scope["headers"])

    async def body(self, limit: int = BODY_LIMIT) -> bytes:
        # hot: benchmarks/throughput.py - nearly always one piece
        self._require_plain()
        first, more = await self._piece()
        if more:
            await self.reserve(limit)
        pieces, size = [first], len(first)
        while more and size <= limit:
            piece, more = await self._piece()
            pieces.append(piece)
            size += len(piece)
        if size > limit:
            raise TooLarge(f"the request body has more than {limit} bytes")
        return first if len(pieces) == 1 else b"".join(pieces)

    async def reserve(self, most: int) -> None:
        """Memory for the body, of which at most so many bytes are held at a time. TooMany or Unavailable if there is
        none."""
        announced = content_length(self.scope["headers"])
        size = most if announced is None else min(announced, most)
        if size > SMALL_BODY:
            self.reservation = await seat_of(self.scope).bodies.take(self.holder, size)

    def release(self) -> None:
        """Nothing of the body is held any more."""
        if self.reservation is not None:
            self.reservation.release()

    @property
    def holder(self) -> Holder | None:
        """Whose rights it goes by; None on a route that is open."""
        return self._worker.id if self._worker is not None else self._caller.user_id if self._caller else None

    async def cut(self) -> None:
        """Ends the connection in the middle of an answer: the client must not take what it has for all of it."""
        self.scope[CUT]()
        await self.gone()

    async def gone(self) -> None:
        """Returns when the client has hung up: writing to it would go nowhere, without an error."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def unless_gone(self, work: Coroutine[Any, Any, T], *ends: asyncio.Future[None]) -> T:
        """What it gives. Cancelled, with ConnectionResetError, when the client hangs up or one of `ends` is done. The
        body is to be read before."""
        working = asyncio.ensure_future(work)
        gone = asyncio.ensure_future(self.gone())
        try:
            waited: list[asyncio.Future[Any]] = [working, gone, *ends]
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                return working.result()
            raise ConnectionResetError("the client hung up before it had its answer")
        finally:
            working.cancel()
            gone.cancel()
            await asyncio.gather(working, gone, return_exceptions=True)

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body as it arrives. Raises if the client goes away in the middle."""
        self._require_plain()
        more = True
        while more:
            piece, more = await self._piece()
            if piece:
                yield piece

    def _require_plain(self) -> None:
        if self.header(b"content-encoding") not in (None, "identity"):
            raise BadRequest("compressed request bodies are not accepted: send them as they are")

    async def _piece(self) -> tuple[bytes, bool]:
        """And whether there are more."""
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ConnectionResetError("the client went away in the middle of its request")
        more = message.get("more_body", False)
        if not more and self.endpoint is not None and self.endpoint.hub.revocations != self.revocations:
            await self.endpoint.readmit(self)  # a body may take minutes: who has lost his rights meanwhile is out
        return message.get("body", b""), more


Handler = Callable[[Call], Awaitable[Any]]


class Route(msgspec.Struct, frozen=True):
    """One endpoint. The OpenAPI description is made from it.

    `body` and `reply` are types of `wire.api`; a reply that may be of several is a tuple. `query`: what may stand
    behind the '?'. `keyed`: knows Idempotency-Key. `upload`: its body is bytes. `media`: what its answer in pieces is;
    of lines, `reply` says what each is."""

    method: str
    path: str
    action: Action
    handler: Handler
    summary: str
    body: type | None = None
    reply: Any = None
    status: int = 200
    query: tuple[Parameter, ...] = ()
    keyed: bool = False
    upload: bool = False
    media: tuple[str, ...] = ()


class Endpoint:
    """A route as an ASGI application."""

    def __init__(self, route: Route, admit: Callable[[Call, Action], Awaitable[None]], hub: Hub, audit: Audit) -> None:
        self.route, self._admit, self.hub, self._audit = route, admit, hub, audit
        self._recorded = may_be_recorded(route.method, route.action)
        self._query = Query(route.query)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = Call(scope, receive)
        call.status = self.route.status
        call.endpoint, call.revocations = self, self.hub.revocations
        try:
            await self._admit(call, self.route.action)
            text = scope["query_string"]
            call.query = self._query.read(text) if text else self._query.defaults
            reply = await self.route.handler(call)
        except HecatonError as error:
            self._note(call, error)
            await send_error(send, error)
        except ConnectionResetError:
            return
        except Exception:
            _log.exception("a request failed", method=self.route.method, path=self.route.path)
            self._note(call, None)
            await send_json(send, 500, b'{"error":{"code":"error","message":"the server failed; its log says why"}}')
        else:
            if self._recorded and call.recorded(self.route.action):
                self._audit.done(call.deed(self.route.action))
            await self._send_reply(send, call, reply)
        finally:
            if call.reservation is not None:
                call.release()

    async def readmit(self, call: Call) -> None:
        """As when it came; raises if it would not be let in any more."""
        call.revocations = self.hub.revocations
        await self._admit(call, self.route.action)

    def _note(self, call: Call, error: HecatonError | None) -> None:
        """That it failed: each refusal, and of everything else what would have been written had it been done."""
        action = self.route.action
        if isinstance(error, Unauthenticated | Forbidden) or (self._recorded and call.recorded(action)):
            self._audit.failed(call.deed(action), error)

    async def _send_reply(self, send: Send, call: Call, reply: Any) -> None:
        if reply is None:
            await send_json(send, call.status, b"")
        elif isinstance(reply, Stream):
            await self._send_stream(send, call, reply)
        else:
            await send_json(send, call.status, msgspec.json.encode(reply))

    async def _send_stream(self, send: Send, call: Call, stream: Stream) -> None:
        holder = call.holder
        if not stream.endless or holder is None:
            await _send_head(send, call, stream)
            await _send_pieces(send, stream.pieces)
            await send({"type": "http.response.body", "body": b""})
            return
        with self.hub.streaming(holder) as ended:
            try:
                self.hub.require_stream(holder)
                if self.hub.revocations != call.revocations:  # of what was before, `streaming` has no word
                    await self.readmit(call)
            except HecatonError as error:
                self._note(call, error)
                await send_error(send, error)
                return
            await _send_head(send, call, stream)
            await send({"type": "http.response.body", "body": b"", "more_body": True})  # the head: it may be long
            with contextlib.suppress(ConnectionResetError):
                await call.unless_gone(_send_pieces(send, stream.pieces), ended)
            if ended.done():
                await call.cut()
            else:
                await send({"type": "http.response.body", "body": b""})


def content_length(headers: Iterable[tuple[bytes, bytes]]) -> int | None:
    """Bytes that a request says its body has; None: it does not say."""
    said = next((value for name, value in headers if name == b"content-length"), b"")
    return int(said) if said.isdigit() else None


def decode(body: bytes, kind: type[Any]) -> Any:
    """A JSON body as a message of `wire.api`; BadRequest names the field that is wrong."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise BadRequest(f"the request makes no sense: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"the request body is not JSON: {error}") from None


async def _send_head(send: Send, call: Call, stream: Stream) -> None:
    headers = [(b"content-type", stream.content_type.encode())]
    if stream.length is not None:
        headers.append((b"content-length", str(stream.length).encode()))
    else:
        headers.append((b"x-accel-buffering", b"no"))  # nginx would keep back what is live until it has some KiB of it
    await send({"type": "http.response.start", "status": call.status, "headers": headers})


async def _send_pieces(send: Send, pieces: AsyncIterator[bytes]) -> None:
    try:
        async for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
    finally:
        close = getattr(pieces, "aclose", None)
        if close is not None:
            await close()


async def send_error(send: Send, error: HecatonError) -> None:
    status, reply = to_reply(error)
    extra = []
    if isinstance(error, WrongMethod):
        extra.append((b"allow", ", ".join(error.allowed).encode()))
    elif isinstance(error, NoUpgrade):
        extra += [(b"upgrade", b"websocket"), (b"connection", b"upgrade")]
    elif isinstance(error, TooMany):
        extra.append((b"retry-after", str(max(1, math.ceil(error.retry_after))).encode()))
    elif status == 503:
        extra.append((b"retry-after", b"1"))
    elif status == 401:
        extra.append((b"www-authenticate", b"Bearer"))
    await send_json(send, status, msgspec.json.encode(reply), extra)


async def send_json(send: Send, status: int, body: bytes, extra: list[tuple[bytes, bytes]] | None = None) -> None:
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        *(extra or ()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
