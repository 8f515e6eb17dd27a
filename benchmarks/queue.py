"""Jobs submitted one by one while a million others wait. Those are of an image that no worker serves, which only the
process runtime can say of itself: so both measurements run on it.

Both servers are there at once and take turns: the share is the median of those of each turn."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from benchmarks import prefill, subject
from benchmarks.measure import median
from benchmarks.plan import Measurement, Plan, Row
from benchmarks.subject import Subject
from benchmarks.throughput import JOBS, SLOTS, rate

WAITING = 1_000_000
TURNS = 4


def _run(plan: Plan, folder: Path) -> dict[str, float]:
    prefill.waiting(folder / "full", plan.size(WAITING, 1000), folder.parent)
    jobs = plan.size(JOBS // 2, 100)
    with ExitStack() as running:
        empty, full = (_start(folder / name, running) for name in ("empty", "full"))
        turns = [(rate(empty, jobs)[0], rate(full, jobs)[0]) for _ in range(TURNS if plan.full else 1)]
    return {
        "share": median(beside / alone for alone, beside in turns),
        "full": median(beside for _, beside in turns),
        "empty": median(alone for alone, _ in turns),
    }


def _start(folder: Path, running: ExitStack) -> Subject:
    hecaton = running.enter_context(subject.running(folder, containers=False))
    hecaton.start_worker(slots=SLOTS)
    return hecaton


MEASUREMENT = Measurement(
    "queue",
    {
        "share": Row("with 1,000,000 jobs waiting, share of the rate with an empty queue", "x", "0.9x", 0.9, True),
        "full": Row("the same, with 1,000,000 waiting (process runtime)", "jobs/s"),
        "empty": Row("the same, with an empty queue (process runtime)", "jobs/s"),
    },
    _run,
)
