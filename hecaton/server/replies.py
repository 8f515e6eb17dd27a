"""How replies leave: the head in one piece with what follows it. Used by `patience`."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class Replying(HttpToolsProtocol):
    """uvicorn's protocol for HTTP/1.1, which by itself sends a reply's head as soon as it is known: for each reply one
    system call more, and one wake-up of the client for nothing."""

    # hot: benchmarks/throughput.py

    def on_headers_complete(self) -> None:
        before = self.cycle
        super().on_headers_complete()
        if self.cycle is not before and self.scope["method"] != "HEAD":
            self.cycle.transport = _HeadWithBody(self.transport)  # type: ignore[assignment]


class _HeadWithBody:
    """What a reply is written to. Keeps its head until the next piece comes, which may be empty."""

    __slots__ = ("_head", "_joined", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head = b""
        self._joined = False

    def write(self, data: bytes) -> None:
        if self._joined or data.startswith(b"HTTP/1.1 100 "):  # "go on and send the body": waits for no reply
            self._transport.write(data)
        elif self._head:
            self._joined = True
            self._transport.write(self._head + data)
        else:
            self._head = data

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def close(self) -> None:
        if not self._joined and self._head:
            self._transport.write(self._head)
        self._transport.close()
