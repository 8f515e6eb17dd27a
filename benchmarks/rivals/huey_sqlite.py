"""Huey on a SQLite file with fsync; consumer and client look every 2 ms instead of its default 100 ms and more."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping

from huey import SqliteHuey

from benchmarks.contest import EXECUTORS, folder
from benchmarks.services import Service

POLL_SECONDS = 0.002

huey = SqliteHuey(filename=str(folder() / "huey.db"), fsync=True)


@huey.task()
def echo(value: int) -> int:
    return value


class System:
    def __init__(self) -> None:
        self._consumer: Service | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "huey.bin.huey_consumer", f"{__name__}.huey"]
        command += ["-w", str(EXECUTORS), "-k", "process", "-n", "-q"]
        command += ["-d", str(POLL_SECONDS), "-m", str(POLL_SECONDS), "-b", "1"]
        self._consumer = Service(command, folder() / "consumer.log")

    def call(self, value: int) -> object:
        return _result(echo(value))

    def flood(self, count: int) -> float:
        start = time.perf_counter()
        handles = [echo(number) for number in range(count)]
        submitting = time.perf_counter() - start
        for handle in handles:
            _result(handle)
        return submitting

    def processes(self) -> Mapping[str, list[int]]:
        return {"workers": [self._consumer.pid] if self._consumer else []}

    def stop(self) -> None:
        if self._consumer:
            self._consumer.stop()


def _result(handle: object) -> object:
    return handle.get(blocking=True, backoff=1, max_delay=POLL_SECONDS, timeout=120)  # type: ignore[attr-defined]
