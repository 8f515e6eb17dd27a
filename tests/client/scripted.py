"""The other side of the wire for tests: a real HTTP(S) server on loopback that answers as told, faults included."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec


@dataclass(frozen=True)
class Seen:
    """A request as it arrived."""

    method: str
    path: str
    query: dict[str, str]  # what is said several times: with blanks between
    headers: dict[str, str]
    body: bytes
    client_port: int  # the same one: the same connection

    def json(self) -> Any:
        return msgspec.json.decode(self.body)


@dataclass(frozen=True)
class Answer:
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None  # close the connection after this many bytes of the body
    lines: tuple[bytes, ...] | None = None  # sent one by one as a chunked body instead of `body`
    then: str = ""  # "hang": keep the connection open, silent; "close": end it in good order, but too early


def reply(value: Any, status: int = 200, **headers: str) -> Answer:
    return Answer(status, msgspec.json.encode(value), {"Content-Type": "application/json", **headers})


def error(status: int, code: str, message: str, hint: str | None = None) -> Answer:
    return reply({"error": {"code": code, "message": message, "hint": hint}}, status)


HTML_502 = Answer(502, b"<html><h1>502 Bad Gateway</h1></html>", {"Content-Type": "text/html"})
NO_ANSWER = Answer(status=0)
"""The request is taken, the connection is reset."""
HANG = Answer(status=0, then="hang")

Behaviour = Answer | Callable[[Seen], Answer]


class ScriptedServer:
    """`on()` says what a route answers, in order, the last one for ever; `seen` is what was asked."""

    def __init__(self, context: ssl.SSLContext | None = None, port: int = 0, host: str = "127.0.0.1") -> None:
        self.seen: list[Seen] = []
        self.stopping = threading.Event()
        self._routes: dict[tuple[str, str], list[Behaviour]] = {}
        self._lock = threading.Lock()
        self._server = _Server((host, port), self, context)
        self.port: int = self._server.server_address[1]
        self.address = f"{host}:{self.port}"
        self.url = f"{'https' if context else 'http'}://{self.address}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def on(self, method: str, path: str, *behaviours: Behaviour) -> None:
        with self._lock:
            self._routes[(method, path)] = list(behaviours)

    def asked(self, method: str, path: str) -> list[Seen]:
        return [seen for seen in self.seen if (seen.method, seen.path) == (method, path)]

    @property
    def posted(self) -> Seen:
        """The last thing that was sent to be kept."""
        return [seen for seen in self.seen if seen.method == "POST"][-1]

    def cut_connections(self) -> None:
        """Ends every connection that is open; waits until each is really closed."""
        self._server.cut_connections()

    def take(self, seen: Seen) -> Answer:
        with self._lock:
            self.seen.append(seen)
            behaviours = self._routes.get((seen.method, seen.path))
            if not behaviours:
                return error(404, "not_found", f"no route {seen.method} {seen.path}")
            behaviour = behaviours.pop(0) if len(behaviours) > 1 else behaviours[0]
        return behaviour if isinstance(behaviour, Answer) else behaviour(seen)

    def __enter__(self) -> ScriptedServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Closes the port and every connection, as a killed server does."""
        if self.stopping.is_set():
            return
        self.stopping.set()
        self._server.shutdown()
        self._thread.join()
        self._server.cut_connections()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], owner: ScriptedServer, context: ssl.SSLContext | None) -> None:
        self.owner = owner
        self.context = context
        self.open: set[socket.socket] = set()
        super().__init__(address, _Handler)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        connection: socket.socket = request
        if self.context:
            try:
                connection = self.context.wrap_socket(request, server_side=True)
            except OSError:
                request.close()
                return
        self.open.add(connection)
        try:
            super().process_request_thread(connection, client_address)
        finally:
            self.open.discard(connection)

    def cut_connections(self) -> None:
        for connection in list(self.open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        while self.open:
            time.sleep(0.001)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are part of the game."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def _serve(self) -> None:
        split = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        query = {name: " ".join(values) for name, values in parse_qs(split.query).items()}
        headers = {name.lower(): value for name, value in self.headers.items()}
        self._send(self.server.owner.take(Seen(self.command, split.path, query, headers, body, self.client_address[1])))

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = _serve

    def _send(self, answer: Answer) -> None:
        if answer.status:
            (self.send_response_only if "Date" in answer.headers else self.send_response)(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            if answer.lines is None:
                self.send_header("Content-Length", str(len(answer.body)))
            else:
                self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            if self.command != "HEAD":
                self._send_body(answer)
        if answer.then == "hang":
            self.server.owner.stopping.wait()
        if answer.then or answer.cut is not None or not answer.status:
            self.close_connection = True
        if self.close_connection and answer.then != "close":
            # Reset rather than end: a killed process's kernel does the same when data is under way.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _send_body(self, answer: Answer) -> None:
        if answer.lines is None:
            self.wfile.write(answer.body[: answer.cut])
            return
        for line in answer.lines:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
        if not answer.then and answer.cut is None:
            self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_: object) -> None:
        pass


def serve_text(answer: bytes) -> contextlib.AbstractContextManager[int]:
    """A server that speaks neither TLS nor HTTP: says `answer` (b"": hangs up) to whoever connects. Gives its port."""

    @contextlib.contextmanager
    def running() -> Iterator[int]:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            stop = threading.Event()
            listener.settimeout(0.02)

            def loop() -> None:
                while not stop.is_set():
                    with contextlib.suppress(OSError):
                        connection, _ = listener.accept()
                        with connection:
                            connection.settimeout(1)
                            connection.recv(4096)
                            connection.sendall(answer)

            thread = threading.Thread(target=loop)
            thread.start()
            try:
                yield listener.getsockname()[1]
            finally:
                stop.set()
                thread.join()

    return running()
