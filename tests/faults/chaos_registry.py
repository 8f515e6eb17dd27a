"""A registry that comes and goes, in the network of the engine that pulls from it."""

from __future__ import annotations

import fcntl
import struct
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from tests.engine.needs import EngineError
from tests.engine.private import PrivateEngine
from tests.engine.registry import start_registry
from tests.faults.ledger import socket_in

SIOCSIFFLAGS, IFF_UP = 0x8914, 1
PORT = 5000
SECONDS = 20.0


class EngineRegistry:
    """`folder` (which is made) belongs to it alone. Raises EngineError when it does not take an image."""

    def __init__(self, engine: PrivateEngine, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._engine = engine
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def offer(self, image: str, name: str) -> str:
        """Has an image of the engine; the reference by which it is pulled."""
        reference = f"localhost:{PORT}/{name}"
        self._set_up_loopback()
        self.come()
        self._engine.docker("tag", image, reference)
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                self._engine.docker("push", "--quiet", reference)
            except EngineError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
            else:
                return reference

    def come(self) -> None:
        if self._process is None:
            self._process = start_registry(self._folder, PORT, self._engine.network)

    def _set_up_loopback(self) -> None:
        """In a new network it is down."""
        with socket_in(self._engine.network) as any_socket:
            fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))

    def go(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def go_while_needed(self, reference: str) -> None:
        """It goes, and the engine no longer has the image by its name: the next container has to wait for both."""
        self.go()
        with suppress(EngineError):  # it has gone already
            self._engine.docker("rmi", "--force", "--no-prune", reference, timeout=10)
