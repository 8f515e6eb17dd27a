"""A server and workers as real processes on this machine, in a folder of their own: for tests, benchmarks and the demo.

with LocalCluster(folder) as cluster:
    cluster.start_worker("one", handlers={"echo": Path("handler.py")})
    print(cluster.client().submit("echo", {"n": 1}).result(timeout=30))
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from hecaton.client import Client
from hecaton.core.errors import HecatonError, Unreachable
from hecaton.core.model import WorkerStatus

PASSWORD = "local-cluster"
START_SECONDS = 60.0
"""Much more than a start takes: this is the end of all patience."""
STOP_SECONDS = 15.0


class Process:
    """One command of Hecaton, with all that it says in a file."""

    def __init__(
        self,
        command: str,
        arguments: Sequence[str],
        log: Path,
        environment: Mapping[str, str],
        under: Sequence[str] = (),
    ) -> None:
        self.log = log
        self._name = command
        code = f"from hecaton._entry import {command}; {command}()"
        with log.open("ab") as output:
            self._begin = output.tell()
            self.child = subprocess.Popen(
                [*under, sys.executable, "-c", code, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=dict(environment),
                start_new_session=True,  # Ctrl-C goes to the caller, who stops things in order
            )

    @property
    def pid(self) -> int:
        return self.child.pid

    def said(self) -> str:
        with self.log.open("rb") as file:
            file.seek(self._begin)
            return file.read().decode("utf-8", "replace")

    def wait_for(self, pattern: str, seconds: float = START_SECONDS) -> re.Match[str]:
        """Until it says so. Raises Unreachable, with all that it said, if it ends or stays silent."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            ended = self.child.poll() is not None
            if match := re.search(pattern, self.said()):
                return match
            if ended:
                raise Unreachable(f"{self._name} ended with {self.child.returncode}:\n{self.said()}")
            time.sleep(0.02)
        raise Unreachable(f"{self._name} did not say {pattern!r} within {seconds:.0f} s:\n{self.said()}")

    def send_signal(self, number: int) -> None:
        self.child.send_signal(number)

    def stop(self, number: int = signal.SIGTERM, seconds: float = STOP_SECONDS) -> int:
        """Ask it to stop; after `seconds` kill it. Returns the exit code."""
        if self.child.poll() is None:
            self.child.send_signal(number)
        try:
            return self.child.wait(seconds)
        except subprocess.TimeoutExpired:
            self.child.kill()
            return self.child.wait()

    def kill(self) -> None:
        self.stop(signal.SIGKILL)


class LocalCluster:
    """`server_options` are flags of hecaton-server; the port stays the same over restarts."""

    def __init__(
        self, folder: Path, *, server_options: Sequence[str] = (), environment: Mapping[str, str] | None = None
    ) -> None:
        self.folder = folder
        self.environment = {
            **(os.environ if environment is None else environment),
            "HECATON_HOME": str(folder),
            "HECATON_ADMIN_PASS": PASSWORD,
        }
        self._server_options = tuple(server_options)
        self._port = 0
        self._token: str | None = None
        self.server: Process | None = None
        self.workers: dict[str, Process] = {}

    def __enter__(self) -> LocalCluster:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.start_server()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Workers first: they still tell the server that they leave."""
        for worker in self.workers.values():
            if worker.child.poll() is None:
                worker.send_signal(signal.SIGTERM)
        for worker in self.workers.values():
            worker.stop()
        if self.server is not None:
            self.server.stop()

    @property
    def port(self) -> int:
        return self._port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start_server(self, *, environment: Mapping[str, str] | None = None, under: Sequence[str] = ()) -> Process:
        """`environment`: what this process has beside the cluster's; `under`: the command that runs Python, such as a
        tracer's."""
        arguments = ["--host", "127.0.0.1", "--port", str(self._port), *self._server_options]
        surroundings = {**self.environment, **(environment or {})}
        self.server = Process("server", arguments, self.folder / "server.log", surroundings, under)
        self._port = int(self.server.wait_for(r"serves at https?://[^\s:]+:(\d+)")[1])
        return self.server

    def start_worker(
        self,
        name: str,
        *,
        handlers: Mapping[str, Path] | None = None,
        options: Sequence[str] = (),
        server: str | None = None,
        environment: Mapping[str, str] | None = None,
        under: Sequence[str] = (),
        wait: bool = True,
    ) -> Process:
        """With `handlers`, on the process runtime; without, on the Docker engine. `server`: the address that it is
        given, such as that of a proxy; `environment` and `under` as with `start_server`."""
        arguments = ["run", server or self.url, "--name", name, "--username", "admin", *options]
        if handlers is not None:
            arguments += ["--runtime", "process"]
            for image, path in handlers.items():
                arguments += ["--handler", f"{image}={path}"]
        surroundings = {**self.environment, "HECATON_PASSWORD": PASSWORD, **(environment or {})}
        self.workers[name] = Process("worker", arguments, self.folder / f"{name}.log", surroundings, under)
        if wait:
            self.wait_connected(name)
        return self.workers[name]

    def wait_connected(self, name: str, seconds: float = START_SECONDS) -> None:
        client = self.client()
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if any(view.name == name and view.status is WorkerStatus.ONLINE for view in client.workers()):
                return
            worker = self.workers[name]
            if worker.child.poll() is not None:
                raise Unreachable(f"worker {name} ended with {worker.child.returncode}:\n{worker.said()}")
            time.sleep(0.05)
        raise Unreachable(f"worker {name} did not connect within {seconds:.0f} s:\n{self.workers[name].said()}")

    def client(self, server: str | None = None) -> Client:
        """As the admin. Images: `register` below. `server`: another address than the server's own."""
        if self._token is None:
            self._token = Client(self.url).login("admin", PASSWORD).token
        return Client(server or self.url, self._token)

    def register(self, *images: str) -> None:
        """Make images known to the server, without asking any registry."""
        client = self.client()
        for image in images:
            try:
                client.add_image(image, verify=False)
            except HecatonError as error:
                if error.code != "conflict":
                    raise
