"""What has happened since the start: counted where it is known anyway, in memory.

Where nobody asks for metrics nothing is counted. Jobs are counted when they have ended, together with all that ended in
the same transaction.
"""

from __future__ import annotations

import math
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import accumulate

from hecaton.core.model import AttemptRef, JobState, Reason
from hecaton.server.clock import submitted_at
from hecaton.store.port import AttemptEnd, EndResult
from hecaton.store.writer import Outcome, Runner, Work

MAX_IMAGES = 200
"""Images that are told apart: the first so many. Users choose their names, and each is a time series of its own."""

OTHERS = 0
"""Stands for the images beyond those."""

JOB_SECONDS = (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 600, 1800, 3600, 6 * 3600, 24 * 3600)
DATABASE_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)


class Histogram:
    """How much of what was observed is at most each bound, and the sum of all. Observed by one thread, read by any."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.total = 0.0
        self._between = [0] * (len(bounds) + 1)

    def observe(self, value: float) -> None:
        value = max(0.0, value)  # what a worker says may be from before the submission, and no sum sinks
        self._between[bisect_left(self.bounds, value)] += 1
        self.total += value

    @property
    def buckets(self) -> list[tuple[float, int]]:
        """As Prometheus has them: each bound with all that is below it, and a last one for everything."""
        return list(zip((*self.bounds, math.inf), accumulate(self._between), strict=True))


class Statistics:
    """On the server's event loop, but for `database`, whose histograms the store's threads fill, each its own. `ended`:
    jobs by image, state and reason; the image `OTHERS` has what is not told apart."""

    def __init__(self, on: bool = False) -> None:
        self.on = on
        self.ended: dict[tuple[int, JobState, Reason], int] = {}
        self._images: set[int] = set()
        self.requeued = Counter[Reason]()
        self.waits, self.cold_starts, self.runs = Histogram(JOB_SECONDS), Histogram(JOB_SECONDS), Histogram(JOB_SECONDS)
        self.database = {kind: Histogram(DATABASE_SECONDS) for kind in ("read", "write")}

    def attempts(self, ended: Sequence[EndResult], said: Mapping[AttemptRef, AttemptEnd]) -> None:
        """What the store made of the ends of attempts. `said`: what their workers had said of them."""
        if not self.on:
            return
        for end in ended:
            state, verdict, started_at = end.state, end.verdict, end.started_at
            if state is None or verdict is None or not end.accepted:
                continue
            if not state.terminal:
                self.requeued[verdict.reason] += 1
                continue
            self.end(end.image_id, state, verdict.reason)
            if started_at is None:
                continue
            ref = end.ref
            if ref.attempt == 1:  # later ones have not waited for all of that time
                self.waits.observe(started_at - submitted_at(ref.job))
            if (its := said.get(ref)) is not None:
                self.runs.observe(its.at - started_at)

    def end(self, image_id: int | None, state: JobState, reason: Reason, jobs: int = 1) -> None:
        """So many jobs of an image have ended alike."""
        if not self.on:
            return
        image = image_id or OTHERS
        if image not in self._images:
            if len(self._images) < MAX_IMAGES:
                self._images.add(image)
            else:
                image = OTHERS
        key = (image, state, reason)
        self.ended[key] = self.ended.get(key, 0) + jobs

    def cold_start(self, seconds: float) -> None:
        if self.on:
            self.cold_starts.observe(seconds)

    def timed(self, kind: str, runner: Runner) -> Runner:
        """The runner of one of the store's threads, whose transactions are timed."""
        histogram = self.database[kind]

        def run(batch: Sequence[Work]) -> list[Outcome]:
            began = time.perf_counter()
            try:
                return runner(batch)
            finally:
                histogram.observe(time.perf_counter() - began)

        return run
