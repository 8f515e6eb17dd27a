"""Links that lose, repeat, cut and hold up what is said, and links that swallow everything for a while."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hecaton.client import Client
from hecaton.core.errors import Unreachable
from hecaton.testing.cluster import PASSWORD, LocalCluster
from tests.e2e.conftest import running, until
from tests.faults.figures import figure
from tests.faults.ledger import HANDLER, Ledger
from tests.faults.proxy import Fault, FaultyLink

pytestmark = pytest.mark.sample(1)

LOSSY = 0.35
SUBMITTERS = 8
SLOTS = ("--slots", "4")

HOLE = figure(4.0, 60.0)
LOST_AFTER = figure(8.0, 120.0)
"""The worker takes its server for dead within half of this, and gives the connection up: in the middle of the hole."""


@pytest.fixture
def cluster(tmp_path: Path, ledger: Ledger) -> Iterator[LocalCluster]:
    environment = {**os.environ, **ledger.environment}
    options = ("--lost-after", f"{LOST_AFTER:g}")
    with LocalCluster(tmp_path / "home", environment=environment, server_options=options) as cluster:
        cluster.register("work")
        yield cluster


def test_jobs_over_lossy_links_are_all_done_and_none_twice(cluster: LocalCluster, ledger: Ledger, seed: int) -> None:
    """35 of 100 requests and frames are lost, unacknowledged, repeated on the next connection, cut or held up."""
    jobs = figure(200, 2000)
    with FaultyLink(cluster.port, seed=seed) as clients, FaultyLink(cluster.port, seed=seed + 1) as workers:
        for name in ("one", "two"):
            cluster.start_worker(name, handlers={"work": HANDLER}, server=workers.url, options=SLOTS)
        clients.rate = workers.rate = LOSSY
        client = cluster.client(clients.url)
        with ThreadPoolExecutor(SUBMITTERS) as submitters:
            list(submitters.map(lambda n: ledger.submit(client, "work", n), range(jobs)))
        ledger.read_all(client, figure(120.0, 480.0))
        clients.rate = workers.rate = 0.0
        ledger.read_all(client, 60.0)
        verdict = ledger.verdict()
        print(verdict, clients, workers, sep="\n")
        verdict.check()
        assert verdict.jobs == jobs
        assert set(clients.counts) == set(workers.counts) == set(Fault), "each kind of fault happened"


def test_a_black_hole_before_the_worker_costs_no_execution(cluster: LocalCluster, ledger: Ledger, seed: int) -> None:
    """Jobs end in the middle of it, run on over its end, and wait: each in its first attempt."""
    with FaultyLink(cluster.port, seed=seed) as link:
        worker = cluster.start_worker("one", handlers={"work": HANDLER}, server=link.url, options=SLOTS)
        client = cluster.client()
        lengths = (HOLE / 2, HOLE / 2, 1.5 * HOLE, 1.5 * HOLE)
        jobs = [ledger.submit(client, "work", n, sleep=seconds) for n, seconds in enumerate(lengths)]
        until(lambda: len(ledger.executions()) == len(jobs), "all of them run")
        with link.black_hole():
            began = time.monotonic()
            ledger.submit(client, "work", 9)
            worker.wait_for("Lost the connection", LOST_AFTER)
            time.sleep(max(0.0, began + HOLE - time.monotonic()))
            assert [job.status() for job in jobs] == ["IN_PROGRESS"] * len(jobs), "nobody knows better yet"
        for view in [job.wait(LOST_AFTER) for job in jobs]:
            assert view.attempt == 1
        ledger.read_all(client, 30)
        ledger.verdict().check()


def test_a_black_hole_before_the_client_costs_the_client_time_and_makes_no_second_job(
    cluster: LocalCluster, ledger: Ledger, seed: int
) -> None:
    cluster.start_worker("one", handlers={"work": HANDLER}, options=SLOTS)
    with (
        FaultyLink(cluster.port, seed=seed) as link,
        Client(link.url, timeout=1.0) as client,
        ThreadPoolExecutor(2) as others,
    ):
        client.login("admin", PASSWORD)
        job = running(ledger.submit(client, "work", 0, sleep=HOLE / 2))
        with link.black_hole():
            waiting = others.submit(job.wait, 3 * HOLE)
            submitting = others.submit(ledger.submit, client, "work", 1)
            with pytest.raises(Unreachable, match=r"did not answer|took too long"):
                client.jobs()
            time.sleep(HOLE)
            assert not waiting.done()
            assert not submitting.done()
        assert waiting.result(30).attempt == 1
        submitting.result(30)
        assert len(client.jobs().jobs) == 2
        ledger.read_all(client, 30)
        ledger.verdict().check()
