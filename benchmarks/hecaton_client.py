"""Hecaton among its rivals, used as they are: through its Python client."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack

from benchmarks import subject
from benchmarks.contest import EXECUTORS, folder


class System:
    def start(self) -> None:
        self._open = ExitStack()
        self._subject = self._open.enter_context(subject.running(folder() / "home"))
        self._worker = self._subject.start_worker(slots=EXECUTORS)
        self._client = self._open.enter_context(self._subject.cluster.client())

    def call(self, value: int) -> object:
        return self._client.submit(self._subject.image, value).result(timeout=60)

    def flood(self, count: int) -> float:
        start = time.perf_counter()
        batch = self._client.submit_many(self._subject.image, range(count))
        submitting = time.perf_counter() - start
        for number, result in enumerate(batch.results()):
            if result != number:
                raise RuntimeError(f"the echo of {number} is {result!r}")
        return submitting

    def processes(self) -> Mapping[str, list[int]]:
        return {"server": [self._subject.server_pid], "worker": [self._worker]}

    def stop(self) -> None:
        self._open.close()
