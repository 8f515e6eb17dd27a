"""Many workers lose their server at once, and all of them are back soon after it is."""

from __future__ import annotations

import signal
from pathlib import Path

from benchmarks import subject
from benchmarks.herd import IMAGE, Herd
from tests.faults.figures import figure

WORKERS = figure(100, 1000)
JOBS = 100


def test_workers_that_all_come_back_at_once_are_all_back_and_no_job_is_lost(tmp_path: Path) -> None:
    with subject.running(tmp_path, containers=False) as hecaton, Herd(hecaton, WORKERS, tmp_path) as herd:
        assert hecaton.cluster.server is not None
        hecaton.cluster.server.stop(signal.SIGKILL)
        herd.wait_for(0)
        hecaton.cluster.start_server()
        client = hecaton.cluster.client()
        jobs = [client.submit(IMAGE, number) for number in range(JOBS)]  # while they come back
        assert [job.result(timeout=120) for job in jobs] == list(range(JOBS))
        assert all(len(client.job(job.id).attempts) == 1 for job in jobs)
        herd.wait_for(WORKERS)
        online = [worker for worker in client.workers() if worker.status == "ONLINE"]
        assert len(online) == WORKERS
