"""One client, one warm container: from submitting a no-op job to its result. Guards the path of a submit."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks import subject
from benchmarks.load import Connection
from benchmarks.measure import percentile
from benchmarks.plan import Measurement, Plan, Row

CALLS = 2000
WARM_UP = 200


def _run(plan: Plan, folder: Path) -> dict[str, float]:
    with subject.running(folder) as hecaton:
        hecaton.start_worker()
        with Connection(hecaton.target) as connection:
            for number in range(plan.size(WARM_UP, 20)):
                connection.run_job(hecaton.body(number))
            took = [_timed(connection, hecaton.body(number)) for number in range(plan.size(CALLS, 20))]
    return {"p50": percentile(took, 0.5), "p99": percentile(took, 0.99)}


def _timed(connection: Connection, body: bytes) -> float:
    start = time.perf_counter()
    connection.run_job(body)
    return (time.perf_counter() - start) * 1e3


MEASUREMENT = Measurement(
    "latency",
    {
        "p50": Row("warm no-op job, one client, submit to result, p50", "ms", "2.0 ms", 2.0),
        "p99": Row("the same, p99", "ms", "8 ms", 8.0),
    },
    _run,
)
