"""A server and a worker that nobody uses."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks import subject
from benchmarks.measure import MIB, cpu_seconds, descendants, memory
from benchmarks.plan import Measurement, Plan, Row

SECONDS = 20.0


def _run(plan: Plan, folder: Path) -> dict[str, float]:
    with subject.running(folder) as hecaton:
        worker = hecaton.start_worker()
        time.sleep(plan.seconds(5))
        pids = descendants([hecaton.server_pid, worker])
        before = cpu_seconds(pids)
        time.sleep(plan.seconds(SECONDS))
        share = (cpu_seconds(pids) - before) / plan.seconds(SECONDS)
        return {
            "cpu": share * 100,
            "server": memory([hecaton.server_pid]) / MIB,
            "worker": memory(descendants([worker])) / MIB,
        }


MEASUREMENT = Measurement(
    "idle",
    {
        "cpu": Row("idle server and idle worker together, CPU", "% of a core", "1 %", 1.0),
        "server": Row("idle server, memory", "MiB"),
        "worker": Row("idle worker with one warm container, memory (without the container)", "MiB"),
    },
    _run,
)
