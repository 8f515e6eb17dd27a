"""How long a command takes that a person waits for."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks import subject
from benchmarks.measure import median
from benchmarks.plan import Measurement, Plan, Row
from hecaton.testing.cluster import PASSWORD

RUNS = 10
HECATON = Path(sys.executable).with_name("hecaton")


def _run(plan: Plan, folder: Path) -> dict[str, float]:
    with subject.running(folder) as hecaton:
        environment = {**os.environ, "HECATON_HOME": str(folder / "client")}
        _call(environment, "server", "new", "--ip", hecaton.cluster.url, "--name", "bench")
        _call(environment, "server", "login", "bench", "--username", "admin", "--password", PASSWORD)
        runs = plan.size(RUNS, 2)
        version = [_call(environment, "--version") for _ in range(runs)]
        jobs = [_call(environment, "job", "list") for _ in range(runs)]
    bare = [_timed([sys.executable, "-c", "pass"], environment) for _ in range(runs)]
    return {"version": median(version), "list": median(jobs), "python": median(bare)}


def _call(environment: Mapping[str, str], *arguments: str) -> float:
    return _timed([str(HECATON), *arguments], environment)


def _timed(command: list[str], environment: Mapping[str, str]) -> float:
    start = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    took = (time.perf_counter() - start) * 1e3
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr or done.stdout}")
    return took


MEASUREMENT = Measurement(
    "commands",
    {
        "version": Row("`hecaton --version`", "ms", "150 ms", 150.0),
        "list": Row("`hecaton job list` on loopback", "ms", "300 ms", 300.0),
        "python": Row("`python -c pass`, for comparison", "ms"),
    },
    _run,
)
