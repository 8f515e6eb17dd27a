"""Wall clocks that jump by an hour, forwards and backwards, at the server, a worker or a client: nobody else
notices."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hecaton.client import JobFailed
from hecaton.core.lifecycle import RETRY_DELAY
from hecaton.testing.cluster import LocalCluster
from tests.e2e.conftest import ACTOR, until
from tests.faults import wall_clock
from tests.faults.ledger import HANDLER, Ledger
from tests.faults.test_pauses import LOST_AFTER, all_once, jobs_at_work
from tests.faults.wall_clock import WallClock

pytestmark = pytest.mark.sample(2)

HOUR = 3600

_CLIENT = """
import json, sys, time
from hecaton.client import Client
with Client(sys.argv[1], sys.argv[2]) as client:
    job = client.submit("work", {"n": 1, "sleep": float(sys.argv[3])}, queue_ttl=60)
    print(json.dumps([time.time(), time.monotonic(), job.id]), flush=True)
    attempt = job.result(timeout=60)["attempt"]
    print(json.dumps([time.time(), time.monotonic(), attempt]))
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wall_clock.build(tmp_path_factory.mktemp("wall-clock"))


@pytest.fixture
def clock(library: Path, tmp_path: Path) -> WallClock:
    return WallClock(library, tmp_path / "shift")


@pytest.fixture
def other_clock(library: Path, tmp_path: Path) -> WallClock:
    return WallClock(library, tmp_path / "other-shift")


@pytest.fixture
def own(tmp_path: Path, ledger: Ledger) -> Iterator[LocalCluster]:
    """A server that was started by no test yet."""
    environment = {**os.environ, **ledger.environment}
    cluster = LocalCluster(
        tmp_path / "home", environment=environment, server_options=("--lost-after", f"{LOST_AFTER:g}")
    )
    cluster.folder.mkdir(mode=0o700)
    yield cluster
    cluster.close()


def begin(own: LocalCluster, **clocks: WallClock) -> None:
    """Server and worker, each with the clock that is given for it."""
    shifts = {who: clock.environment for who, clock in clocks.items()}
    own.start_server(environment=shifts.get("server"))
    own.register("work", "actor")
    handlers = {"work": HANDLER, "actor": ACTOR}
    own.start_worker("one", handlers=handlers, options=("--slots", "2"), environment=shifts.get("worker"))


def test_jobs_run_and_wait_while_clocks_jump(
    own: LocalCluster, ledger: Ledger, clock: WallClock, other_clock: WallClock
) -> None:
    """That of the server, that of the worker, and both against each other."""
    begin(own, server=clock, worker=other_clock)
    jobs = jobs_at_work(ledger, own, (LOST_AFTER, LOST_AFTER))
    jobs += [ledger.submit(own.client(), "work", n, timeout=60, queue_ttl=60) for n in range(4)]
    for server, worker in ((HOUR, 0), (-HOUR, 0), (0, HOUR), (0, -HOUR), (HOUR, -HOUR), (0, 0)):
        clock.shift(server)
        other_clock.shift(worker)
        time.sleep(LOST_AFTER / 6)
        jobs.append(ledger.submit(own.client(), "work", 9, queue_ttl=60))
    all_once(ledger, own, jobs, 30)
    (seen,) = own.client().workers()
    assert seen.status == "ONLINE"


def test_a_client_whose_clock_is_wrong_and_jumps_is_served_as_any_other(own: LocalCluster, clock: WallClock) -> None:
    begin(own)
    token = own.client().login("admin", own.environment["HECATON_ADMIN_PASS"]).token
    clock.shift(HOUR)
    began, wall = time.monotonic(), time.time()
    with subprocess.Popen(
        [sys.executable, "-c", _CLIENT, own.url, token, "1"],
        env={**own.environment, **clock.environment},
        stdout=subprocess.PIPE,
        text=True,
    ) as client:
        assert client.stdout is not None
        submitted = json.loads(client.stdout.readline())
        clock.shift(-HOUR)
        ended = json.loads(client.stdout.readline())
    assert submitted[0] - wall == pytest.approx(HOUR, abs=60), "its clock was wrong"
    assert ended[0] - wall == pytest.approx(-HOUR, abs=60), "and jumped"
    assert began < submitted[1] < ended[1] < time.monotonic()
    assert ended[2] == 1


@pytest.mark.parametrize("shift", [HOUR, -HOUR])
def test_a_server_that_starts_again_at_another_time_goes_on(
    own: LocalCluster, ledger: Ledger, clock: WallClock, shift: int
) -> None:
    """Logins hold, running jobs go on, and what waits for its next attempt does not wait for an hour more."""
    begin(own, server=clock)
    client = own.client()
    jobs = jobs_at_work(ledger, own, (LOST_AFTER / 2,))
    retried = client.submit("actor", {"raise": "an error"}, retries=1)
    until(lambda: (retried.view().attempt, retried.status()) == (1, "IN_QUEUE"), "it waits")
    assert own.server is not None
    own.server.kill()
    clock.shift(shift)
    own.start_server(environment=clock.environment)
    jobs.append(ledger.submit(client, "work", 7))
    all_once(ledger, own, jobs, 30)
    view = retried.view()
    if not view.state.terminal:
        waits = re.search(r"the next attempt starts in (\d+) s", str(view.waiting))
        assert waits is None or int(waits[1]) <= max(RETRY_DELAY)


def test_a_job_waits_no_longer_in_the_queue_for_a_clock_that_was_set_back_over_a_restart(
    own: LocalCluster, clock: WallClock
) -> None:
    own.start_server(environment=clock.environment)
    own.register("nobody")
    waiting = own.client().submit("nobody", queue_ttl=10)
    assert own.server is not None
    own.server.kill()
    clock.shift(-HOUR)
    own.start_server(environment=clock.environment)
    with pytest.raises(JobFailed, match="queue_ttl"):
        waiting.result(timeout=60)
