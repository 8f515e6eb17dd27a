"""Typed requests to one server: deadlines on every call, retries where they are safe, errors always of core.errors."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import msgspec

from hecaton import __version__
from hecaton.client.heads import Content, ahead_of, encoded, is_about, seconds_of, target, token_value
from hecaton.client.payload import Source
from hecaton.core import errors
from hecaton.wire.decoding import decode
from hecaton.wire.errors import from_reply, from_status, said_by_a_server
from hecaton.wire.reach.address import parse, resolve
from hecaton.wire.reach.tls import Untrusted

if TYPE_CHECKING:
    from urllib3.response import BaseHTTPResponse

    from hecaton.client.connection import Connection, Fault

_random = random.SystemRandom()  # it has no state that forked children would share, nor one that a program seeds

T = TypeVar("T")

TRIES = 5
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 4.0  # seconds; full jitter below them
_REPEATABLE = frozenset({"GET", "HEAD", "PUT"})
_AWAY = frozenset({502, 503, 504})
_ERROR_LIMIT = 1024 * 1024


def may_pass(error: errors.HecatonError) -> bool:
    """True for errors of a server that is away or restarting: whoever waits for it may go on waiting."""
    return isinstance(error, errors.Unreachable | errors.Unavailable) and not isinstance(error, Untrusted)


class Followed(Protocol):
    """An answer that is open for what is still to come of it."""

    def leave(self) -> None:
        """Nobody wants it."""


class Transport:
    """Thread-safe, and safe to fork: a child opens connections of its own. `reached`: a server is there, or was and
    restarts. `away_since`: it has not answered since then, by `time.monotonic`. `clock_ahead`: seconds by which its
    clock is before ours, once it has answered. `uploading`: hears of each piece of an upload, with the name of the
    file, the bytes that are sent, and its size.

    `follows`: whoever submits waits for the end at once, as far as is known; `may_follow`: that may be used;
    `kept_back`: answers in a row that came late for it; `followed`: what is open for it (`following`)."""

    def __init__(
        self,
        address: str,
        token: str | None = None,
        *,
        ca_file: str | os.PathLike[str] | None = None,
        timeout: float = 30.0,
        patient: bool = True,
    ) -> None:
        parse(address)
        self.address = address
        self.token = token
        self.timeout = timeout
        self._patient = patient
        self.reached = False
        self.away_since: float | None = None
        self.clock_ahead: float | None = None
        self.uploading: Callable[[str, int, int], None] | None = None
        self.follows = self.may_follow = True
        self.kept_back = 0
        self.followed: weakref.WeakSet[Followed] = weakref.WeakSet()
        self._ca_file = ca_file
        self._connection: Connection | None = None
        self._lock = threading.Lock()
        self._closed = False
        self._taken = False  # somebody took a request, and may have been killed while it waited for its answer
        _transports.add(self)

    def call(
        self,
        method: str,
        path: str,
        reply: type[T],
        body: Content | None = None,
        *,
        query: Mapping[str, object] | None = None,
        key: str | None = None,
        within: float | None = None,
    ) -> T:
        """One request and its decoded answer.

        `key`: the idempotency key, which makes a POST repeatable. `within`: seconds for everything, retries included.
        """
        data, headers = encoded(body, key)
        deadline = time.monotonic() + (within or self.timeout)

        def attempt() -> T:
            with self._open(method, target(path, query), headers, data, deadline=deadline) as (response, connection):
                content = b"".join(connection.pieces(response, deadline))
            return self._decode(content, reply, method, path)

        return self._persist(attempt, repeatable=key is not None or method in _REPEATABLE, deadline=deadline)

    def command(self, method: str, path: str, body: Content | None = None, **how: Any) -> None:
        """A request whose answer has no body. `how`: as in `call`."""
        self.call(method, path, _Nothing, body, **how)

    def exists(self, path: str) -> bool:
        """HEAD: 404 is an answer, not an error."""
        try:
            self.command("HEAD", path)
        except errors.NotFound:
            return False
        return True

    def upload(self, path: str, source: Source) -> None:
        """PUT a file in pieces. Each step has the transport's time-out, the whole may take as long as it needs."""
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(source.size)}

        def pieces() -> Iterator[bytes]:
            sent = 0
            for piece in source.pieces():
                yield piece
                sent += len(piece)
                if self.uploading is not None:
                    self.uploading(source.name, sent, source.size)

        def attempt() -> None:
            with self._open("PUT", path, headers, pieces) as (response, connection):
                self._expect_nothing(b"".join(connection.pieces(response)), f"PUT {path}")

        self._persist(attempt, repeatable=True)

    def download(
        self, path: str, write: Callable[[Iterable[bytes]], T], query: Mapping[str, object] | None = None
    ) -> T:
        """GET a body in pieces; `write` is called again, from the start, when one breaks off."""

        def attempt() -> T:
            with self._open("GET", target(path, query), {}, None) as (response, connection):
                return write(connection.pieces(response))

        return self._persist(attempt, repeatable=True)

    def lines(
        self,
        path: str,
        query: Mapping[str, object] | None = None,
        *,
        posted: msgspec.Struct | None = None,
        key: str | None = None,
    ) -> Generator[bytes, float | None, None]:
        """The lines of an answer that comes in time; empty ones, which keep the connection alive, are left out. What is
        sent into it are the seconds that it may be silent for from then on, in the place of the time-out.

        Never retried. Raises Unreachable when it breaks off or is silent for longer.
        """
        from hecaton.client.connection import Fault

        rest = b""
        data, headers = encoded(posted, key)
        try:
            with self._open("GET" if posted is None else "POST", target(path, query), headers, data) as opened:
                response, connection = opened
                self.reached = True
                for piece in connection.pieces(response):
                    *lines, rest = (rest + piece).split(b"\n")
                    for line in filter(None, lines):
                        patience = yield line
                        if patience is not None:
                            connection.wait_up_to(response, patience)
        except Fault as fault:
            raise fault.error from fault.__cause__

    def close(self) -> None:
        """For good: whoever still waits in another thread ends with an error at his next step."""
        for one in list(self.followed):
            one.leave()
        with self._lock:
            self._closed = True
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _persist(self, attempt: Callable[[], T], *, repeatable: bool, deadline: float | None = None) -> T:
        from hecaton.client.connection import Fault

        for number in itertools.count(1):
            try:
                return attempt()
            except Fault as fault:
                pause = max(fault.after, _random.uniform(0, min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (number - 1))))
                too_late = deadline is not None and time.monotonic() + pause >= deadline
                absent = not fault.sent and not self._patient
                if (
                    number == TRIES
                    or too_late
                    or absent
                    or (fault.sent and not repeatable)
                    or fault.after > self.timeout
                ):
                    raise fault.error from fault.__cause__
            time.sleep(pause)
        raise AssertionError("unreachable")

    @contextlib.contextmanager
    def _open(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes | Callable[[], Iterable[bytes]] | None,
        *,
        deadline: float | None = None,
    ) -> Iterator[tuple[BaseHTTPResponse, Connection]]:
        """An answer with a 2xx status. Raises Fault for what may be tried again, else what the server said."""
        from hecaton.client.connection import Fault

        connection = self._connect()
        limit = max(deadline - time.monotonic(), 0.001) if deadline is not None else self.timeout
        sent = {"User-Agent": f"hecaton/{__version__}", **headers}
        if self.token:
            sent["Authorization"] = f"Bearer {token_value(self.token)}"
        response = self._send(connection, method, target, sent, body() if callable(body) else body, limit)
        try:
            if response.status >= 300:
                raise self._refusal(method, response, connection)
            self.away_since = None
            if self.clock_ahead is None:
                self.clock_ahead = ahead_of(response.headers.get("Date"))
            yield response, connection
        except Fault as fault:
            self._notice(fault)
            raise
        finally:
            if response.connection is not None:
                response.close()

    def _send(
        self,
        connection: Connection,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes | Iterable[bytes] | None,
        limit: float,
    ) -> BaseHTTPResponse:
        from hecaton.client.connection import Fault

        try:
            return connection.send(method, target, headers, body, limit=limit)
        except Fault as fault:
            self._notice(fault)
            if fault.taken:
                self._taken = True
            elif self._taken:  # it was there a moment ago: it restarts
                self.reached = True
            raise

    def _notice(self, fault: Fault) -> None:
        if self.away_since is None and may_pass(fault.error):
            self.away_since = time.monotonic()

    def forked(self) -> None:
        """In a child process: what the parent has open stays the parent's, whoever held the lock does not exist here.

        The old connection is not closed but left: its pool may be locked by a thread of the parent."""
        self._lock = threading.Lock()
        _of_parents.extend(self.followed)
        self.followed.clear()
        if self._connection is not None:
            _of_parents.append(self._connection)
            self._connection = None

    def _connect(self) -> Connection:
        from hecaton.client.connection import Connection, Fault

        with self._lock:
            if self._closed:
                raise errors.HecatonError(f"this client of {self.address} is closed", "Make another one.")
            if self._connection is None:
                try:
                    address = resolve(self.address, self._ca_file)
                except Untrusted:
                    raise
                except errors.Unreachable as error:
                    raise Fault(error, sent=False) from error.__cause__
                if address.warning:
                    warnings.warn(address.warning, stacklevel=2)
                self._connection = Connection(address.url, self._ca_file)
            return self._connection

    def _refusal(self, method: str, response: BaseHTTPResponse, connection: Connection) -> Exception:
        """What an answer with a status of 300 or more stands for."""
        from hecaton.client.connection import Fault

        if response.status < 400:
            elsewhere = response.headers.get("Location", "nowhere")
            return errors.BadRequest(
                f"{connection.url} redirects to {elsewhere}: it is not the Hecaton server itself",
                "Register the address that it redirects to.",
            )
        after = seconds_of(response.headers.get("Retry-After"))
        content = b""
        with contextlib.suppress(Fault):
            for piece in connection.pieces(response, time.monotonic() + self.timeout):
                content += piece
                if len(content) > _ERROR_LIMIT:
                    break
        if method == "HEAD" and "html" not in response.headers.get("Content-Type", ""):
            error, ours = from_status(response.status), True
        else:
            error = from_reply(response.status, content, response.headers.get("Server"))
            ours = said_by_a_server(content)
        if ours or response.status in _AWAY:  # a gateway that says so has a server behind it
            self.reached = True
        if isinstance(error, errors.TooMany):
            error.retry_after = after or error.retry_after
            return Fault(error, sent=True, after=error.retry_after)
        if isinstance(error, errors.Unauthenticated) and error.hint is None and self.token:
            error.hint = "Log in again: hecaton server login NAME, or Client.login(username, password)."
        if response.status in _AWAY or not ours:
            return Fault(error, sent=True, after=after)
        return error

    def _decode(self, content: bytes, reply: type[T], method: str, path: str) -> T:
        from hecaton.client.connection import Fault

        request = f"{method} {path}"
        if reply is _Nothing:
            self._expect_nothing(content, request)
            return reply()
        try:
            answer = decode(content, reply)
        except msgspec.ValidationError as error:
            raise errors.HecatonError(
                f"{self.address} answered {request} with what a Hecaton {__version__} server does not say: {error}",
                "Is another program on that port, or a server of another version?",
            ) from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Fault(self._strange(f"no JSON came from {request}"), sent=True) from error
        if not is_about(answer, path):
            self._leave_connection()
            raise Fault(self._strange(f"the answer to {request} is about something else"), sent=True)
        self.reached = True
        return answer

    def _expect_nothing(self, content: bytes, request: str) -> None:
        from hecaton.client.connection import Fault

        if content:
            raise Fault(self._strange(f"{request} is answered with nothing, and something came"), sent=True)
        self.reached = True

    def _strange(self, why: str) -> errors.Unreachable:
        return errors.Unreachable(
            f"what answers at {self.address} is not a Hecaton server: {why}",
            "Something between here and the server may have answered instead: check the address and any proxy.",
        )

    def _leave_connection(self) -> None:
        """Its requests and answers may have come out of step: the next request opens another one."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None


_transports: weakref.WeakSet[Transport] = weakref.WeakSet()
_of_parents: list[Connection | Followed] = []
"""Left by `forked`, and kept for good: to collect one would close it."""


def _forked() -> None:
    for transport in _transports:
        transport.forked()


if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
    os.register_at_fork(after_in_child=_forked)


class _Nothing:
    """The reply type of commands."""
