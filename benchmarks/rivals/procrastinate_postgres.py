"""Procrastinate on PostgreSQL with that one's own, durable, defaults. It keeps no results: the client asks for the
job's status every 2 ms."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import psycopg
from procrastinate import App, PsycopgConnector, SyncPsycopgConnector

from benchmarks import services
from benchmarks.contest import EXECUTORS, folder
from benchmarks.services import Service

DSN = "BENCHMARK_DSN"
POLL_SECONDS = 0.002


def _app(connector: PsycopgConnector | SyncPsycopgConnector) -> App:
    app = App(connector=connector)

    @app.task(name="echo")
    def echo(value: int) -> int:
        return value

    return app


if DSN in os.environ:  # in the workers, which find `app` by its name
    app = _app(PsycopgConnector(conninfo=os.environ[DSN]))


class System:
    def __init__(self) -> None:
        self._postgres: Service | None = None
        self._workers: list[Service] = []

    def start(self) -> None:
        self._postgres, dsn = services.postgres(folder() / "postgres")
        self._app = _app(SyncPsycopgConnector(conninfo=dsn))
        self._app.open()
        self._app.schema_manager.apply_schema()
        self._echo = self._app.tasks["echo"]
        self._connection = psycopg.connect(dsn, autocommit=True)
        for number in range(EXECUTORS):
            command = [
                sys.executable,
                "-m",
                "procrastinate",
                "--app",
                f"{__name__}.app",
                "worker",
                "--concurrency",
                "1",
            ]
            log = Path(folder() / f"worker{number}.log")
            self._workers.append(Service(command, log, environment={DSN: dsn}))
        for worker in self._workers:
            worker.wait_until(lambda worker=worker: worker.said("Starting worker on"))  # type: ignore[misc]

    def call(self, value: int) -> object:
        job = self._echo.defer(value=value)
        self._wait("SELECT count(*) FROM procrastinate_jobs WHERE id = %s AND status <> 'succeeded'", (job,))
        return value

    def flood(self, count: int) -> float:
        start = time.perf_counter()
        self._echo.batch_defer(*({"value": number} for number in range(count)))
        submitting = time.perf_counter() - start
        self._wait("SELECT count(*) FROM procrastinate_jobs WHERE status IN ('todo', 'doing') LIMIT 1", ())
        return submitting

    def _wait(self, query: str, values: tuple[object, ...]) -> None:
        while True:
            row = self._connection.execute(query, values).fetchone()  # type: ignore[arg-type]
            if row == (0,):
                return
            time.sleep(POLL_SECONDS)

    def processes(self) -> Mapping[str, list[int]]:
        return {
            "broker": [self._postgres.pid] if self._postgres else [],
            "workers": [worker.pid for worker in self._workers],
        }

    def stop(self) -> None:
        for worker in self._workers:
            worker.stop()
        if self._postgres:
            self._connection.close()
            self._app.close()
            self._postgres.stop()
