"""What one job costs the server as the queue, the finished jobs and the workers grow.

A thousand workers beat whether jobs run or not, all within a moment of each cycle: what the server spends while it has
no jobs is taken off, for as long as the jobs took (`benchmarks.workers` measures that). The cost is the median of three
floods: the first jobs after a start are not what a job costs.

With 64 clients and few workers dozens of jobs share a frame, a wake-up and a transaction; with as many workers as
clients each job has its own, and that is most of what grows. With one client no job shares anything: what grows then is
the decision who gets it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import prefill, subject
from benchmarks.herd import IMAGE, Herd
from benchmarks.measure import cpu_seconds, median
from benchmarks.plan import Measurement, Plan, Row
from benchmarks.throughput import CLIENTS

JOBS = 4000
FLOODS = 3
IDLE_SECONDS = 5.0
"""Two beats of each worker."""

LENGTHS = (1_000, 10_000, 100_000, 1_000_000)
WORKERS = (1, 10, 100, 1_000)
FEW = 2
"""Workers while something else grows."""

CURVES = {
    "queue": "jobs waiting",
    "finished": "jobs finished",
    "workers": "workers connected",
    "lone": "workers connected, one client",
}


def _run(plan: Plan, folder: Path) -> dict[str, float]:
    values: dict[str, float] = {}
    for curve, fill in (("queue", prefill.waiting), ("finished", prefill.finished)):
        for length in LENGTHS if plan.full else LENGTHS[:1]:
            values[f"{curve}:{length}"] = _filled(plan, folder / f"{curve}-{length}", length, fill)
    for workers in WORKERS if plan.full else WORKERS[:2]:
        many, one = _costs(plan, folder / f"workers-{workers}", workers, (CLIENTS, 1))
        values[f"workers:{workers}"], values[f"lone:{workers}"] = many, one
    for curve in CURVES:
        costs = [value for key, value in values.items() if key.startswith(f"{curve}:")]
        values[curve] = costs[-1] / costs[0]
    return values


def _filled(plan: Plan, home: Path, length: int, fill: Callable[[Path, int, Path], None]) -> float:
    home.parent.mkdir(exist_ok=True)
    fill(home, length, home.parent.parent)
    return _costs(plan, home, FEW, (CLIENTS,))[0]


def _costs(plan: Plan, home: Path, workers: int, crowds: Sequence[int]) -> list[float]:
    """Microseconds of the server's CPU for a job, submitted, run and read by so many clients at once."""
    body = b'{"image":"%s","input":1}' % IMAGE.encode()
    with subject.running(home) as hecaton, Herd(hecaton, workers, home):
        hecaton.target.flood([body] * plan.size(JOBS // 2, 50), CLIENTS)
        idle, seconds = _spent(hecaton, lambda: time.sleep(plan.seconds(IDLE_SECONDS)))

        def cost(clients: int) -> float:
            bodies = [body] * plan.size(JOBS if clients > 1 else JOBS // 4, 100)
            spent, took = _spent(hecaton, lambda: hecaton.target.flood(bodies, clients))
            return (spent - idle / seconds * took) / len(bodies) * 1e6

        return [median([cost(clients) for _ in range(FLOODS)]) for clients in crowds]


def _spent(hecaton: subject.Subject, work: Callable[[], object]) -> tuple[float, float]:
    """Seconds of the server's CPU, and of the clock."""
    start, before = time.perf_counter(), cpu_seconds([hecaton.server_pid])
    work()
    return cpu_seconds([hecaton.server_pid]) - before, time.perf_counter() - start


MEASUREMENT = Measurement(
    "growth",
    {
        "queue": Row("cost per job with 1,000,000 jobs waiting, over that with 1,000", "x", "1.2x", 1.2),
        "finished": Row("cost per job with 1,000,000 finished, over that with 1,000", "x", "1.2x", 1.2),
        "workers": Row("cost per job with 1,000 workers, over that with one, 64 clients", "x", "1.2x", 1.2),
        "lone": Row("the same with one client, so that no job shares a frame", "x", "1.2x", 1.2),
    },
    _run,
)
