"""Jobs through a server, workers and a Docker engine that are killed, paused, restarted and upgraded at random, a
registry that comes and goes, and a worker's disk that fills: `make chaos`.

`python -m tests.faults.chaos --jobs 10000 --faults 200`; `--seed N` plays the same plan of faults again. The exit
code is 0 if no acknowledged job is lost, none has a wrong or a second result or the line of another one in its log, and
nothing is left behind.
"""

from __future__ import annotations

import argparse
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from hecaton.testing.cluster import LocalCluster
from tests.engine.private import PrivateEngine, private_engine
from tests.engine.python_image import NAME as PYTHON
from tests.engine.python_image import python_image
from tests.faults.chaos_client import Task
from tests.faults.chaos_machine import Machine
from tests.faults.chaos_plan import Fault, counts, make_plan
from tests.faults.ledger import Ledger, Verdict

CLIENTS = 2
DOCKER_EVERY = 10
FAULT_SECONDS = 1.5
PATIENCE = 180.0
"""Seconds that everything may take to end after the last fault; a machine that is shared is slow."""
TIDY_SECONDS = 30.0
EXTRA_PERCENT = 5.0
PROGRESS_SECONDS = 10.0


class Outcome:
    def __init__(self, seed: int, plan: Sequence[Fault]) -> None:
        self.seed = seed
        self.plan = plan
        self.seconds = 0.0
        self.verdict: Verdict | None = None
        self.problems: list[str] = []
        self.left: list[str] = []
        self.notes: list[str] = []

    def faults(self) -> list[str]:
        """What must not be, in words."""
        assert self.verdict is not None
        return [*self.problems, *self.verdict.faults(EXTRA_PERCENT), *self.left]

    def table(self) -> str:
        verdict = self.verdict
        assert verdict is not None
        rows = [
            ("jobs acknowledged", f"{verdict.jobs:,}"),
            ("faults", f"{len(self.plan)}"),
            *((f"  {what}", str(count)) for what, count in sorted(counts(self.plan).items())),
            ("lost", str(len(verdict.lost))),
            ("duplicate results", str(len(verdict.duplicates))),
            ("wrong results", str(len(verdict.wrong))),
            ("failed for the machines' sake", str(len(verdict.failed))),
            ("mixed logs", str(len(verdict.mixed))),
            ("attempts executed twice", str(len(verdict.repeated))),
            ("overlaps of jobs that may not", str(len(verdict.overlaps))),
            ("extra executions", f"{verdict.extra} ({verdict.extra_percent:.2f} %; at most {EXTRA_PERCENT:.0f} %)"),
            ("left behind", str(len(self.left))),
            *(("note", note) for note in self.notes),
            ("seconds", f"{self.seconds:.0f}"),
            ("seed", str(self.seed)),
        ]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


