"""Server, worker and a Docker engine of their own on one machine, with a ledger that sees what containers execute."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hecaton.client import Client, JobHandle
from hecaton.core.model import Charged, Mode
from hecaton.testing.cluster import LocalCluster
from hecaton.wire.api import JobView
from tests.engine.private import PrivateEngine
from tests.faults.ledger import HANDLER, Execution, Ledger

IMAGE = "python:3.9-slim"
WORKER = "one"
PATIENCE = 60.0


class Site:
    def __init__(self, cluster: LocalCluster, engine: PrivateEngine, ledger: Ledger, slots: int) -> None:
        self.cluster = cluster
        self.engine = engine
        self.ledger = ledger
        self.slots = slots

    @property
    def client(self) -> Client:
        return self.cluster.client()

    def worker(self) -> None:
        self.cluster.start_worker(WORKER, options=("--slots", str(self.slots)))

    def kill_worker(self) -> None:
        self.cluster.workers[WORKER].kill()

    def runs(self, jobs: int, seconds: float) -> list[JobHandle]:
        """That many jobs, when all of them are being executed."""
        before = len(self.ledger.executions())
        handles = [
            self.ledger.submit(self.client, IMAGE, n, sleep=seconds, mode=Mode.HANDLER, file=HANDLER, retries=0)
            for n in range(before, before + jobs)
        ]
        self.until(lambda: len(self.ledger.executions()) == before + jobs, "all jobs run")
        return handles

    def until(self, condition: Callable[[], bool], what: str, seconds: float = PATIENCE) -> float:
        """The time of the machine's monotonic clock when it is so."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                views = [self.client.job(job) for job in self.ledger.jobs()]
                said = self.cluster.workers[WORKER].said()[-3000:]
                raise AssertionError(f"not within {seconds:g} s: {what}\n{said}\n{views}")
            time.sleep(0.02)
        return time.monotonic()

    def ended(self) -> list[JobView]:
        """All jobs, when each has ended well and was read. AssertionError for what the contract forbids."""
        self.ledger.read_all(self.client, PATIENCE)
        return [self.client.job(job) for job in self.ledger.jobs()]

    def charged(self) -> list[tuple[str, str, str]]:
        """What was counted against anybody: job, reason and who pays."""
        return [
            (job, str(attempt.reason), str(attempt.charged))
            for job in self.ledger.jobs()
            for attempt in self.client.job(job).attempts
            if attempt.charged not in (None, Charged.NONE)
        ]

    def executions(self, after: float) -> list[Execution]:
        return [execution for execution in self.ledger.executions() if execution.began > after]


@contextmanager
def running_site(folder: Path, engine: PrivateEngine, ledger: Ledger, *options: str, slots: int = 2) -> Iterator[Site]:
    """`options`: of the server."""
    environment = {**os.environ, "DOCKER_HOST": engine.host}
    with (
        ledger.listening(engine.network) as place,
        LocalCluster(folder, server_options=options, environment=environment) as cluster,
    ):
        cluster.register(IMAGE)
        cluster.client().update_image(IMAGE, env=place)
        site = Site(cluster, engine, ledger, slots)
        site.worker()
        yield site
