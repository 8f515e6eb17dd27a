"""Dramatiq with results, on a Redis that keeps everything in memory."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from benchmarks import services
from benchmarks.contest import EXECUTORS, folder
from benchmarks.services import Service

PORT = "BENCHMARK_REDIS_PORT"


def connect(port: int) -> RedisBroker:
    broker = RedisBroker(host="127.0.0.1", port=port)
    broker.add_middleware(Results(backend=RedisBackend(host="127.0.0.1", port=port), store_results=True))
    dramatiq.set_broker(broker)
    return broker


def _echo(value: int) -> int:
    return value


if PORT in os.environ:  # in the worker, which imports this module
    connect(int(os.environ[PORT]))
    echo = dramatiq.actor(_echo, actor_name="echo")


class System:
    def __init__(self) -> None:
        self._redis: Service | None = None
        self._worker: Service | None = None

    def start(self) -> None:
        self._redis, port = services.redis(folder(), durable=False)
        self._broker = connect(port)
        self._echo = dramatiq.actor(_echo, actor_name="echo")
        command = [sys.executable, "-m", "dramatiq", __name__, "--processes", str(EXECUTORS)]
        worker = self._worker = Service(command, folder() / "worker.log", environment={PORT: str(port)})
        worker.wait_until(lambda: worker.said("ready for action"))

    def call(self, value: int) -> object:
        return self._echo.send(value).get_result(block=True, timeout=60_000)

    def flood(self, count: int) -> float:
        start = time.perf_counter()
        group = dramatiq.group(self._echo.message(number) for number in range(count)).run()
        submitting = time.perf_counter() - start
        for _ in group.get_results(block=True, timeout=300_000):
            pass
        return submitting

    def processes(self) -> Mapping[str, list[int]]:
        return {
            "broker": [self._redis.pid] if self._redis else [],
            "workers": [self._worker.pid] if self._worker else [],
        }

    def stop(self) -> None:
        for service in (self._worker, self._redis):
            if service:
                service.stop()
