"""The control socket in a worker's folder: whoever may enter that folder asks the worker's process to leave what runs
to its next process, and waits until it has.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

LEAVE = b"leave\n"
HEARD = b"leaving\n"
NAME = "control"

LEAVE_SECONDS = 30.0
"""More than a worker takes to leave."""


class Control:
    """The worker's end. A connection stays open until `close`: its end says that the worker is gone."""

    def __init__(self, folder: Path, leave: Callable[[], None]) -> None:
        self._folder = folder
        self._leave = leave
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def open(self) -> None:
        """In the place of what an earlier process left. The folder keeps strangers out. Raises OSError."""
        (self._folder / NAME).unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with _address(self._folder) as address:
            listener.bind(address)
        self._server = await asyncio.start_unix_server(self._serve, sock=listener)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        with contextlib.suppress(OSError, ValueError):
            if await reader.readline() == LEAVE:
                writer.write(HEARD)
                self._leave()
                return
        self._open.discard(writer)
        writer.close()

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in self._open:
            writer.close()


def leave(folder: Path) -> bool:
    """Ask the worker of this folder to leave what runs, and wait until it is gone. False: none listens, or it does not
    go."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.settimeout(LEAVE_SECONDS)
        try:
            with _address(folder) as address:
                asking.connect(address)
            asking.sendall(LEAVE)
            said = b""
            while piece := asking.recv(100):
                said += piece
        except OSError:
            return False
    return said == HEARD


@contextlib.contextmanager
def _address(folder: Path) -> Iterator[str]:
    """Through the open folder: a Unix socket's address has at most 108 bytes, and the folder's path may be longer."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{NAME}"
    finally:
        os.close(fd)
