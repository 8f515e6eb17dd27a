"""Real services for the rivals and for comparison, on loopback, each in a folder of its own and gone afterwards.

Standard library only: the rivals' programs use it too."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

START_SECONDS = 30.0
STOP_SECONDS = 10.0
SEARCH_PATH = os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin"


class Missing(Exception):
    """A program that the benchmark needs is not installed; the message names it."""


class Service:
    """A process, its children, and its log file; `stop` ends them all."""

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        *,
        environment: Mapping[str, str] | None = None,
        user: str | None = None,
        stop_signal: int = signal.SIGTERM,
    ) -> None:
        self._log, self._stop_signal, self._name = log, stop_signal, Path(command[0]).name
        with log.open("ab") as output:
            self.child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
                user=user,
                group=pwd.getpwnam(user).pw_gid if user else None,
                extra_groups=[] if user else None,
            )

    @property
    def pid(self) -> int:
        return self.child.pid

    def wait_until(self, ready: Callable[[], bool], seconds: float = START_SECONDS) -> None:
        """Raises RuntimeError with the end of its log if it ends before or takes too long."""
        deadline = time.monotonic() + seconds
        while not ready():
            if self.child.poll() is not None or time.monotonic() > deadline:
                said = self._log.read_text(errors="replace")[-2000:]
                self.stop()
                raise RuntimeError(f"{self._name} did not start:\n{said}")
            time.sleep(0.02)

    def wait_for_port(self, port: int) -> None:
        self.wait_until(lambda: answers(port))

    def said(self, text: str) -> bool:
        return text in self._log.read_text(errors="replace")

    def stop(self) -> None:
        if self.child.poll() is None:
            self.child.send_signal(self._stop_signal)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.child.wait(STOP_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.child.pid, signal.SIGKILL)  # what it may have left; its group is its own
        self.child.wait()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


def find(program: str, package: str, *folders: Path) -> str:
    """Path of an installed program. Raises Missing, with the name of Debian's package."""
    search = os.pathsep.join([SEARCH_PATH, *map(str, folders)])
    found = shutil.which(program, path=search)
    if found is None:
        raise Missing(f"{program} is not installed (on Debian: apt-get install {package})")
    return found


def redis(folder: Path, *, durable: bool) -> tuple[Service, int]:
    """A Redis that keeps nothing, or that fsyncs every write before it answers. Gives its port, too."""
    port = free_port()
    command = [find("redis-server", "redis-server"), "--bind", "127.0.0.1", "--port", str(port)]
    command += ["--dir", str(folder), "--save", "", "--appendonly", "yes" if durable else "no"]
    if durable:
        command += ["--appendfsync", "always"]
    service = Service(command, folder / "redis.log")
    service.wait_for_port(port)
    return service, port


def postgres(folder: Path) -> tuple[Service, str]:
    """PostgreSQL with its own defaults (durable) on a Unix socket. Gives the connection string, too."""
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    initdb, server = (find(name, "postgresql", *binaries) for name in ("initdb", "postgres"))
    user = system_user() if os.geteuid() == 0 else None  # it refuses to run as root
    data, log = folder / "data", folder / "postgres.log"
    folder.mkdir(exist_ok=True)
    if user:
        shutil.chown(folder, user)
    made = Service([initdb, "--pgdata", str(data), "--username", "bench", "--auth", "trust"], log, user=user)
    if made.child.wait() != 0:
        raise RuntimeError(f"initdb failed:\n{log.read_text(errors='replace')[-2000:]}")
    command = [server, "-D", str(data), "-k", str(folder), "-c", "listen_addresses="]
    # SIGINT is its fast shutdown: SIGTERM would wait for clients.
    service = Service(command, log, user=user, stop_signal=signal.SIGINT)
    service.wait_until(lambda: service.said("ready to accept connections"))
    return service, f"host={folder} user=bench dbname=postgres"


def system_user() -> str:
    """An account for programs that refuse to run as root."""
    names = {entry.pw_name for entry in pwd.getpwall()}
    for name in ("postgres", "nobody"):
        if name in names:
            return name
    raise Missing("PostgreSQL refuses to run as root, and there is no user postgres or nobody")


NGINX = """\
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log;
user {user};
events {{ }}
http {{
  access_log off;
  sendfile on;
  client_max_body_size 0;
  client_body_temp_path {folder}/body;
  server {{
    listen 127.0.0.1:{port};
    root {folder}/files;
    dav_methods PUT;
  }}
}}
"""


def nginx(folder: Path) -> tuple[Service, int]:
    """nginx that takes PUT into its folder `files` and gives it back with sendfile. Gives its port, too."""
    port = free_port()
    (folder / "files").mkdir(parents=True)
    user = pwd.getpwuid(os.geteuid()).pw_name
    configuration = folder / "nginx.conf"
    configuration.write_text(NGINX.format(folder=folder, port=port, user=user))
    command = [find("nginx", "nginx"), "-e", str(folder / "nginx.log"), "-c", str(configuration)]
    service = Service(command, folder / "nginx.log")
    service.wait_for_port(port)
    return service, port
