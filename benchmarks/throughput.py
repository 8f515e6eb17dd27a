"""Jobs submitted one by one by 64 clients, each result read: on an empty queue, and before a million waiting jobs.

Guards group commit, planning and the results' way back."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks import subject
from benchmarks.measure import cpu_seconds, descendants, percentile
from benchmarks.plan import Measurement, Plan, Row
from benchmarks.subject import Subject

CLIENTS = 64
JOBS = 10_000
SLOTS = 2


def rate(hecaton: Subject, jobs: int) -> tuple[float, list[float]]:
    """Jobs per second, and each one's milliseconds."""
    bodies = [hecaton.body(number) for number in range(jobs)]
    start = time.perf_counter()
    took = hecaton.target.flood(bodies, CLIENTS)
    return jobs / (time.perf_counter() - start), took


def _run(plan: Plan, folder: Path) -> dict[str, float]:
    jobs = plan.size(JOBS, 100)
    with subject.running(folder) as hecaton:
        worker = hecaton.start_worker(slots=SLOTS)
        before = cpu_seconds([hecaton.server_pid]), cpu_seconds(descendants([worker]))
        per_second, took = rate(hecaton, jobs)
        after = cpu_seconds([hecaton.server_pid]), cpu_seconds(descendants([worker]))
    return {
        "rate": per_second,
        "p50": percentile(took, 0.5),
        "server": (after[0] - before[0]) / jobs * 1e6,
        "worker": (after[1] - before[1]) / jobs * 1e6,
    }


MEASUREMENT = Measurement(
    "throughput",
    {
        "rate": Row("jobs submitted one by one, 64 clients, results read", "jobs/s", "4,000/s", 4000, True),
        "p50": Row("the same, p50 of one job", "ms"),
        "server": Row("the same, CPU of the server", "µs/job"),
        "worker": Row("the same, CPU of the worker", "µs/job"),
    },
    _run,
)
