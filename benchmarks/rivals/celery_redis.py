"""Celery with its default prefork pool; Redis is broker and result store and fsyncs every write."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping

from celery import Celery, group

from benchmarks import services
from benchmarks.contest import EXECUTORS, folder
from benchmarks.services import Service

URL = "BENCHMARK_REDIS"

app = Celery("benchmark")


@app.task(name="echo")
def echo(value: int) -> int:
    return value


def _connect(url: str) -> None:
    app.conf.update(broker_url=url, result_backend=url, broker_connection_retry_on_startup=True)


if URL in os.environ:  # in the worker, which finds `app` by its name
    _connect(os.environ[URL])


class System:
    def __init__(self) -> None:
        self._redis: Service | None = None
        self._worker: Service | None = None

    def start(self) -> None:
        self._redis, port = services.redis(folder(), durable=True)
        url = f"redis://127.0.0.1:{port}/0"
        _connect(url)
        command = [sys.executable, "-m", "celery", "-A", __name__, "worker", "-c", str(EXECUTORS)]
        command += ["--without-gossip", "--without-mingle", "-l", "INFO"]
        worker = self._worker = Service(command, folder() / "worker.log", environment={URL: url})
        worker.wait_until(lambda: worker.said(" ready."))

    def call(self, value: int) -> object:
        return echo.delay(value).get(timeout=60)

    def flood(self, count: int) -> float:
        start = time.perf_counter()
        result = group(echo.s(number) for number in range(count)).apply_async()
        submitting = time.perf_counter() - start
        result.get(timeout=300)
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
