"""Measures one system in a process of its own, the same way for Hecaton and its rivals. Standard library only.

    python -m benchmarks.contest MODULE FOLDER --calls N --jobs N

MODULE has a class `System`. `benchmarks.versus` runs this with the Python of the system's own environment and reads the
one line of JSON on its stdout."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, cast

from benchmarks import measure
from benchmarks.services import Missing

FOLDER = "BENCHMARK_FOLDER"
"""Environment: the folder of this run. Workers that import a rival's module find their broker by it."""

WARM_UP = 50
EXECUTORS = 2
"""Processes, containers or slots that run jobs, in every system that lets one choose."""


class Contestant(Protocol):
    """A job system that runs a no-op echo."""

    def start(self) -> None:
        """Everything up and connected. Raises services.Missing when something is not installed."""

    def call(self, value: int) -> object:
        """One job: submit it, wait, return its result."""

    def flood(self, count: int) -> float:
        """Submit so many jobs the fastest way that the system offers its users, and wait for all results.

        Returns the seconds that submitting alone took."""

    def processes(self) -> Mapping[str, list[int]]:
        """By role ("broker", "workers"): the first process of each; their children are counted, too."""

    def stop(self) -> None: ...


def folder() -> Path:
    """The folder of this run."""
    return Path(os.environ[FOLDER])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("module")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--calls", type=int, required=True)
    parser.add_argument("--jobs", type=int, required=True)
    options = parser.parse_args()
    os.environ[FOLDER] = str(options.folder)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    system = cast(Contestant, importlib.import_module(options.module).System())
    result: dict[str, object]
    try:
        system.start()
        result = _measure(system, options.calls, options.jobs)
    except Missing as error:
        result = {"missing": str(error)}
    finally:
        system.stop()
    sys.stdout.write("\n" + json.dumps(result) + "\n")


def _measure(system: Contestant, calls: int, jobs: int) -> dict[str, object]:
    for number in range(WARM_UP):
        _expect(number, system.call(number))
    latencies = []
    for number in range(calls):
        start = time.perf_counter()
        result = system.call(number)
        latencies.append((time.perf_counter() - start) * 1e3)
        _expect(number, result)
    start = time.perf_counter()
    submitting = system.flood(jobs)
    took = time.perf_counter() - start
    return {
        "p50_ms": measure.percentile(latencies, 0.5),
        "p99_ms": measure.percentile(latencies, 0.99),
        "submitted_per_s": jobs / submitting,
        "jobs_per_s": jobs / took,
        "memory": {
            role: measure.memory(measure.descendants(roots)) for role, roots in system.processes().items() if roots
        },
    }


def _expect(sent: object, received: object) -> None:
    if sent != received:
        raise RuntimeError(f"the echo of {sent!r} is {received!r}")


if __name__ == "__main__":
    main()
