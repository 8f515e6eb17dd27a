"""Jobs submitted one by one while a million others wait. Those are of an image that no worker serves, which only the
process runtime can say of itself: so both measurements run on it."""

from __future__ import annotations

from pathlib import Path

from benchmarks import prefill, subject
from benchmarks.plan import Measurement, Plan, Row
from benchmarks.throughput import JOBS, SLOTS, rate

WAITING = 1_000_000


def _run(plan: Plan, folder: Path) -> dict[str, float]:
    jobs = plan.size(JOBS, 100)
    empty = _rate(folder / "empty", jobs)
    prefill.waiting(folder / "full", plan.size(WAITING, 1000), folder.parent)
    full = _rate(folder / "full", jobs)
    return {"share": full / empty, "full": full, "empty": empty}


def _rate(folder: Path, jobs: int) -> float:
    with subject.running(folder, containers=False) as hecaton:
        hecaton.start_worker(slots=SLOTS)
        return rate(hecaton, jobs)[0]


MEASUREMENT = Measurement(
    "queue",
    {
        "share": Row("with 1,000,000 jobs waiting, share of the rate with an empty queue", "x", "0.9x", 0.9, True),
        "full": Row("the same, with 1,000,000 waiting (process runtime)", "jobs/s"),
        "empty": Row("the same, with an empty queue (process runtime)", "jobs/s"),
    },
    _run,
)
