"""A real Docker engine that is stopped, killed, frozen and cut off power, with jobs running on it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hecaton.core.model import WorkerStatus
from tests.engine.private import PrivateEngine
from tests.faults.figures import figure
from tests.faults.ledger import Ledger
from tests.faults.power import Boot, kill_all_of
from tests.faults.site import IMAGE, WORKER, Site, running_site

pytestmark = pytest.mark.sample(2)

PAUSE = figure(8.0, 30.0)
RECOVERY = figure(15.0, 5.0)
"""Seconds after the engine's return. The promise is 5 on a machine that does nothing else."""


@pytest.fixture
def site(own_engine: PrivateEngine, ledger: Ledger, tmp_path: Path) -> Iterator[Site]:
    with running_site(tmp_path / "home", own_engine, ledger) as site:
        yield site


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_restart_of_the_engine_with_live_restore_executes_nothing_again(
    own_engine: PrivateEngine, ledger: Ledger, tmp_path: Path, end: str
) -> None:
    own_engine.stop()
    own_engine.start(live_restore=True)
    with running_site(tmp_path / "home", own_engine, ledger) as site:
        site.runs(2, 5.0)
        getattr(own_engine, end)()
        time.sleep(1)
        own_engine.start(live_restore=True)
        site.ended()
        ledger.verdict().check()
        site.runs(2, 0)
        site.ended()
        ledger.verdict().check()


def test_an_engine_that_hangs_executes_nothing_again(site: Site) -> None:
    site.runs(2, PAUSE / 2)  # they end while nobody answers
    site.engine.freeze()
    time.sleep(PAUSE)
    site.engine.thaw()
    thawed = time.monotonic()
    site.runs(2, 0)
    print(f"jobs run {time.monotonic() - thawed:.1f} s after an engine that hung for {PAUSE:g} s answers again")
    assert time.monotonic() - thawed < RECOVERY
    site.ended()
    site.ledger.verdict().check()


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_jobs_whose_containers_end_with_the_engine_run_again_at_its_cost(site: Site, end: str) -> None:
    site.runs(2, 3.0)
    getattr(site.engine, end)()
    down = time.monotonic()
    site.engine.start()
    back = time.monotonic()
    recovered = site.until(lambda: len(site.executions(down)) >= 2, "both jobs run again") - back
    print(f"jobs run {recovered:.1f} s after the engine's return")
    assert recovered < RECOVERY
    views = site.ended()
    site.ledger.verdict().check(extra_percent=100)
    assert {attempt.reason for view in views for attempt in view.attempts[:-1]} == {"worker_error"}
    assert {who for _, _, who in site.charged()} <= {"infra"}, "not the user's fault"
    assert [worker.status for worker in site.client.workers()] == [WorkerStatus.ONLINE]


def test_a_power_cut_of_all_machines_is_counted_against_nobody(
    own_engine: PrivateEngine, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boot = Boot(tmp_path, monkeypatch)
    with running_site(tmp_path / "home", own_engine, ledger) as site:
        site.runs(2, 2.0)
        kill_all_of(site.cluster)
        own_engine.cut_power()
        boot.again()
        site.cluster.start_server()
        own_engine.start()
        with ledger.listening(own_engine.network) as place:  # the network went with the power too
            site.client.update_image(IMAGE, env=place)
            site.worker()
            site.ended()
        ledger.verdict().check(extra_percent=100)
        assert site.charged() == []
        (worker,) = site.client.workers()
        assert (worker.name, worker.status) == (WORKER, WorkerStatus.ONLINE)
