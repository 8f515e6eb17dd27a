"""What one job costs the server as the queue, the finished jobs and the workers grow.

All servers of a curve are there at once and take turns, flood by flood: a machine that becomes slower in between would
else look like growth. A ratio is the median of those of each turn.

A thousand workers beat whether jobs run or not, all within a moment of each cycle: what the server spends while it has
no jobs is taken off, for as long as the jobs took (`benchmarks.workers` measures that).

With one client, each job travels alone, and what grows is the decision who gets it. With 64 clients and one worker,
dozens of jobs share a frame, a wake-up and a transaction; from as many workers as clients on, each has frames of its
own. So there the cost is shown over both: one worker, and as many as clients.

Last, everything differs: each worker serves an image, has a card and carries out an option that no other one has, and
as many lanes as there are workers have a job waiting for which there is nobody."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from benchmarks import prefill, subject
from benchmarks.herd import IMAGE, Herd
from benchmarks.measure import cpu_seconds, median
from benchmarks.plan import Measurement, Plan, Row
from benchmarks.throughput import CLIENTS

JOBS = 3000
TURNS = 5
IDLE_SECONDS = 5.0
"""Two beats of each worker."""

BODY = b'{"image":"%s","input":1}' % IMAGE.encode()

LENGTHS = (1_000, 10_000, 100_000, 1_000_000)
WORKERS = (1, 10, CLIENTS, 1_000)
UNLIKE = (1, 1_000)
"""Workers that all differ, and lanes that wait."""
FEW = 2
"""Workers while something else grows."""

CURVES = {
    "queue": "jobs waiting",
    "finished": "jobs finished",
    "workers": "workers connected",
    "lone": "workers connected, one client",
}


class _Server(NamedTuple):
    """One point of a curve. `idle`: cores that it takes without jobs."""

    hecaton: subject.Subject
    idle: float


Costs = list[list[float]]
"""Microseconds of the server's CPU for a job: a row for each turn, in it a number for each server."""


def _run(plan: Plan, folder: Path) -> dict[str, float]:
    values: dict[str, float] = {}
    lengths = LENGTHS if plan.full else LENGTHS[:2]
    for curve, fill in (("queue", prefill.waiting), ("finished", prefill.finished)):
        homes = [folder / f"{curve}-{length}" for length in lengths]
        for home, length in zip(homes, lengths, strict=True):
            fill(home, length, folder.parent)
        [costs] = _costs(plan, homes, [FEW] * len(homes), (CLIENTS,))
        values |= _curve(curve, lengths, costs)
        values[curve] = _growth(costs, 0)
    workers = WORKERS if plan.full else WORKERS[:2]
    many, lone = _costs(plan, [folder / f"workers-{count}" for count in workers], workers, (CLIENTS, 1))
    values |= _curve("workers", workers, many) | _curve("lone", workers, lone)
    values |= {"workers": _growth(many, 0), "own": _growth(many, -2), "lone": _growth(lone, 0)}
    unlike = UNLIKE if plan.full else (1, 10)
    [costs] = _costs(plan, [folder / f"unlike-{count}" for count in unlike], unlike, (1,), unlike=True)
    values["unlike"] = _growth(costs, 0)
    return values


def _curve(name: str, sizes: Sequence[int], costs: Costs) -> dict[str, float]:
    return {f"{name}:{size}": median(row[place] for row in costs) for place, size in enumerate(sizes)}


def _growth(costs: Costs, first: int) -> float:
    """From that server to the last one."""
    return median(row[-1] / row[first] for row in costs)


def _costs(
    plan: Plan, homes: Sequence[Path], workers: Sequence[int], crowds: Sequence[int], *, unlike: bool = False
) -> list[Costs]:
    """For so many clients at once, and again for so many. `unlike`: as `_start`'s."""
    with ExitStack() as running:
        servers = [
            _start(plan, home, count, running, unlike=unlike) for home, count in zip(homes, workers, strict=True)
        ]
        return [
            [[_cost(plan, server, clients) for server in servers] for _ in range(TURNS if plan.full else 1)]
            for clients in crowds
        ]


def _start(plan: Plan, home: Path, workers: int, running: ExitStack, *, unlike: bool) -> _Server:
    """`unlike`: no worker is like another, and as many lanes wait."""
    home.mkdir(parents=True, exist_ok=True)
    hecaton = running.enter_context(subject.running(home))
    running.enter_context(Herd(hecaton, workers, home, unlike=unlike))
    if unlike:
        client = hecaton.cluster.client()
        for number in range(workers):
            client.add_image(f"nobody-has-{number}", verify=False)
            client.submit(f"nobody-has-{number}", number)
    hecaton.target.flood([BODY] * plan.size(JOBS, 50), CLIENTS)  # the first jobs after a start are not what a job costs
    spent, took = _spent(hecaton, lambda: time.sleep(plan.seconds(IDLE_SECONDS)))
    return _Server(hecaton, spent / took)


def _cost(plan: Plan, server: _Server, clients: int) -> float:
    bodies = [BODY] * plan.size(JOBS if clients > 1 else JOBS // 4, 100)
    spent, took = _spent(server.hecaton, lambda: server.hecaton.target.flood(bodies, clients))
    return (spent - server.idle * took) / len(bodies) * 1e6


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
        "lone": Row("cost per job with 1,000 workers, over that with one, one client", "x", "1.2x", 1.2),
        "own": Row("the same with 64 clients, over that with 64 workers", "x", "1.2x", 1.2),
        "workers": Row("the same over that with one worker, where dozens of jobs share each frame", "x"),
        "unlike": Row(
            "cost per job with 1,000 workers that all differ and 1,000 lanes waiting, over that with one and one",
            "x",
            "1.3x",
            1.3,
        ),
    },
    _run,
)
