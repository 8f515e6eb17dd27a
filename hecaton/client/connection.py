"""HTTP/1.1 to one server over connections that are kept, and what its failures mean.

By hand: of a warm job's whole time from Python a general client takes a fifth, and each command 60 ms for its import.
`http` loads it with the first request.
"""

from __future__ import annotations

import os
import select
import socket
import ssl
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping
from typing import NoReturn

from hecaton.core.errors import BadRequest, HecatonError, Unreachable
from hecaton.wire import proxies, tls
from hecaton.wire.address import IS_IT_RUNNING, opened, parse

CONNECT_LIMIT = 10.0
"""Seconds for the connection itself, within the deadline of the whole call."""

KEPT = 64
"""Connections that wait for their next request."""

PIECE = 256 * 1024

HEAD_LIMIT = 64 * 1024
"""Of the head of an answer, and of a line within its body."""

NOTES, TRAILERS = 10, 100
"""Heads of answers that say to wait on, lines behind a body: as many as anybody has sent."""

_HTTP = b"HTTP/1."
_NO_BODY = frozenset({204, 304})
_DEFAULT_PORT = {"http": 80, "https": 443}


class Fault(Exception):
    """A try that failed on the way. `sent`: the server may have acted on it. `taken`: somebody took the connection, and
    with TLS has shown who he is. `after`: seconds that the server asks to wait."""

    def __init__(self, error: HecatonError, *, sent: bool, taken: bool | None = None, after: float = 0.0) -> None:
        super().__init__(error)
        self.error = error
        self.sent = sent
        self.taken = sent if taken is None else taken
        self.after = after


class BrokenHttp(OSError):
    """What came is no HTTP, or ends before its end."""


