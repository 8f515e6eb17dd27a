"""One client process of the chaos run: submits its share at an even pace, and reads results as they come.

python -m tests.faults.chaos_client '{"url": ..., "token": ..., "ledger": ..., "first": 0, "count": 500, ...}'
"""

from __future__ import annotations

import json
import queue
import random
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hecaton.client import Client
from hecaton.core.errors import HecatonError
from tests.faults.ledger import HANDLER, Ledger

SUBMITTERS = 4
READERS = 4
SHORT = (0.0, 0.0, 0.01, 0.05, 0.1, 0.3)
LONG, LONG_SHARE = 2.0, 0.015
"""Seconds: long enough to run twice at once, when a worker was given up and is back. Without fencing the wrong one
counts."""
ALONE, ALONE_SHARE = 7.0, 0.008
"""Seconds of jobs that may not overlap: longer than the lease of a worker that is gone."""

RETRIES = 5
"""A handler that was killed from outside looks like one that ended itself: that is charged to the user."""


@dataclass(frozen=True)
class Task:
    """Numbers from `first` on are submitted over `seconds`; results are awaited until `patience` seconds after the
    begin.

    Every `docker_every`-th job is for `docker_image`, as a handler file; the others are for `process_image`."""

    url: str
    token: str
    ledger: str
    seed: int
    first: int
    count: int
    seconds: float
    patience: float
    process_image: str
    docker_image: str
    docker_every: int

    def command(self) -> list[str]:
        return [sys.executable, "-X", "faulthandler", "-m", "tests.faults.chaos_client", json.dumps(asdict(self))]


class Submitting:
    def __init__(self, task: Task) -> None:
        self._task = task
        self._client = Client(task.url, task.token)
        self._ledger = Ledger(Path(task.ledger))
        self._began = time.monotonic()
        self._numbers = iter(range(task.count))
        self._lock = threading.Lock()
        # Jobs of one image may have to wait for its engine: they keep no reader from the others.
        self._submitted: dict[bool, queue.SimpleQueue[str | None]] = {
            True: queue.SimpleQueue(),
            False: queue.SimpleQueue(),
        }
        self._broken: list[BaseException] = []

    def run(self) -> None:
        """Raises what no fault may cause."""
        submitters = [threading.Thread(target=self._guarded, args=(self._submit,)) for _ in range(SUBMITTERS)]
        readers = [
            threading.Thread(target=self._guarded, args=(self._read, queue))
            for queue in self._submitted.values()
            for _ in range(READERS)
        ]
        for thread in (*submitters, *readers):
            thread.start()
        for thread in submitters:
            thread.join()
        for submitted in self._submitted.values():
            for _ in range(READERS):
                submitted.put(None)
        for thread in readers:
            thread.join()
        if self._broken:
            raise self._broken[0]

    def _guarded(self, work: Callable[..., None], *arguments: object) -> None:
        try:
            work(*arguments)
        except BaseException as error:
            self._broken.append(error)

    def _submit(self) -> None:
        task = self._task
        while True:
            with self._lock:
                place = next(self._numbers, None)
            if place is None:
                return
            time.sleep(max(0.0, self._began + task.seconds * place / task.count - time.monotonic()))
            n = task.first + place
            docker = n % task.docker_every == 0
            draw = random.Random(f"{task.seed} {n}")
            sleep = LONG if draw.random() < LONG_SHARE else draw.choice(SHORT)
            options: dict[str, Any] = {"sleep": sleep, "retries": RETRIES}
            if draw.random() < ALONE_SHARE:
                options |= {"sleep": ALONE, "no_overlap": True}
            if docker:
                options |= {"mode": "handler", "file": HANDLER}
            image = task.docker_image if docker else task.process_image
            job = self._ledger.submit(self._client, image, n, **options)
            self._submitted[docker].put(job.id)

    def _read(self, submitted: queue.SimpleQueue[str | None]) -> None:
        while (job := submitted.get()) is not None:
            try:
                left = self._began + self._task.patience - time.monotonic()
                self._ledger.read_result(self._client, job, max(0.0, left))
            except HecatonError as error:
                self._ledger.not_read(job, error)


if __name__ == "__main__":
    Submitting(Task(**json.loads(sys.argv[1]))).run()
