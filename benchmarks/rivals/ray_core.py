"""Ray core on one machine, without its dashboard. Its state lives in memory."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

import ray

from benchmarks import measure
from benchmarks.contest import EXECUTORS, folder


@ray.remote
def echo(value: int) -> int:
    return value


class System:
    def start(self) -> None:
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        temporary = str(folder() / "ray")
        ray.init(
            _temp_dir=temporary, num_cpus=EXECUTORS, include_dashboard=False, log_to_driver=False, logging_level="ERROR"
        )

    def call(self, value: int) -> object:
        return ray.get(echo.remote(value), timeout=60)

    def flood(self, count: int) -> float:
        start = time.perf_counter()
        handles = [echo.remote(number) for number in range(count)]
        submitting = time.perf_counter() - start
        ray.get(handles, timeout=300)
        return submitting

    def processes(self) -> Mapping[str, list[int]]:
        return {"all": sorted(measure.descendants([os.getpid()]) - {os.getpid()})}

    def stop(self) -> None:
        ray.shutdown()
