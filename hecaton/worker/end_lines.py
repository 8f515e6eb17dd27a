"""Says in the worker's own log how jobs ended."""

from __future__ import annotations

import asyncio

import structlog

from hecaton.core.batches import cause_of
from hecaton.core.model import Reason
from hecaton.wire.channel import Outcome

SAY_INTERVAL = 0.5
"""Seconds between two lines about jobs that finished."""

_log = structlog.get_logger("hecaton.worker.end_lines")


class EndLines:
    """Failures one by one, successes at most twice a second: a line for each would cost more than a short job."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._finished: list[Outcome] = []

    def say(self, outcome: Outcome) -> None:
        if outcome.reason is not Reason.OK:
            ran = "" if outcome.ran is None else f" after {outcome.ran:.3g} s"
            why = cause_of(outcome.reason, outcome.failure).message
            _log.info(f"A job ended: {outcome.reason.value}{ran}", job=outcome.ref.job, why=why)
            return
        self._finished.append(outcome)
        if len(self._finished) == 1:
            self._loop.call_later(SAY_INTERVAL, self._say_finished)

    def _say_finished(self) -> None:
        finished, self._finished = self._finished, []
        last = finished[-1]
        what = "A job finished" if len(finished) == 1 else f"{len(finished)} jobs finished, the last one"
        _log.info(f"{what} after {last.ran or 0:.3g} s", job=last.ref.job)
