"""What a test run has left on the machine: processes, containers, networks, temporary folders.

Every process that a test starts inherits a marker in its environment: daemons that lost their parent are found too."""

from __future__ import annotations

import contextlib
import os
import signal
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from tests.engine.daemon import docker
from tests.engine.needs import EngineError

MARKER = "HECATON_TEST_RUN"
WORKER_LABEL = "hecaton.worker"
# Helpers of Python's multiprocessing belong to the test process and end with it.
OWN_HELPERS = (b"multiprocessing.resource_tracker", b"multiprocessing.forkserver")


@dataclass
class Traces:
    """Finds what started after it was made. `folder` is the run's own: all of its tests work below it."""

    folder: Path
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    engine_in_use: bool = False
    _before: frozenset[str] = frozenset()

    @property
    def scratch(self) -> Path:
        """What TMPDIR names during the run; programs that clean up leave it empty."""
        return self.folder / "scratch"

    def watch_engine(self) -> None:
        """From now on containers and networks count; those that exist already belong to somebody else."""
        self._before = frozenset([*_containers(), *_networks()])
        self.engine_in_use = True

    def found(self) -> list[str]:
        """One line for each thing that is still there."""
        lines = [f"process {pid}: {command}" for pid, command in self._processes().items()]
        lines += [f"temporary file or folder {path}" for path in self._temporary()]
        if self.engine_in_use:
            lines += [f"container {name}: {text}" for name, text in self._new_containers().items()]
            lines += [f"network {name}" for name in _networks() if name not in self._before]
        return lines

    def wait_until_none(self, seconds: float = 10) -> list[str]:
        """Give what is just ending the time to end; returns what is left after that."""
        deadline = time.monotonic() + seconds
        while (left := self._surely_ours()) and time.monotonic() < deadline:
            time.sleep(0.1)
        return left

    def _surely_ours(self) -> list[str]:
        """A network does not tell whose it is. While others work here it may be theirs: the last to end looks at it."""
        found = self.found()
        return [line for line in found if not line.startswith("network ")] if found and self._others() else found

    def remove(self) -> None:
        """End the left-over processes and containers, so that the next run starts clean."""
        for pid in self._processes():
            os.kill(pid, signal.SIGKILL)
        if self.engine_in_use:
            for name in self._new_containers():
                docker("rm", "--force", "--volumes", name)

    def _processes(self) -> dict[int, str]:
        wanted = f"{MARKER}={self.mark}".encode()
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                environment = (folder / "environ").read_bytes().split(b"\0")
                command = (folder / "cmdline").read_bytes()
            except OSError:
                continue
            if wanted in environment and not any(helper in command for helper in OWN_HELPERS):
                found[int(folder.name)] = command.replace(b"\0", b" ").decode(errors="replace").strip()
        return found

    def _others(self) -> bool:
        """Whether other runs, or other processes of this run, are still there."""
        own = f"{MARKER}={self.mark}".encode()
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                marks = [
                    one for one in (folder / "environ").read_bytes().split(b"\0") if one.startswith(MARKER.encode())
                ]
                if marks and own not in marks:
                    return True
        return False

    def _temporary(self) -> list[Path]:
        entries = self.scratch.iterdir() if self.scratch.exists() else []
        return [entry for entry in entries if not entry.name.startswith("pymp-")]

    def _new_containers(self) -> dict[str, str]:
        new = {name: text for name, text in _containers().items() if name not in self._before}
        return {name: text for name, text in new.items() if not self._of_another_run(name)}

    def _of_another_run(self, container: str) -> bool:
        """Whatever a worker starts mounts a folder of its own: other runs, and other processes of this run, have other
        folders. What mounts nothing counts as ours."""
        form = "{{range .Mounts}}{{println .Source}}{{end}}"
        try:
            sources = docker("inspect", "--format", form, container).split("\n")
        except EngineError:  # it has gone meanwhile
            return True
        return any(sources) and not any(source.startswith(f"{self.folder}/") for source in sources)


def _containers() -> dict[str, str]:
    form = "{{.ID}}\t{{.Image}} ({{.Names}}, {{.Status}})"
    rows = docker("ps", "--all", "--no-trunc", "--filter", f"label={WORKER_LABEL}", "--format", form).splitlines()
    return {name: text for name, _, text in (row.partition("\t") for row in rows)}


def _networks() -> list[str]:
    return docker("network", "ls", "--quiet", "--no-trunc", "--filter", f"label={WORKER_LABEL}").splitlines()
