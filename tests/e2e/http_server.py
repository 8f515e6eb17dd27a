"""A server as images bring them: it knows nothing of Hecaton. What it does wrong is asked for by path."""

from __future__ import annotations

import http.server
import json
import os
import socketserver
import time

BEGAN = time.monotonic()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        print("looked at", path, flush=True)
        if path == "/health":
            loaded = time.monotonic() - BEGAN > 0.5
            self._answer(200 if loaded else 503, "text/plain", b"loaded" if loaded else b"loading")
        elif path == "/seen":
            seen = {"query": query, "word": self.headers.get("X-Word")}
            self._answer(200, "application/json", json.dumps(seen).encode())
        elif path == "/away":
            self.send_response(302)
            self.send_header("Location", "http://169.254.169.254/latest")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif path == "/large":
            self._answer(200, "application/octet-stream", b"x" * int(query))
        elif path == "/claims-json":
            self._answer(200, "application/json", b"{half")
        elif path == "/half":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"half")
            self.close_connection = True
        elif path == "/garbage":
            self.wfile.write(b"\x00\x01 this is no HTTP\r\n\r\n")
            self.close_connection = True
        elif path == "/slow":
            with open("/tmp/asked", "a") as asked:
                asked.write("x")
            time.sleep(float(query))
            with open("/tmp/asked") as asked:
                self._answer(200, "application/json", str(len(asked.read())).encode())
        elif path == "/exit":
            print("out of order", flush=True)
            os._exit(3)
        else:
            self._answer(404, "text/plain", b"there is /seen")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        print("serving", self.path, len(body), flush=True)
        if self.path == "/fails":
            self._answer(500, "application/json", b'{"error": "no weights"}')
        else:
            self._answer(200, self.headers["Content-Type"] or "", body)

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *words: object) -> None:
        """Its log is what it prints."""


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True


if __name__ == "__main__":
    Server(("127.0.0.1", 9100), Handler).serve_forever()
