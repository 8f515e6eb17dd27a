"""Servers and workers that stand still for a while (SIGSTOP), and servers that are away for long."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hecaton.client import JobHandle
from hecaton.testing.cluster import LocalCluster, Process
from tests.e2e.conftest import running, until
from tests.faults.figures import figure
from tests.faults.ledger import HANDLER, Ledger

pytestmark = pytest.mark.sample(2)

RECOVERY = 5.0
"""Seconds after the end of a fault in which everything goes on by itself."""

SLACK = figure(3.0, 1.0)
"""How many times longer the small run may take: its machine may be busy with other tests."""


@pytest.fixture
def own(tmp_path: Path, ledger: Ledger) -> Iterator[LocalCluster]:
    """Its leases are short: each fault here lasts longer than `lost_after`."""
    environment = {**os.environ, **ledger.environment}
    options = ("--lost-after", f"{LOST_AFTER:g}")
    with LocalCluster(tmp_path / "home", environment=environment, server_options=options) as cluster:
        cluster.register("work")
        yield cluster


LOST_AFTER = figure(3.0, 10.0)
PAUSE = figure(4.5, 30.0)


@contextmanager
def stopped(process: Process) -> Iterator[None]:
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def jobs_at_work(ledger: Ledger, cluster: LocalCluster, sleeps: tuple[float, ...]) -> list[JobHandle]:
    """One running job for each, in seconds, and none waiting."""
    jobs = [ledger.submit(cluster.client(), "work", n, sleep=sleep) for n, sleep in enumerate(sleeps)]
    until(lambda: len(ledger.executions()) == len(jobs), "all of them run")
    return jobs


def all_once(ledger: Ledger, cluster: LocalCluster, jobs: list[JobHandle], seconds: float) -> None:
    """All end, each in its first attempt, executed once, with the right result."""
    assert [job.wait(seconds).attempt for job in jobs] == [1] * len(jobs)
    ledger.read_all(cluster.client(), 30)
    ledger.verdict().check()


def test_a_paused_server_ends_no_lease(own: LocalCluster, ledger: Ledger) -> None:
    """Jobs end during its pause, and run on after it; two workers, one of which gives its connection up meanwhile."""
    for name in ("one", "two"):
        own.start_worker(name, handlers={"work": HANDLER}, options=("--slots", "2"))
    jobs = jobs_at_work(ledger, own, (PAUSE / 2, PAUSE / 2, PAUSE + 2, PAUSE + 2))
    assert own.server is not None
    with stopped(own.server):
        time.sleep(PAUSE)
    healed = time.monotonic()
    for job in jobs[:2]:
        job.wait(30)
    assert time.monotonic() - healed < RECOVERY * SLACK
    all_once(ledger, own, jobs, 30)


def test_a_worker_paused_for_less_than_lost_after_keeps_its_jobs(own: LocalCluster, ledger: Ledger) -> None:
    own.start_worker("other", handlers={"work": HANDLER})
    worker = own.start_worker("one", handlers={"work": HANDLER}, options=("--slots", "2"))
    jobs = jobs_at_work(ledger, own, (LOST_AFTER, LOST_AFTER, LOST_AFTER))
    with stopped(worker):
        time.sleep(LOST_AFTER / 2)
    all_once(ledger, own, jobs, 30)


def test_a_worker_paused_for_longer_loses_its_job_and_its_late_result_is_refused(
    own: LocalCluster, ledger: Ledger
) -> None:
    for name in ("one", "two"):
        own.start_worker(name, handlers={"work": HANDLER})
    job = running(ledger.submit(own.client(), "work", 1, sleep=1.0))
    until(lambda: len(ledger.executions()) == 1, "it runs")
    first = job.view().worker
    assert first is not None
    with stopped(own.workers[first]):
        until(lambda: len(ledger.executions()) == 2, "it runs elsewhere", 10 * LOST_AFTER)
    view = job.wait(30)
    assert view.attempt == 2
    assert view.worker != first
    until(lambda: {seen.name: seen.status for seen in own.client().workers()}[first] == "ONLINE", "it is back")
    ledger.read_all(own.client(), 30)
    ledger.verdict().check(extra_percent=100)
    again = [ledger.submit(own.client(), "work", n) for n in range(4)]
    assert [job.wait(30).attempt for job in again] == [1] * 4


def test_a_server_that_is_away_for_several_lost_after_costs_no_execution(own: LocalCluster, ledger: Ledger) -> None:
    """Results wait on the worker's disk; after its start the worker has a full `lost_after` to come back."""
    worker = own.start_worker("one", handlers={"work": HANDLER}, options=("--slots", "3"))
    jobs = jobs_at_work(ledger, own, (0.5, LOST_AFTER, 2.5 * LOST_AFTER))
    waiting = ledger.submit(own.client(), "work", 9)
    assert own.server is not None
    own.server.kill()
    time.sleep(2 * LOST_AFTER)
    with stopped(worker):  # not even as it comes back late
        own.start_server()
        time.sleep(0.6 * LOST_AFTER)
    all_once(ledger, own, [*jobs, waiting], 30)


def test_what_ended_while_the_server_was_away_is_delivered_within_ten_seconds(
    own: LocalCluster, ledger: Ledger
) -> None:
    count = figure(20, 100)
    own.start_worker("one", handlers={"work": HANDLER}, options=("--slots", str(count)))
    jobs = jobs_at_work(ledger, own, tuple(2.0 + n / count for n in range(count)))
    assert own.server is not None
    own.server.kill()
    until(lambda: all(execution.ended for execution in ledger.executions()), "all of them have ended", 60)
    time.sleep(figure(0.0, 60.0))  # by then the worker asks as seldom as it ever does
    own.start_server()
    began = time.monotonic()
    all_once(ledger, own, jobs, 60)
    assert time.monotonic() - began < 10 * SLACK
