"""A Docker engine of a test's own, to kill, freeze and restart: no other engine of the machine notices.

It lives in namespaces of its own (processes, network, mounts), whose end is the end of all that it ever started."""

from __future__ import annotations

import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.engine.daemon import docker
from tests.engine.needs import SEARCH_PATH, EngineError, require

START_SECONDS = 60.0
# Process 1 of the namespace: it ignores the end of children, so that the kernel clears away those whose parent died.
# A daemon that was killed and is still there as a zombie would keep the next one from starting.
INIT = "echo up; exec env --ignore-signal=CHLD sleep infinity"


class PrivateEngine:
    """`folder` (in which it keeps images, socket and log) belongs to it alone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._data = folder / "data"
        self._log = folder / "dockerd.log"
        self._cgroup = f"hecaton-test-{uuid.uuid4().hex[:12]}"
        self._init: subprocess.Popen[bytes] | None = None
        self._daemon: subprocess.Popen[bytes] | None = None
        self._frozen: list[int] = []

    @property
    def host(self) -> str:
        """What DOCKER_HOST is for its clients."""
        return f"unix://{self._folder}/docker.sock"

    @property
    def network(self) -> Path:
        """Its network namespace: what listens there is what its containers reach at their gateway."""
        return Path(f"/proc/{self._namespaces()}/ns/net")

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def starting(self) -> bool:
        """A daemon is there, which may not answer yet."""
        return self._daemon is not None

    def docker(self, *arguments: str, timeout: float = 120) -> str:
        """The docker command on this engine."""
        return docker("--host", self.host, *arguments, timeout=timeout)

    def containers(self, *filters: str) -> list[str]:
        """Ids of all containers, running or not, that the filters (such as `label=...`) let through."""
        flags = [flag for name in filters for flag in ("--filter", name)]
        return self.docker("ps", "--all", "--quiet", "--no-trunc", *flags).split()

    def load(self, *images: str) -> None:
        """Give it images of the shared engine that it does not have yet, under their names."""
        missing = [image for image in images if not self.docker("images", "--quiet", image)]
        if not missing:
            return
        with subprocess.Popen(
            ["docker", "save", *missing], stdout=subprocess.PIPE, env={**os.environ, "PATH": SEARCH_PATH}
        ) as save:
            subprocess.run(
                ["docker", "--host", self.host, "load", "--quiet"],
                stdin=save.stdout,
                stdout=subprocess.DEVNULL,
                env={**os.environ, "PATH": SEARCH_PATH},
                check=True,
            )
        if save.returncode != 0:
            raise EngineError(f"docker save {' '.join(missing)} failed with exit code {save.returncode}.")

    def start(self, *, live_restore: bool = False) -> None:
        """Start the daemon, over the images and containers that are there, and wait until it answers, or until another
        thread has ended it: who did that wants no answer."""
        init = self._namespaces()
        environment = {k: v for k, v in os.environ.items() if not k.startswith("DOCKER_")}
        with self._log.open("ab") as log:
            daemon = self._daemon = subprocess.Popen(
                [
                    *("nsenter", "--target", str(init), "--pid", "--net", "--mount", "--"),
                    *("dockerd", "--host", self.host, "--data-root", str(self._data)),
                    *("--exec-root", f"{self._folder}/exec", "--pidfile", f"{self._folder}/docker.pid"),
                    *("--bip", "172.31.77.1/24", "--cgroup-parent", f"/{self._cgroup}"),
                    f"--live-restore={str(live_restore).lower()}",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                # A containerd that was frozen for a while is told to write its stacks down, in the temporary folder.
                env={**environment, "PATH": SEARCH_PATH, "TMPDIR": str(self._folder)},
                start_new_session=True,
            )
        self._wait(lambda: self._daemon is not daemon or self._answers(daemon), "answers")

    def stop(self) -> None:
        """As `systemctl stop docker` does; containers live on only with live-restore."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """kill -9 of the daemon, and with it of its containerd; the containers' own processes go on."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """SIGSTOP: the socket takes connections, nobody answers."""
        assert self._daemon is not None
        # nsenter stops itself together with its child, and has to go on with it.
        self._frozen = [self._pid(), self._daemon.pid]
        os.kill(self._frozen[0], signal.SIGSTOP)

    def thaw(self) -> None:
        for pid in self._frozen:
            os.kill(pid, signal.SIGCONT)
        self._frozen = []

    def cut_power(self) -> None:
        """Everything ends in the same moment, without a word: daemon, containerd, shims and containers."""
        if self._init is None:
            return
        # Process 1 takes all others of its namespace along. Its parent waits for it and ends with it.
        daemon, self._daemon = self._daemon, None
        for pid in _children(self._init.pid):
            os.kill(pid, signal.SIGKILL)
        self._init.wait()
        assert self._init.stdout is not None
        self._init.stdout.close()
        self._init = None
        if daemon is not None:
            daemon.wait()
        self._frozen = []
        # On a machine these are in a folder that is empty after a start.
        self._remove("exec", "docker.pid", "docker.sock")

    def renew(self) -> None:
        """As after a first start: it runs, without live-restore and without containers."""
        self.cut_power()
        self.start()
        if left := self.containers():
            self.docker("rm", "--force", "--volumes", *left)

    def close(self) -> None:
        """Nothing of it is left then but its log."""
        self.cut_power()
        if self._data.is_mount():
            subprocess.run(["umount", str(self._data)], check=True)
        # Groups of containers that ended with the power; a folder of the kernel's goes when it is empty.
        groups = [path for mounted in Path("/sys/fs/cgroup").glob("*") for path in mounted.glob(f"{self._cgroup}/**/")]
        groups += Path("/sys/fs/cgroup").glob(f"{self._cgroup}/**/")
        for path in sorted(groups, reverse=True):
            path.rmdir()

    def _remove(self, *names: str) -> None:
        for name in names:
            subprocess.run(["rm", "-rf", "--one-file-system", str(self._folder / name)], check=True)

    def _namespaces(self) -> int:
        """Process id of their process 1, as seen from outside."""
        if self._init is None:
            require("docker", "dockerd", "iptables")
            if not self._data.is_mount():  # in memory: thousands of small files come and go in no time
                self._data.mkdir()
                subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4g", "tmpfs", str(self._data)], check=True)
            with self._log.open("ab") as log:
                self._init = subprocess.Popen(
                    [
                        *("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--net", "--mount"),
                        # What tests mount later is seen in here, what is mounted in here is not seen outside.
                        *("--propagation", "slave", "sh", "-c", INIT),
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    start_new_session=True,
                )
            assert self._init.stdout is not None
            if self._init.stdout.readline() != b"up\n":
                raise EngineError("An engine of a test's own needs namespaces: run the tests as root.")
        return _children(self._init.pid)[0]

    def _pid(self) -> int:
        """nsenter starts the daemon and waits for it."""
        assert self._daemon is not None
        nsenter = self._daemon.pid
        self._wait(lambda: bool(_children(nsenter)), "is there")
        return _children(nsenter)[0]

    def _answers(self, daemon: subprocess.Popen[bytes]) -> bool:
        if daemon.poll() is not None and self._daemon is daemon:
            raise EngineError(f"The test's own dockerd ended:\n{self.log[-3000:]}")
        try:
            return bool(self.docker("version", "--format", "{{.Server.Version}}", timeout=10))
        except (EngineError, subprocess.TimeoutExpired):
            return False

    def _end(self, how: signal.Signals) -> None:
        pid, daemon = self._pid(), self._daemon
        assert daemon is not None
        self._daemon = None  # first: a thread that waits for its answer asks no more
        self._frozen = []
        os.kill(pid, how)
        daemon.wait(START_SECONDS)

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not condition():
            if time.monotonic() > deadline:
                raise EngineError(
                    f"Not within {START_SECONDS:.0f} s: the test's own dockerd {what}:\n{self.log[-3000:]}"
                )
            time.sleep(0.05)


@contextmanager
def private_engine(folder: Path) -> Iterator[PrivateEngine]:
    """One that runs, without images; nothing of it is left when the block ends."""
    engine = PrivateEngine(folder)
    try:
        engine.start()
        yield engine
    finally:
        engine.close()


def _children(pid: int) -> list[int]:
    """Processes whose parent it is."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] not in "ZX":
            found.append(int(path.parent.name))
    return found
