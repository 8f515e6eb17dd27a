"""What the chaos run strikes: a server, workers on processes and on containers, an engine; and a supervisor who
starts again what has ended, as systemd does."""

from __future__ import annotations

import heapq
import itertools
import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from hecaton.testing.cluster import LocalCluster, Process
from hecaton.worker.control import leave
from hecaton.worker.runtimes.port import LABEL_WORKER
from tests.engine.needs import EngineError
from tests.engine.private import PrivateEngine
from tests.faults.chaos_plan import (
    CONTAINERS,
    DISK,
    ENGINE,
    HANDLERS,
    PROCESS_WORKERS,
    REGISTRY,
    SERVER,
    WORKERS,
    Fault,
    Kind,
)
from tests.faults.chaos_registry import EngineRegistry
from tests.faults.ledger import HANDLER
from tests.faults.upgraded import COMMAND

PROCESS_IMAGE = "work"
SLOTS = 2
OPTIONS = ("--slots", str(SLOTS))
SMALL_DISK = PROCESS_WORKERS[-1]
"""This worker's folder is on a disk of its own, which fills."""
DISK_SIZE, DISK_LEFT = 48 * 2**20, 128 * 2**10
RESTART_SECONDS = 1.0
"""Until a supervisor starts again what ended by itself."""


