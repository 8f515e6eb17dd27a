"""The same warm job by bare HTTP and from Python, in turns: what the client costs. Guards `client.following`."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import subject
from benchmarks.load import Connection
from benchmarks.measure import percentile
from benchmarks.plan import Measurement, Plan, Row

TURNS = 40
CALLS = 50  # of each, in each turn
WARM_UP = 100


def _run(plan: Plan, folder: Path) -> dict[str, float]:
    with subject.running(folder) as hecaton, Connection(hecaton.target) as connection:
        hecaton.start_worker()
        with hecaton.cluster.client() as client:
            ways: dict[str, Callable[[int], object]] = {
                "http": lambda number: connection.run_job(hecaton.body(number)),
                "submit": lambda number: client.submit(hecaton.image, number).result(timeout=60),
                "run": lambda number: client.run(hecaton.image, number, wait=60),
            }
            took: dict[str, list[float]] = {name: [] for name in ways}
            for turn in range(plan.size(TURNS, 2) + 1):
                for name, way in ways.items():
                    times = [_timed(way, number) for number in range(CALLS if turn else plan.size(WARM_UP, 5))]
                    took[name] += times if turn else []
    p50 = {name: percentile(times, 0.5) for name, times in took.items()}
    return {**p50, "ratio": p50["submit"] / p50["http"], "run_ratio": p50["run"] / p50["http"]}


def _timed(way: Callable[[int], object], number: int) -> float:
    start = time.perf_counter()
    way(number)
    return (time.perf_counter() - start) * 1e3


MEASUREMENT = Measurement(
    "sdk",
    {
        "http": Row("warm no-op job, by turns: bare HTTP, submit to result, p50", "ms"),
        "submit": Row("the same from Python, `Client.submit(...).result()`, p50", "ms"),
        "ratio": Row("= times bare HTTP", "x", "1.2 x", 1.2),
        "run": Row("the same, `Client.run(...)`, p50", "ms"),
        "run_ratio": Row("= times bare HTTP", "x", "1.2 x", 1.2),
    },
    _run,
)
