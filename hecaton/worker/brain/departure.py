"""The end of the worker: it drains or stops at once, and leaves when all is stopped and delivered."""

from __future__ import annotations

from hecaton.wire.channel import Draining
from hecaton.worker.brain import events as ev
from hecaton.worker.brain.ends import Ends
from hecaton.worker.brain.holdings import Holdings
from hecaton.worker.brain.orders import Orders
from hecaton.worker.brain.slots import EarlyEnd
from hecaton.worker.brain.steps import Steps

DELIVERY_GRACE = 5.0
"""Seconds that a worker that stops waits for the server to accept its last results; they are on disk anyway."""


class Departure:
    """`Leave` is ordered once, and nothing after it: neither job nor container is left by then."""

    def __init__(self, holdings: Holdings, orders: Orders, steps: Steps, ends: Ends, drain_timeout: float) -> None:
        self._holdings = holdings
        self._orders = orders
        self._steps = steps
        self._ends = ends
        self._drain_timeout = drain_timeout
        self._drain_by: float | None = None  # what runs may go on until then
        self._leave_by: float | None = None
        self._left = False

    def stop(self, event: ev.StopAsked) -> None:
        asked_again = self._holdings.leaving is not None
        if not asked_again:
            self._holdings.leaving = (0, "stopped")
            self._orders.report(Draining())
            self._ends.hand_back(event.now)
            self._drain_by = event.now + self._drain_timeout
        if asked_again or event.at_once:
            self._end_all(EarlyEnd.RELEASED, event.now)
        self._advance_all(event.now)

    def shut_down(self, event: ev.ShutdownAsked) -> None:
        self._holdings.leaving = (event.code, event.message)
        self._end_all(EarlyEnd.DROPPED, event.now)
        self._leave_by = event.now
        self._advance_all(event.now)

    def due(self) -> list[float]:
        """When time is up for what runs, and for the last results."""
        return [] if self._left else [at for at in (self._drain_by, self._leave_by) if at is not None]

    def tick(self, now: float) -> None:
        if self._drain_by is not None and now >= self._drain_by:
            self._end_all(EarlyEnd.RELEASED, now)

    def leave_if_done(self, now: float) -> None:
        holdings = self._holdings
        if self._left or holdings.leaving is None or holdings.containers or holdings.jobs:
            return
        if self._leave_by is None:
            self._leave_by = now + DELIVERY_GRACE
        if not holdings.done or not self._orders.connected or now >= self._leave_by:
            self._left = True
            self._orders.do(ev.Leave(*holdings.leaving))

    def _end_all(self, ending: EarlyEnd, now: float) -> None:
        self._drain_by = None
        for job in list(self._holdings.jobs.values()):
            self._ends.end_early(job, ending, now)

    def _advance_all(self, now: float) -> None:
        for slot in self._holdings.slots:
            self._steps.advance(slot, now)