class Chaos:
    def __init__(self, machine: Machine, ledger: Ledger, jobs: int, outcome: Outcome, say: Progress) -> None:
        self._machine = machine
        self._ledger = ledger
        self._jobs = jobs
        self._outcome = outcome
        self._say = say

    def run(self) -> None:
        """Raises HecatonError, EngineError: something did not come back."""
        plan = self._outcome.plan
        seconds = plan[-1].at + FAULT_SECONDS
        clients = [self._start_client(number, seconds) for number in range(CLIENTS)]
        began = time.monotonic()
        try:
            for number, fault in enumerate(plan):
                self._keep_up(began + fault.at, f"{number}/{len(plan)} faults")
                self._machine.strike(fault)
            self._keep_up(began + seconds, "all faults")
            self._machine.heal()
            self._say.now(f"healed after {time.monotonic() - began:.0f} s; the rest of the jobs ends")
            self._finish(clients, time.monotonic() + PATIENCE)
        finally:
            for client in clients:
                client.kill()
                client.wait()

    def _start_client(self, number: int, seconds: float) -> subprocess.Popen[bytes]:
        share = self._jobs // CLIENTS
        task = Task(
            url=self._machine.cluster.url,
            token=self._machine.cluster.client().token,
            ledger=str(self._ledger.folder),
            seed=self._outcome.seed,
            first=number * share,
            count=share if number < CLIENTS - 1 else self._jobs - number * share,
            seconds=seconds,
            patience=seconds + PATIENCE,
            process_image=self._machine.process_image,
            docker_image=self._machine.docker_image,
            docker_every=DOCKER_EVERY,
        )
        return subprocess.Popen(task.command(), stdin=subprocess.DEVNULL)

    def _keep_up(self, until: float, where: str) -> None:
        while (now := time.monotonic()) < until:
            self._outcome.problems += self._machine.keep_up()
            self._say.sometimes(lambda: f"{where}, {self._ledger.counts()}")
            time.sleep(max(0.0, min(0.05, until - now)))

    def _finish(self, clients: Sequence[subprocess.Popen[bytes]], deadline: float) -> None:
        while any(client.poll() is None for client in clients) and time.monotonic() < deadline:
            self._keep_up(time.monotonic() + 0.5, "healed")
        for client in clients:
            if client.poll() != 0:
                self._outcome.problems.append(f"a client process ended with {client.returncode}")
        if len(self._ledger.jobs()) != self._jobs:
            self._outcome.problems.append(f"only {len(self._ledger.jobs())} of {self._jobs} jobs were acknowledged")
        self._say.now("every job is read once more")
        self._ledger.read_all(self._machine.cluster.client(), max(1.0, deadline - time.monotonic()))
        self._outcome.verdict = self._ledger.verdict()
        self._outcome.left = self._machine.left_behind(TIDY_SECONDS)
        self._outcome.notes = self._machine.notes()


class Progress:
    def __init__(self) -> None:
        self._began = time.monotonic()
        self._next = 0.0

    def now(self, text: str) -> None:
        print(f"{time.monotonic() - self._began:5.0f} s  {text}", flush=True)

    def sometimes(self, text: Callable[[], str]) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + PROGRESS_SECONDS
            self.now(text())


def run(
    folder: Path, engine: PrivateEngine, jobs: int, faults: int, seed: int, fault_seconds: float = FAULT_SECONDS
) -> Outcome:
    """One run in an empty folder, with `fault_seconds` on average from one fault to the next; `engine` has the image of
    Python, and no containers."""
    began = time.monotonic()
    say = Progress()
    outcome = Outcome(seed, make_plan(seed, faults, faults * fault_seconds))
    ledger = Ledger(folder / "ledger")
    say.now(f"seed {seed}: {jobs:,} jobs, {faults} faults in {outcome.plan[-1].at:.0f} s")
    with ExitStack() as stack:
        listening = stack.enter_context(ledger.listening(engine.network))
        environment = {**os.environ, **ledger.environment, "DOCKER_HOST": engine.host}
        cluster = LocalCluster(folder / "home", server_options=["--lost-after", "4"], environment=environment)
        machine = Machine(cluster, engine, PYTHON, listening)
        stack.callback(machine.close)
        stack.enter_context(cluster)
        machine.start()
        say.now("server and workers are up")
        Chaos(machine, ledger, jobs, outcome, say).run()
    outcome.seconds = time.monotonic() - began
    return outcome


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.chaos", description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--seed", type=int, help="the plan of faults of an earlier run")
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="work in this new folder and leave it: logs, ledger"
    )
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else secrets.randbelow(2**32)
    with ExitStack() as stack:
        folder = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos-")))
        engine = stack.enter_context(private_engine(Path(stack.enter_context(tempfile.TemporaryDirectory()))))
        engine.load(python_image())
        outcome = run(folder.absolute(), engine, options.jobs, options.faults, seed)
    print(outcome.table())
    if found := outcome.faults():
        print("\n".join(["", "This may not be:", *found]))
        return 1
    print("\nNothing was lost, nothing was done twice unseen, nothing was left behind.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
