"""A server and a worker as child processes in a temporary folder, for `hecaton demo`. Leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from hecaton.cli import interrupts
from hecaton.client import Client
from hecaton.core.errors import HecatonError

START_LIMIT = 60.0
"""Seconds that the server or the worker may take to come up, on a slow machine with a cold disk."""

STOP_LIMIT = 40.0
POLL = 0.05
PROCESS_IMAGE = "demo"


class Cluster:
    """Made by `started`. `image` is the one to submit jobs for: a real one, or a name for the process runtime."""

    def __init__(self, folder: Path, handler: Path, python_image: str | None) -> None:
        self.folder = folder
        self.handler = handler
        self.docker = python_image is not None
        self.image = python_image or PROCESS_IMAGE
        self.slots = max(1, min(4, os.cpu_count() or 1))
        self.url = f"http://127.0.0.1:{_free_port()}"
        self._password = secrets.token_urlsafe(16)
        self._processes: list[tuple[str, subprocess.Popen[bytes]]] = []

    def start_server(self) -> Client:
        port = self.url.rpartition(":")[2]
        self._spawn("server", ["--host", "127.0.0.1", "--port", port], {"HECATON_ADMIN_PASS": self._password})
        client = Client(self.url)
        self._until("server", lambda: bool(client.health().status))
        client.login("admin", self._password)
        client.add_image(self.image, "one row of the Mandelbrot set per job", verify=False)
        return client

    def start_worker(self, client: Client) -> None:
        arguments = ["run", self.url, "--name", "demo", "--slots", str(self.slots)]
        if not self.docker:
            arguments += ["--runtime", "process", "--handler", f"{PROCESS_IMAGE}={self.handler}"]
        self._spawn("worker", arguments, {"HECATON_USERNAME": "admin", "HECATON_PASSWORD": self._password})
        self._until("worker", lambda: any(worker.status == "ONLINE" for worker in client.workers()))

    def stop(self) -> None:
        """The worker first: it ends its containers and says goodbye."""
        while self._processes:
            _, process = self._processes[-1]
            process.terminate()
            try:
                process.wait(STOP_LIMIT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            self._processes.pop()

    def _spawn(self, name: str, arguments: list[str], secrets: dict[str, str]) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("HECATON_")}
        environment |= {"HECATON_HOME": str(self.folder), **secrets}
        code = f"import sys; sys.argv[0] = 'hecaton-{name}'; from hecaton._entry import {name}; {name}()"
        with self._log(name).open("wb") as log, interrupts.postponed():
            process = subprocess.Popen(
                [sys.executable, "-c", code, *arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for us: we stop them in order
            )
            self._processes.append((name, process))

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def _until(self, name: str, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_LIMIT
        while time.monotonic() < deadline:
            self.check()
            with contextlib.suppress(HecatonError):
                if ready():
                    return
            time.sleep(POLL)
        raise HecatonError(f"the {name} of the demo does not come up:\n{self._tail(name)}")

    def check(self) -> None:
        """Raises, with its last words, when the server or the worker has ended."""
        for name, process in self._processes:
            if process.poll() is not None:
                raise HecatonError(f"the {name} of the demo ended with code {process.returncode}:\n{self._tail(name)}")

    def _tail(self, name: str) -> str:
        return "\n".join(self._log(name).read_text(errors="replace").splitlines()[-15:])


@contextlib.contextmanager
def started(python_image: str | None) -> Iterator[Cluster]:
    """A cluster whose processes and files are gone at the end of the block, also after Ctrl-C and SIGTERM."""
    before = signal.signal(signal.SIGTERM, _end)
    folder = Path(tempfile.mkdtemp(prefix="hecaton-demo-"))
    try:
        handler = folder / "handler.py"
        shutil.copyfile(Path(__file__).with_name("handler.py"), handler)
        cluster = Cluster(folder, handler, python_image)
        try:
            yield cluster
        finally:
            with interrupts.ignored():
                cluster.stop()
    finally:
        with interrupts.ignored():
            shutil.rmtree(folder, ignore_errors=True)
        signal.signal(signal.SIGTERM, before)


def _end(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert isinstance(port, int)
    return port
