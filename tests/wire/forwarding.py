"""An HTTP proxy for tests: forwards requests and opens tunnels, and knows the hosts below `.invalid` and in 2001:db8::,
which nobody else knows: they are this machine."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from types import TracebackType
from urllib.parse import urlsplit


class ForwardingProxy:
    """`asked`: the first line of each request. `logins`: what was said in Proxy-Authorization."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.logins: list[str] = []
        self._server = _Server(("127.0.0.1", 0), self)
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        self.url = f"http://{self.address}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def __enter__(self) -> ForwardingProxy:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        for connection in list(self._server.open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._server.server_close()


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = False

    def __init__(self, address: tuple[str, int], owner: ForwardingProxy) -> None:
        self.owner = owner
        self.open: set[socket.socket] = set()
        super().__init__(address, _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that go away are part of the game."""


class _Handler(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        line = self.rfile.readline().decode()
        headers = []
        while (header := self.rfile.readline()).strip():
            headers.append(header)
        self.server.owner.asked.append(line.strip())
        named = {name.strip().lower(): value.strip() for name, _, value in (h.decode().partition(":") for h in headers)}
        self.server.owner.logins.append(named.get("proxy-authorization", ""))
        method, target, version = line.split()
        place = urlsplit(f"//{target}" if method == "CONNECT" else target)
        host = str(place.hostname)
        if host.endswith(".invalid") or host.startswith("2001:db8:"):
            host = "127.0.0.1"
        with socket.create_connection((host, place.port or 80)) as onward:
            if method == "CONNECT":
                self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
            else:
                path = place.path + (f"?{place.query}" if place.query else "")
                kept = [h for h in headers if not h.lower().startswith((b"proxy-", b"connection:"))]
                kept.append(b"Connection: Upgrade\r\n" if "upgrade" in named else b"Connection: close\r\n")
                onward.sendall(f"{method} {path} {version}\r\n".encode() + b"".join(kept) + b"\r\n")
            self.server.open |= {onward, self.connection}
            back = threading.Thread(target=_pipe, args=(onward, self.connection))
            back.start()
            while data := self.rfile.read1(65536):  # what was read ahead first
                onward.sendall(data)
            with contextlib.suppress(OSError):
                onward.shutdown(socket.SHUT_WR)
            back.join()
            self.server.open -= {onward, self.connection}


def _pipe(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)
