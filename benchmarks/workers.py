"""A thousand connected workers without work: what they cost the server, and how they come back after its kill -9."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path

from benchmarks import subject
from benchmarks.herd import Herd
from benchmarks.load import Connection
from benchmarks.measure import MIB, cpu_seconds, memory, percentile
from benchmarks.plan import Measurement, Plan, Row
from benchmarks.subject import Subject

WORKERS = 1000
SECONDS = 20.0
AWAY_SECONDS = 2.0
PAUSE = 0.02


def _run(plan: Plan, folder: Path) -> dict[str, float]:
    count = plan.size(WORKERS, 20)
    with subject.running(folder) as hecaton:
        bare = memory([hecaton.server_pid])
        with Herd(hecaton, count, folder) as herd:
            time.sleep(plan.seconds(5))  # what the start cost is over
            before = cpu_seconds([hecaton.server_pid])
            time.sleep(plan.seconds(SECONDS))
            share = (cpu_seconds([hecaton.server_pid]) - before) / plan.seconds(SECONDS)
            full = memory([hecaton.server_pid])
            back, took = _restart(hecaton, herd)
    return {
        "memory": full / MIB,
        "each": (full - bare) / count / 1024,
        "cpu": share * 100,
        "back": back,
        "submit": percentile(took, 0.99),
    }


def _restart(hecaton: Subject, herd: Herd) -> tuple[float, list[float]]:
    """Kill the server, start it again; seconds from its answering until all are back, and submits meanwhile."""
    assert hecaton.cluster.server is not None
    hecaton.cluster.server.stop(signal.SIGKILL)
    herd.wait_for(0)
    time.sleep(AWAY_SECONDS)
    hecaton.cluster.start_server()
    took: list[float] = []
    over = threading.Event()
    submits = threading.Thread(target=_submit, args=(hecaton, over, took))
    submits.start()
    try:
        seconds = herd.wait_for(herd.count)
    finally:
        over.set()
        submits.join()
    return seconds, took


def _submit(hecaton: Subject, over: threading.Event, took: list[float]) -> None:
    with Connection(hecaton.target) as connection:
        while not (over.is_set() and took):
            request = hecaton.target.request("POST", "/v1/jobs", hecaton.body(1))
            start = time.perf_counter()
            reply = connection.send(request)
            took.append((time.perf_counter() - start) * 1e3)
            if reply.status != 201:
                raise RuntimeError(f"a submit failed: {reply}")
            over.wait(PAUSE)


MEASUREMENT = Measurement(
    "workers",
    {
        "memory": Row("1,000 connected idle workers: memory of the server", "MiB", "150 MB", 150e6 / MIB),
        "each": Row("the same, for each worker", "KiB"),
        "cpu": Row("the same, CPU of the server", "% of a core", "5 %", 5.0),
        "back": Row("all 1,000 back after kill -9 of the server", "s", "15 s", 15.0),
        "submit": Row("submits meanwhile, p99", "ms", "1 s", 1000.0),
    },
    _run,
)