class KeptSocket:
    """One connection, for one exchange at a time."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._held = b""  # has come, and was not asked for yet

    def send(self, head: bytes, body: bytes | Iterable[bytes] | None, limit: float) -> None:
        """`limit`: seconds for each step, from now on."""
        self.wait_up_to(limit)
        if body is None or isinstance(body, bytes):
            self._sock.sendall(head + (body or b""))  # one packet wakes the server once
            return
        self._sock.sendall(head)
        for piece in body:
            self._sock.sendall(piece)

    def wait_up_to(self, seconds: float) -> None:
        self._sock.settimeout(max(seconds, 0.001))

    def head(self) -> bytes:
        """Up to its empty line, which is left out."""
        if not self._held:
            self._held = self._sock.recv(HEAD_LIMIT)
        if not self._held.startswith(_HTTP[: len(self._held)]):
            raise BrokenHttp(f"{self._held[:40]!r} is no HTTP")  # nor will it be, however long one waits
        return self._until(b"\r\n\r\n")

    def line(self) -> bytes:
        return self._until(b"\r\n")

    def _until(self, end: bytes) -> bytes:
        while (at := self._held.find(end)) < 0:
            if len(self._held) > HEAD_LIMIT:
                raise BrokenHttp(f"more than {HEAD_LIMIT} bytes without an end")
            more = self._sock.recv(HEAD_LIMIT)
            if not more:
                raise BrokenHttp("it was closed")
            self._held += more
        found, self._held = self._held[:at], self._held[at + len(end) :]
        return found

    def read(self, most: int) -> bytes:
        """What is there, or comes next; empty at the end."""
        if not self._held:
            return self._sock.recv(most)
        found, self._held = self._held[:most], self._held[most:]
        return found

    def is_quiet(self) -> bool:
        """Nothing has come since its last answer: not the end of the connection, either."""
        if self._held:
            return False
        if hasattr(select, "poll"):
            poll = select.poll()
            poll.register(self._sock, select.POLLIN)
            return not poll.poll(0)
        return not select.select([self._sock], [], [], 0)[0]

    def close(self) -> None:
        self._sock.close()

    def __del__(self) -> None:
        self.close()  # in the midst of an answer that nobody wants


class OpenAnswer:
    """A head, and the body as it comes. Read to its end it gives its connection back."""

    def __init__(self, line: KeptSocket, kept: Connection, method: str, *, reusable: bool = True) -> None:
        self._line: KeptSocket | None = line
        self._kept = kept
        status, notes = 100, -1
        while status < 200:  # others are notes on the way
            notes += 1
            if notes > NOTES:
                raise BrokenHttp("notes without an end")
            first, *lines = line.head().split(b"\r\n")
            version, _, rest = first.partition(b" ")
            if not rest[:3].isdigit():
                raise BrokenHttp(f"{first[:40]!r} is no HTTP")
            status = int(rest[:3])
        self.status = status
        pairs = (text.partition(":") for text in map(_text, lines))
        self._headers = {name.lower(): value.strip() for name, _, value in pairs}
        wishes = self.header("connection").lower()
        self._reusable = reusable and ("keep-alive" in wishes if version == b"HTTP/1.0" else "close" not in wishes)
        self._chunked = "chunked" in self.header("transfer-encoding").lower()
        length = self.header("content-length")
        self._left: int | None = int(length) if length.isdigit() and not self._chunked else None
        if method == "HEAD" or status in _NO_BODY:
            self._left, self._chunked = 0, False
        self._chunk: int | None = None  # what is left of it; None: its size comes next

    def header(self, name: str, default: str = "") -> str:
        """`name`: in small letters."""
        return self._headers.get(name, default)

    def read(self) -> bytes:
        """The next piece; empty at the end. OSError when it breaks off."""
        line = self._line
        if line is None:
            return b""
        if self._chunked:
            return self._read_chunked(line)
        piece = line.read(PIECE if self._left is None else min(PIECE, self._left)) if self._left != 0 else b""
        if self._left is None:
            if not piece:  # closing it was the end
                self.close()
            return piece
        if not piece and self._left:
            raise BrokenHttp(f"{self._left} bytes are missing")
        self._left -= len(piece)
        if not self._left:
            self._end(line)
        return piece

    def _read_chunked(self, line: KeptSocket) -> bytes:
        if self._chunk == 0 and line.line():
            raise BrokenHttp("a chunk is longer than it said")
        if not self._chunk:
            size = line.line().partition(b";")[0].strip()
            if not size or len(size) > 16 or size.strip(b"0123456789abcdefABCDEF"):
                raise BrokenHttp(f"{size[:40]!r} is no size of a chunk")
            self._chunk = int(size, 16)
            if self._chunk == 0:
                self._skip_trailers(line)
                self._end(line)
                return b""
        piece = line.read(min(PIECE, self._chunk))
        if not piece:
            raise BrokenHttp(f"{self._chunk} bytes of a chunk are missing")
        self._chunk -= len(piece)
        return piece

    @staticmethod
    def _skip_trailers(line: KeptSocket) -> None:
        for _ in range(TRAILERS):
            if not line.line():
                return
        raise BrokenHttp(f"more than {TRAILERS} trailers")

    def wait_up_to(self, seconds: float) -> None:
        """For each further piece."""
        if self._line is not None:
            self._line.wait_up_to(seconds)

    def _end(self, line: KeptSocket) -> None:
        self._line = None
        if self._reusable:
            self._kept.give_back(line)
        else:
            line.close()

    def close(self) -> None:
        """What is left of it is not wanted."""
        line, self._line = self._line, None
        if line is not None:
            line.close()


def _text(line: bytes) -> str:
    return line.decode("latin-1")


def _close_all(idle: list[KeptSocket]) -> None:
    while idle:
        idle.pop().close()


class Connection:
    """Thread-safe, without a lock that a fork could leave behind; some connections are kept open for reuse."""

    def __init__(self, url: str, ca_file: str | os.PathLike[str] | None) -> None:
        self.url = url
        self._place = place = parse(url)
        self._where, self._ca_file = place.authority, ca_file
        self._trust = tls.context(ca_file) if place.scheme == "https" else None
        self._proxy = proxies.proxy_for(url)
        self._idle: list[KeptSocket] = []
        weakref.finalize(self, _close_all, self._idle)  # of a client that nobody closed, also where it is in a circle
        self._closed = False
        self._base, self._extra = place.prefix, ""
        if self._proxy is not None and self._trust is None:  # it asks the server in its own name
            self._base = url
            self._extra = "".join(f"{name}: {value}\r\n" for name, value in self._proxy.headers.items())
        host = place.host.partition("%")[0]
        host = f"[{host}]" if ":" in host else host
        self._host = host if place.port == _DEFAULT_PORT[str(place.scheme)] else f"{host}:{place.port}"

    def send(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes | Iterable[bytes] | None,
        *,
        limit: float,
    ) -> OpenAnswer:
        """The head of the answer, whatever its status. `limit`: seconds for each step. Raises Fault or Untrusted."""
        # hot: benchmarks/sdk.py
        line = self._quiet_line() or self._dial(min(limit, CONNECT_LIMIT))
        try:
            try:
                line.send(self._head(method, target, headers, body), body, limit)
            except (BrokenPipeError, ConnectionResetError):  # it may have refused a body before that was there
                return OpenAnswer(line, self, method, reusable=False)
            return OpenAnswer(line, self, method)
        except OSError as error:
            line.close()
            raise self._fault(error, limit) from error
        except BaseException:
            line.close()
            raise

    def _head(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes | Iterable[bytes] | None
    ) -> bytes:
        lines = [f"{method} {self._base}{target} HTTP/1.1\r\nHost: {self._host}\r\nAccept-Encoding: identity\r\n"]
        for name, value in headers.items():
            if "\n" in value or "\r" in value:
                raise BadRequest(f"the header {name} of a request has several lines: {value[:80]!r}")
            lines.append(f"{name}: {value}\r\n")
        if isinstance(body, bytes) or (body is None and method not in ("GET", "HEAD")):
            lines.append(f"Content-Length: {len(body or b'')}\r\n")
        return "".join((*lines, self._extra, "\r\n")).encode("latin-1")

    def _quiet_line(self) -> KeptSocket | None:
        while True:
            try:
                line = self._idle.pop()
            except IndexError:
                return None
            if line.is_quiet():
                return line
            line.close()

    def give_back(self, line: KeptSocket) -> None:
        """It may be used for another request."""
        if self._closed or len(self._idle) >= KEPT:
            line.close()
        else:
            self._idle.append(line)

    def pieces(self, answer: OpenAnswer, deadline: float | None = None) -> Iterator[bytes]:
        """The body as it arrives. `deadline`: by time.monotonic(). Raises Fault when it breaks off."""
        process = os.getpid()
        try:
            while piece := answer.read():
                yield piece
                if os.getpid() != process:  # what comes next is for the parent
                    forked = Unreachable(f"the connection to {self.url} is that of the parent process")
                    raise Fault(forked, sent=True)
                if deadline is not None and time.monotonic() > deadline:
                    late = Unreachable(f"the answer of {self.url} took too long", "Try again, or allow more time.")
                    raise Fault(late, sent=True)
        except OSError as error:
            raise self._fault(error, None) from error
        finally:
            answer.close()

    def close(self) -> None:
        self._closed = True
        _close_all(self._idle)

    def _dial(self, limit: float) -> KeptSocket:
        host, port = self._place.host, self._place.port
        if self._proxy is not None:
            host, port = self._proxy.host, self._proxy.port
        sock = None
        try:
            sock = socket.create_connection((host, port), limit)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._trust is not None:
                if self._proxy is not None and not opened(sock, self._place, self._proxy):
                    raise BrokenHttp("it refuses to connect")
                sock = self._trust.wrap_socket(sock, server_hostname=self._place.host.partition("%")[0])
            return KeptSocket(sock)
        except OSError as error:
            if sock is not None:
                sock.close()
            self._refuse(error)
        except BaseException:
            if sock is not None:
                sock.close()
            raise

    def _refuse(self, error: OSError) -> NoReturn:
        """Why there is no connection."""
        why = (error.strerror or str(error)).lower()
        if isinstance(error, ssl.SSLError):
            raise self._of_tls(error) from error
        if self._proxy is not None:
            refused = Unreachable(f"{self._proxy} gives no way to {self._where}: {why}", proxies.AROUND)
            raise Fault(refused, sent=False) from error
        if isinstance(error, socket.gaierror):
            unknown = f"cannot find the host {self._place.host!r}: {error.strerror}"
            raise Fault(Unreachable(unknown, "Check the name for typos."), sent=False) from error
        if isinstance(error, TimeoutError):
            why = "no answer in time"
        raise Fault(Unreachable(f"no server answers at {self.url}: {why}", IS_IT_RUNNING), sent=False) from error

    def _fault(self, error: OSError, limit: float | None) -> Exception:
        """What became of an exchange."""
        if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
            return self._of_tls(error)
        if isinstance(error, TimeoutError):
            within = f" within {limit:.3g} s" if limit else ""
            return Fault(
                Unreachable(f"{self.url} took the request, but did not answer{within}", IS_IT_RUNNING), sent=True
            )
        return Fault(Unreachable(f"the connection to {self.url} broke off", self._broken_hint()), sent=True)

    def _of_tls(self, error: ssl.SSLError) -> Exception:
        explained = tls.explain(error, self._where, self._ca_file)
        return explained if isinstance(explained, tls.Untrusted) else Fault(explained, sent=True, taken=False)

    def _broken_hint(self) -> str:
        if self.url.startswith("http://"):
            return f"If the server speaks TLS, write {self._place.url('https')}. {IS_IT_RUNNING}"
        return IS_IT_RUNNING