class Machine:
    process_image = PROCESS_IMAGE

    def __init__(
        self, cluster: LocalCluster, engine: PrivateEngine, docker_image: str, listening: Mapping[str, str]
    ) -> None:
        self.cluster = cluster
        self._leaving: dict[str, Future[bool]] = {}
        self._upgraded: set[str] = set()
        self.docker_image = docker_image
        self._engine = engine
        self._registry = EngineRegistry(engine, cluster.folder / "registry")
        self._disk = cluster.folder / "worker" / SMALL_DISK
        self._listening = listening
        self._live_restore = False
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._away: set[str] = set()  # what a fault has ended and is to be started again
        self._ended: Counter[str] = Counter()
        self._aside = ThreadPoolExecutor(1 + len(WORKERS))
        self._starting: list[Future[None]] = []
        self._missed = 0
        self._foreign: list[str] = []

    def start(self) -> None:
        self._build()
        self._disk.mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_SIZE}", "tmpfs", str(self._disk)], check=True)
        self.docker_image = self._registry.offer(self.docker_image, "python:3")
        self.cluster.register(PROCESS_IMAGE, self.docker_image)
        self.cluster.client().update_image(self.docker_image, env=self._listening)
        for name in WORKERS:
            self._start_worker(name)
        for name in WORKERS:
            self.cluster.wait_connected(name)
        self._foreign = [
            self._engine.docker("create", "--name", "somebody-elses", self.docker_image, "sleep", "1d"),
            self._engine.docker("run", "--detach", "--restart", "always", self.docker_image, "sleep", "1d"),
        ]

    def _build(self) -> None:
        """The handler as an image of its own too: its jobs may go to either kind of worker."""
        folder = self.cluster.folder / "build"
        folder.mkdir()
        shutil.copy(HANDLER, folder / "handler.py")
        variables = "\n".join(f"ENV {name}={value}" for name, value in self._listening.items())
        lines = f'FROM {self.docker_image}\n{variables}\nCOPY handler.py /\nCMD ["python3", "/handler.py"]\n'
        (folder / "Dockerfile").write_text(lines)
        self._engine.docker("build", "--quiet", "--tag", PROCESS_IMAGE, str(folder))

    # -- faults -----------------------------------------------------------------------------------------

    def strike(self, fault: Fault) -> None:
        target = fault.target
        if target in (HANDLERS, CONTAINERS):
            self._strike_one(fault)
        elif target == ENGINE:
            self._strike_engine(fault)
        elif target == REGISTRY:
            self._registry.go_while_needed(self.docker_image)
            self._in(fault.seconds, self._registry.come)
        elif target == DISK:
            self._fill_disk()
            self._in(fault.seconds, self._ballast.unlink)
        elif fault.kind in (Kind.RESTART, Kind.UPGRADE):
            self._restart_in_order(fault)
        else:
            self._strike_process(fault)

    def keep_up(self) -> list[str]:
        """Carry out what is due, and start again what has ended. Gives what may not be, in words."""
        while self._later and self._later[0][0] <= time.monotonic():
            heapq.heappop(self._later)[2]()
        problems = []
        for name in [name for name, left in self._leaving.items() if left.done()]:
            self._come_again(name)
        for name in (SERVER, *WORKERS):
            process = self._process(name)
            if name not in self._away and process.child.poll() is not None:
                said = process.said().strip().splitlines()[-5:]
                self._ended[name] += 1
                if name == SERVER:
                    problems.append("\n".join([f"the server ended by itself with {process.child.returncode}:", *said]))
                self._away.add(name)
                self._in(RESTART_SECONDS, lambda name=name: self._restart(name))  # type: ignore[misc]
        return problems

    def heal(self) -> None:
        """All that is still to come back comes back now."""
        while self._later:
            heapq.heappop(self._later)[2]()
        for started in self._starting:
            started.result()
        for name in list(self._leaving):
            self._come_again(name)
        for name in WORKERS:
            self.cluster.wait_connected(name, 60)

    def close(self) -> None:
        """Also after a run that broke off: nobody else would end the handlers of a worker that is down."""
        self._aside.shutdown()
        self._registry.go()
        for pid in self._handlers():
            self._signal(pid, signal.SIGKILL)
        subprocess.run(["umount", "--lazy", str(self._disk)], check=False)

    def _strike_process(self, fault: Fault) -> None:
        process = self._process(fault.target)
        if fault.target in self._away:
            self._missed += 1  # it had ended by itself, and is not back yet
        elif fault.kind is Kind.PAUSE:
            process.send_signal(signal.SIGSTOP)
            self._in(fault.seconds, lambda: process.send_signal(signal.SIGCONT))
        else:
            process.kill()
            self._away.add(fault.target)
            self._in(fault.seconds, lambda: self._restart(fault.target))

    def _restart_in_order(self, fault: Fault) -> None:
        """As `hecaton-gpu restart` does: the worker leaves what runs to its next process."""
        if fault.target in self._away:
            self._missed += 1
            return
        self._away.add(fault.target)
        if fault.kind is Kind.UPGRADE:
            self._upgraded.add(fault.target)
        self._leaving[fault.target] = self._aside.submit(leave, self.cluster.folder / "worker" / fault.target)

    def _come_again(self, name: str) -> None:
        """Whether it has left in order or not, as a service."""
        if not self._leaving.pop(name).result():
            self._missed += 1
        self._process(name).kill()
        self._restart(name)

    def _strike_engine(self, fault: Fault) -> None:
        if fault.kind is Kind.PAUSE:
            self._engine.freeze()
            self._in(fault.seconds, self._engine.thaw)
        else:
            self._engine.kill()
            self._in(fault.seconds, lambda: self._start_engine(fault.live_restore))

    @property
    def _ballast(self) -> Path:
        return self._disk / "ballast"

    def _fill_disk(self) -> None:
        """But for what small jobs need for a moment."""
        with self._ballast.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(2**20))
        os.truncate(self._ballast, max(0, self._ballast.stat().st_size - DISK_LEFT))

    def _start_engine(self, live_restore: bool) -> None:
        """Aside: it may take ten seconds, because it first ends what its predecessor ran."""
        self._starting.append(self._aside.submit(self._engine.start, live_restore=live_restore))

    def _strike_one(self, fault: Fault) -> None:
        """One of the handlers that run, or of the containers."""
        if fault.target == CONTAINERS:
            found = self._engine.containers(f"label={LABEL_WORKER}", "status=running")
            if found:
                with suppress(EngineError):  # it ended meanwhile
                    self._engine.docker("kill", found[int(fault.draw * len(found))], timeout=10)
        else:
            pids = sorted(self._handlers())
            found = [str(pid) for pid in pids]
            if pids:
                pid = pids[int(fault.draw * len(pids))]
                self._signal(pid, signal.SIGSTOP if fault.kind is Kind.PAUSE else signal.SIGKILL)
                if fault.kind is Kind.PAUSE:
                    self._in(fault.seconds, lambda: self._signal(pid, signal.SIGCONT))
        self._missed += not found

    def _in(self, seconds: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._later, (time.monotonic() + seconds, next(self._order), what))

    def _process(self, name: str) -> Process:
        if name != SERVER:
            return self.cluster.workers[name]
        assert self.cluster.server is not None
        return self.cluster.server

    def _restart(self, name: str) -> None:
        self._away.discard(name)
        if name == SERVER:
            self.cluster.start_server()
        else:
            self._start_worker(name)

    def _start_worker(self, name: str) -> None:
        handlers = {PROCESS_IMAGE: HANDLER} if name in PROCESS_WORKERS else None
        under = COMMAND if name in self._upgraded else ()
        self.cluster.start_worker(name, handlers=handlers, options=OPTIONS, under=under, wait=False)

    def _handlers(self) -> Iterator[int]:
        """Processes of the process runtime; those in containers see another folder."""
        prefix = f"HECATON_DIR={self.cluster.folder}".encode()
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if any(entry.startswith(prefix) for entry in (folder / "environ").read_bytes().split(b"\0")):
                    yield int(folder.name)

    @staticmethod
    def _signal(pid: int, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, number)

    # -- afterwards -------------------------------------------------------------------------------------

    def left_behind(self, seconds: float) -> list[str]:
        """Containers, processes, folders and networks beyond those that idle workers keep warm; then what is left
        when the workers have stopped. And our neighbours' containers, if one is missing."""
        found = self._until_none(lambda: self._orphans(SLOTS), seconds)
        for name in WORKERS:
            self.cluster.workers[name].send_signal(signal.SIGTERM)
        for name in WORKERS:
            self.cluster.workers[name].stop(seconds=60)
        found += self._until_none(lambda: self._orphans(0), seconds)
        there = self._engine.containers()
        return found + [f"a container that was not ours is gone: {one}" for one in self._foreign if one not in there]

    def _orphans(self, warm: int) -> list[str]:
        """`warm`: containers that a worker may have."""
        handlers = Counter({name: 0 for name in PROCESS_WORKERS})
        for pid in self._handlers():
            with suppress(OSError):
                environment = Path(f"/proc/{pid}/environ").read_bytes()
                handlers += Counter(name for name in PROCESS_WORKERS if f"/worker/{name}/".encode() in environment)
        containers = self._engine.containers(f"label={LABEL_WORKER}")
        networks = self._engine.docker("network", "ls", "--quiet", "--filter", f"label={LABEL_WORKER}").split()
        found = [f"network {network}" for network in networks]
        if len(containers) > warm:
            found.append(f"{len(containers)} containers: {containers}")
        for name in WORKERS:
            folders = [path.name for path in (self.cluster.folder / "worker" / name / "c").glob("*")]
            if len(folders) > warm:
                found.append(f"{len(folders)} folders of containers of {name}: {folders}")
            if handlers[name] > warm:
                found.append(f"{handlers[name]} handlers of {name}")
        return found

    @staticmethod
    def _until_none(look: Callable[[], list[str]], seconds: float) -> list[str]:
        deadline = time.monotonic() + seconds
        while (found := look()) and time.monotonic() < deadline:
            time.sleep(0.2)
        return found

    def notes(self) -> list[str]:
        found = [f"{name} ended by itself {count} times and was started again" for name, count in self._ended.items()]
        if self._missed:
            found.append(f"{self._missed} faults met nothing that ran")
        return found
