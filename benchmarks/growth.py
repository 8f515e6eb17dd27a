"""What one job costs the server as the queue, the finished jobs and the workers grow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks import prefill, subject
from benchmarks.herd import IMAGE, Herd
from benchmarks.measure import cpu_seconds
from benchmarks.plan import Measurement, Plan, Row
from benchmarks.throughput import CLIENTS

JOBS = 4000
LENGTHS = (1_000, 10_000, 100_000, 1_000_000)
WORKERS = (1, 10, 100, 1_000)
FEW = 2
"""Workers while something else grows."""

CURVES = {"queue": "jobs waiting", "finished": "jobs finished", "workers": "workers connected"}


def _run(plan: Plan, folder: Path) -> dict[str, float]:
    values: dict[str, float] = {}
    for curve, fill in (("queue", prefill.waiting), ("finished", prefill.finished)):
        for length in LENGTHS if plan.full else LENGTHS[:1]:
            values[f"{curve}:{length}"] = _filled(plan, folder / f"{curve}-{length}", length, fill)
    for workers in WORKERS if plan.full else WORKERS[:2]:
        values[f"workers:{workers}"] = _cost(plan, folder / f"workers-{workers}", workers)
    for curve in CURVES:
        costs = [value for key, value in values.items() if key.startswith(f"{curve}:")]
        values[curve] = max(costs) / min(costs)
    return values


def _filled(plan: Plan, home: Path, length: int, fill: Callable[[Path, int, Path], None]) -> float:
    home.parent.mkdir(exist_ok=True)
    fill(home, length, home.parent.parent)
    return _cost(plan, home, FEW)


def _cost(plan: Plan, home: Path, workers: int) -> float:
    """Microseconds of the server's CPU for a job, submitted, run and read by 64 clients."""
    jobs = plan.size(JOBS, 100)
    body = b'{"image":"%s","input":1}' % IMAGE.encode()
    with subject.running(home) as hecaton, Herd(hecaton, workers, home):
        hecaton.target.flood([body] * (jobs // 4), CLIENTS)
        before = cpu_seconds([hecaton.server_pid])
        hecaton.target.flood([body] * jobs, CLIENTS)
        return (cpu_seconds([hecaton.server_pid]) - before) / jobs * 1e6


MEASUREMENT = Measurement(
    "growth",
    {
        "queue": Row("cost per job, 1,000 to 1,000,000 waiting: dearest over cheapest", "x", "1.2x", 1.2),
        "finished": Row("cost per job, 1,000 to 1,000,000 finished: dearest over cheapest", "x", "1.2x", 1.2),
        "workers": Row("cost per job, 1 to 1,000 workers: dearest over cheapest", "x", "1.2x", 1.2),
    },
    _run,
)
