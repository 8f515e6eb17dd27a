"""The Docker daemon of the tests: the one that answers, or else one started here that outlives the test run.

Everything else in this package talks to it through `docker()`."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.engine.needs import SEARCH_PATH, EngineError, require

START_SECONDS = 60.0
PID_FILES = (Path("/var/run/docker.pid"), Path("/var/run/docker/containerd/containerd.pid"))


def docker(*arguments: str, stdin: bytes | None = None, timeout: float = 600) -> str:
    """Run the docker command and return its stdout, stripped; EngineError with its stderr when it fails.

    The classic builder is asked for: it needs no plugin."""
    done = subprocess.run(
        ["docker", *arguments],
        input=b"" if stdin is None else stdin,
        capture_output=True,
        env={**os.environ, "PATH": SEARCH_PATH, "DOCKER_BUILDKIT": "0"},
        timeout=timeout,
    )
    if done.returncode != 0:
        said = (done.stdout[-2000:] + done.stderr[-2000:]).decode(errors="replace").strip()
        raise EngineError(f"docker {' '.join(arguments[:4])} failed with exit code {done.returncode}: {said}")
    return done.stdout.decode(errors="replace").strip()


def answers() -> str | None:
    """The version of the engine that answers where the docker command looks for it, or None."""
    try:
        return docker("version", "--format", "{{.Server.Version}}", timeout=20)
    except (EngineError, FileNotFoundError, subprocess.TimeoutExpired):
        return None


def up() -> str:
    """Make an engine answer and return its version; a second caller waits for the first one."""
    if version := answers():
        return version
    with exclusive():
        require("docker", "dockerd", "iptables")
        return answers() or _start()


def down() -> bool:
    """Stop the daemon that `up` started; False when it started none (the daemon of the machine is never touched)."""
    pid = started_pid()
    if pid is None:
        return False
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + 30
    while _alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    if _alive(pid):
        raise EngineError(f"dockerd (process {pid}) does not end; its log is {log_path()}.")
    _pid_path().unlink()
    return True


def started_pid() -> int | None:
    """Process id of the daemon that `up` started, while it lives."""
    try:
        pid = int(_pid_path().read_text())
    except (FileNotFoundError, ValueError):
        return None
    return pid if _alive(pid) and _command(pid) == "dockerd" else None


def state_folder() -> Path:
    """Where the set-up keeps its log, its lock and what it unpacks: private to the user, outside any test's scratch."""
    folder = Path("/var/tmp") / f"hecaton-engine-{os.geteuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if folder.is_symlink() or found.st_uid != os.geteuid():
        raise EngineError(f"{folder} belongs to somebody else; remove it.")
    return folder


def log_path() -> Path:
    """The log of a daemon started by `up`."""
    return state_folder() / "dockerd.log"


@contextmanager
def exclusive() -> Iterator[None]:
    """One set-up at a time on this machine: two test runs may start together."""
    with (state_folder() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _start() -> str:
    if os.geteuid() != 0:
        raise EngineError(
            "No Docker engine answers, and starting one needs root. Start Docker and run the tests again."
        )
    for path in PID_FILES:
        _clear_stale(path)
    # A shell in between makes the daemon nobody's child; it holds neither the test's output nor its environment.
    environment = {k: v for k, v in os.environ.items() if k != "TMPDIR" and not k.startswith("HECATON_")}
    started = subprocess.run(
        ["sh", "-c", 'dockerd >"$0" 2>&1 </dev/null & echo $!', str(log_path())],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd="/",
        env={**environment, "PATH": SEARCH_PATH},
        start_new_session=True,
    )
    pid = int(started.stdout)
    _pid_path().write_text(str(pid))
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if version := answers():
            return version
        if not _alive(pid):
            break
        time.sleep(0.1)
    tail = log_path().read_text(errors="replace")[-2000:]
    raise EngineError(f"dockerd did not start; {log_path()} ends with:\n{tail}")


def _clear_stale(path: Path) -> None:
    """Remove the pid file of a dead daemon: one that nobody reaped still looks alive to the next daemon."""
    try:
        pid = int(path.read_text())
    except (FileNotFoundError, ValueError):
        return
    if not _alive(pid) or _command(pid) not in ("dockerd", "containerd"):
        path.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _pid_path() -> Path:
    return state_folder() / "dockerd.pid"
