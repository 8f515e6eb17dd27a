"""A job that takes all it can get of its machine costs the machine's worker nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hecaton.core.model import Mode, WorkerStatus
from hecaton.testing.cluster import LocalCluster
from tests.faults.figures import figure

SECONDS = figure(8, 60)
LOST_AFTER = figure(3.0, 5.0)
"""Seconds of silence that would cost the worker its jobs: far less than it is starved for."""

BURNER = """
import os, time
from hecaton.serverless import start

def burn(data):
    end = time.monotonic() + data.input["seconds"]
    for _ in range(data.input["processes"] - 1):
        if os.fork() == 0:
            while time.monotonic() < end:
                pass
            os._exit(0)
    while time.monotonic() < end:
        pass
    return "burnt"

start(burn)
"""


@pytest.mark.usefixtures("python39_image")
def test_a_job_that_burns_all_cores_costs_no_lease(tmp_path: Path) -> None:
    handler = tmp_path / "burner.py"
    handler.write_text(BURNER)
    with LocalCluster(tmp_path / "home", server_options=("--lost-after", f"{LOST_AFTER:g}")) as cluster:
        cluster.register("python:3.9-slim")
        cluster.start_worker("one")
        client = cluster.client()
        payload = {"seconds": SECONDS, "processes": 8 * (os.cpu_count() or 1)}
        job = client.submit("python:3.9-slim", payload, mode=Mode.HANDLER, file=handler)
        assert job.result(timeout=SECONDS + 120) == "burnt"
        assert [attempt.reason for attempt in client.job(job.id).attempts] == ["ok"]
        assert [worker.status for worker in client.workers()] == [WorkerStatus.ONLINE]
