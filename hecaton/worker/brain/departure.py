"""The end of the worker: it drains, stops at once or with its machine, and leaves when all is stopped and delivered;
or it leaves what runs to its next process.
"""

from __future__ import annotations

from hecaton.wire.channel import Draining
from hecaton.worker.brain import events as ev
from hecaton.worker.brain.ends import Ends
from hecaton.worker.brain.holdings import Holdings
from hecaton.worker.brain.slots import EarlyEnd, Phase
from hecaton.worker.brain.steps import Steps

DELIVERY_GRACE = 5.0
"""Seconds that a worker that stops waits for the server to accept its last results; they are on disk anyway."""

HANDOVER_SECONDS = 10.0
"""Seconds that containers which come up or are being stopped may take before the next process gets all as it is."""

POWER_OFF_SECONDS = 75.0
"""Seconds until a worker whose machine goes down is gone, whatever still runs: systemd kills it after 90, and with them
all else waits. Most of it for what runs."""

POWER_OFF_GRACE = 60.0

_CHANGING = (Phase.PREPARING, Phase.STARTING, Phase.STOPPING)


class Departure:
    """`Leave` is ordered once, and nothing after it: neither job nor container is left by then, unless they stay for
    the next process, or the machine cannot wait for them."""

    def __init__(self, holdings: Holdings, orders: ev.Orders, steps: Steps, ends: Ends, drain_timeout: float) -> None:
        self._holdings = holdings
        self._orders = orders
        self._steps = steps
        self._ends = ends
        self._drain_timeout = drain_timeout
        self._drain_by: float | None = None  # what runs may go on until then
        self._leave_by: float | None = None
        self._gone_by: float | None = None  # then it leaves, whatever is still there
        self.left = False  # what is heard from now on is for the next process

    def leave(self, event: ev.LeaveAsked) -> None:
        """What has not begun goes elsewhere meanwhile. Whoever asks to stop or to leave while it leaves is late."""
        if self._holdings.leaving is not None:
            return
        self._holdings.leaving = (0, "its next process goes on with its containers")
        self._holdings.stays = True
        self._gone_by = event.now + HANDOVER_SECONDS
        self._orders.report(Draining())
        self._ends.hand_back(event.now)
        self._advance_all(event.now)

    def power_off(self, event: ev.PowerOffAsked) -> None:
        """Also of a worker that drains."""
        self._holdings.leaving = (0, "the machine goes down")
        self._holdings.stays = False
        self._holdings.grace = min(self._holdings.grace, POWER_OFF_GRACE)
        self._gone_by = event.now + POWER_OFF_SECONDS
        self._orders.report(Draining())
        self._end_all(EarlyEnd.RELEASED, event.now)
        self._advance_all(event.now)

    def stop(self, event: ev.StopAsked) -> None:
        if self._holdings.stays:
            return
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
        times = (self._drain_by, self._leave_by, self._gone_by)
        return [] if self.left else [at for at in times if at is not None]

    def tick(self, now: float) -> None:
        if self._drain_by is not None and now >= self._drain_by:
            self._end_all(EarlyEnd.RELEASED, now)

    def leave_if_done(self, now: float) -> None:
        holdings = self._holdings
        if self.left or holdings.leaving is None:
            return
        late = self._gone_by is not None and now >= self._gone_by
        if holdings.stays:
            ready = all(container.phase not in _CHANGING for container in holdings.containers.values())
        else:
            ready = not holdings.containers and not holdings.jobs and self._delivered(now)
        if ready or late:
            self.left = True
            self._orders.do(ev.Leave(*holdings.leaving))

    def _delivered(self, now: float) -> bool:
        if self._leave_by is None:
            self._leave_by = now + DELIVERY_GRACE
        return not self._holdings.done or not self._orders.connected or now >= self._leave_by

    def _end_all(self, ending: EarlyEnd, now: float) -> None:
        self._drain_by = None
        for job in list(self._holdings.jobs.values()):
            self._ends.end_early(job, ending, now)

    def _advance_all(self, now: float) -> None:
        for slot in self._holdings.slots.values():
            self._steps.advance(slot, now)
