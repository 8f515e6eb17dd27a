"""Hecaton among its rivals, spoken to over HTTP: one request submits a job and brings its result."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from contextlib import ExitStack

from benchmarks import subject
from benchmarks.contest import EXECUTORS, folder
from benchmarks.load import Connection

CONNECTIONS = 64


class System:
    def start(self) -> None:
        self._open = ExitStack()
        self._subject = self._open.enter_context(subject.running(folder() / "home"))
        self._worker = self._subject.start_worker(slots=EXECUTORS)
        self._connection = self._open.enter_context(Connection(self._subject.target))

    def call(self, value: int) -> object:
        view = self._connection.run_job(self._subject.body(value))
        found = re.search(rb'"result":(\d+)', view)
        return int(found[1]) if found else view

    def flood(self, count: int) -> float:
        start = time.perf_counter()
        self._subject.target.flood([self._subject.body(number) for number in range(count)], CONNECTIONS)
        return time.perf_counter() - start  # every submission brings its result: there is no submitting alone

    def processes(self) -> Mapping[str, list[int]]:
        return {"server": [self._subject.server_pid], "worker": [self._worker]}

    def stop(self) -> None:
        self._open.close()
