"""People who type commands of Hecaton: real console scripts as real processes, each person with a home of their own."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from hecaton.testing.cluster import LocalCluster
from tests.cli.screen import Terminal

COMMANDS = Path(sys.executable).parent
PATIENCE = 60.0


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


class Running:
    """A command that goes on. All that it says is in `said()`."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self._log = log

    def __enter__(self) -> Running:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def said(self) -> str:
        return self._log.read_text(errors="replace")

    def until(self, pattern: str, seconds: float = PATIENCE) -> re.Match[str]:
        """Waits until it has said so."""
        deadline = time.monotonic() + seconds
        while True:
            ended = self.process.poll() is not None
            if found := re.search(pattern, self.said()):
                return found
            assert not ended, f"it ended with {self.process.returncode} before it said {pattern!r}:\n{self.said()}"
            assert time.monotonic() < deadline, f"it did not say {pattern!r}:\n{self.said()}"
            time.sleep(0.02)

    def stop(self, number: int = signal.SIGTERM, seconds: float = PATIENCE) -> int:
        """Signal it and wait for its end; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(seconds)


class Person:
    """`folder` is where they work; it holds their HECATON_HOME too."""

    def __init__(self, folder: Path, **environment: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HECATON_") or "TEST" in name}
        home = {"HOME": str(folder), "HECATON_HOME": str(folder / "home"), "XDG_RUNTIME_DIR": str(folder)}
        path = {"PATH": f"{COMMANDS}:{kept['PATH']}", "PYTHONUNBUFFERED": "1"}
        self.environment = {**kept, **home, **path, **environment}
        self._started = 0

    def write(self, name: str, content: str | bytes) -> Path:
        path = self.folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def types(self, line: str, environment: Mapping[str, str] | None = None, *, code: int = 0) -> Ended:
        """A command line as it stands in the README; it has to end with this exit code."""
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=self.folder,
            env={**self.environment, **(environment or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == code, f"{line}\nended with {done.returncode}:\n{done.stdout}{done.stderr}"
        return Ended(done.returncode, done.stdout, done.stderr)

    def starts(self, line: str, environment: Mapping[str, str] | None = None) -> Running:
        """A command line that goes on while others are typed. Use it as a context manager."""
        self._started += 1
        log = self.folder / f"started-{self._started}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["bash", "-c", f"exec env {line}"],
                cwd=self.folder,
                env={**self.environment, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        return Running(process, log)

    def at_terminal(self, *command: str) -> Terminal:
        """A command on a real terminal, where it may ask."""
        return Terminal(["env", *(f"{name}={value}" for name, value in self.environment.items()), *command])

    def logs_in(self, address: str, username: str, password: str) -> Person:
        self.types(f"hecaton server new --ip {address} --name my-server")
        self.types("hecaton server login my-server", {"HECATON_USERNAME": username, "HECATON_PASSWORD": password})
        return self


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def mount(cluster: LocalCluster, worker: str, *mounts: str) -> str:
    """What `hecaton-gpu mount` says to the admin of that worker's machine."""
    command = [str(COMMANDS / "hecaton-gpu"), "mount", "--name", worker, *mounts]
    done = subprocess.run(command, env=cluster.environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr
