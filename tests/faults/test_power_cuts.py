"""Power cuts of a machine with server and worker, under load: the disk keeps what was synced and forgets the rest."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest

from hecaton.core.model import Charged
from hecaton.testing.cluster import LocalCluster
from tests.faults.figures import figure
from tests.faults.ledger import HANDLER, Ledger
from tests.faults.power import Boot, Disk, fragile_disk, freeze_all_of, kill_all_of

CUTS = figure(2, 20)
CLIENTS = 3
PATIENCE = 120.0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with fragile_disk(tmp_path) as disk:
        yield disk


@pytest.fixture
def boot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Boot:
    return Boot(tmp_path, monkeypatch)


def test_the_disk_of_these_tests_forgets_what_was_not_synced(disk: Disk) -> None:
    """Without this the tests below would show nothing."""
    synced, not_synced = disk.folder / "synced", disk.folder / "not synced"
    with synced.open("w") as file:
        file.write("first")
        file.flush()
        os.fsync(file.fileno())
    folder = os.open(disk.folder, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)
    not_synced.write_text("second")
    disk.cut()
    disk.back()
    assert synced.read_text() == "first"
    assert not not_synced.exists()


@contextmanager
def load(cluster: LocalCluster, ledger: Ledger, random: Random) -> Iterator[None]:
    """Clients that submit jobs and read results, over cuts and all, until the block ends."""
    over = threading.Event()
    failures: list[BaseException] = []

    def work(first: int, sleeps: Random) -> None:
        client = cluster.client()
        try:
            for n in range(first, 10**9, CLIENTS):
                if over.is_set():
                    return
                job = ledger.submit(client, "work", n, sleep=sleeps.choice((0, 0, 0, 0.05, 0.2)))
                if n % 2 == 0:
                    ledger.read_result(client, job.id, PATIENCE)
        except BaseException as error:
            failures.append(error)

    # Daemons: when the test has failed there may be no server for which it pays to wait.
    threads = [threading.Thread(target=work, args=(n, Random(random.random())), daemon=True) for n in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert not failures, failures


def test_power_cuts_under_load_lose_nothing_that_was_acknowledged(
    tmp_path: Path, disk: Disk, boot: Boot, ledger: Ledger, seed: int
) -> None:
    random = Random(seed)
    with LocalCluster(disk.folder / "home", environment={**os.environ, **ledger.environment}) as cluster:
        cluster.register("work")
        cluster.start_worker("one", handlers={"work": HANDLER}, options=("--slots", "3"))
        with load(cluster, ledger, random):
            for cut in range(CUTS):
                time.sleep(random.uniform(0.5, 1.5))
                # As without power: an fsync that the kernel gives up in this moment may still report success.
                freeze_all_of(cluster)
                disk.cut(random)
                kill_all_of(cluster)
                disk.back()
                boot.again()
                assert "is whole" in checked(cluster), f"after cut {cut}"
                cluster.start_server()
                cluster.start_worker("one", handlers={"work": HANDLER}, options=("--slots", "3"))
        client = cluster.client()
        ledger.read_all(client, PATIENCE)
        verdict = ledger.verdict()
        print(f"{CUTS} power cuts: {verdict}")
        assert verdict.jobs > CUTS
        verdict.check(extra_percent=100)
        charged = [
            (job, attempt)
            for job in ledger.jobs()
            for attempt in client.job(job).attempts
            if attempt.charged not in (None, Charged.NONE)
        ]
        assert charged == [], "a power cut is nobody's fault"


def checked(cluster: LocalCluster) -> str:
    """What `hecaton-server check` says of the files that the cut has left, before anybody mends them."""
    command = [sys.executable, "-c", "from hecaton._entry import server; server()", "check"]
    done = subprocess.run(command, env=cluster.environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
