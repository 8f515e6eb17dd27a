"""What the scheduler remembers of lanes, and for how long."""

from __future__ import annotations

from collections.abc import Callable

from hecaton.core.model import AttemptRef, JobId, WorkerId
from hecaton.core.placement.matching import Lane
from hecaton.server.fleet.images.pulls import Pulls
from hecaton.server.fleet.lanes import LANE_KEPT
from hecaton.server.fleet.members import Fleet
from hecaton.server.fleet.places.leases import Lease
from hecaton.server.fleet.scheduler import Scheduler
from hecaton.store.port import LaneInfo

LANE = Lane(1, 1)
KEY = LANE.key()


class Server:
    """A scheduler at a time that the test says."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.fleet = Fleet()
        self.scheduler = Scheduler(self.fleet, lambda image: None, lambda: self.now, Pulls(lambda: self.now, 600.0))

    def later(self, seconds: float) -> bool:
        """Then it counts anew what waits: nothing. Is the lane still known?"""
        self.now += seconds
        self.scheduler.recount()
        self.scheduler.load([])
        return self.scheduler.knows(KEY)


def test_a_lane_is_forgotten_once_nothing_has_been_of_it_for_long() -> None:
    server = Server()
    server.scheduler.add(LANE, 0, server.now)
    assert server.later(LANE_KEPT - 1)
    assert not server.later(2)


def test_a_lane_stays_while_its_jobs_come_run_or_fail() -> None:
    server = Server()
    uses: tuple[Callable[[], object], ...] = (
        lambda: server.scheduler.add(LANE, 0, server.now),
        lambda: server.scheduler.ran(KEY, 0.1),
        lambda: server.scheduler.shun(KEY, WorkerId("w")),
        lambda: server.scheduler.again(KEY),
    )
    for use in uses:
        use()
        assert server.later(LANE_KEPT - 1)
    assert not server.later(2)


def test_a_lane_stays_while_a_worker_holds_a_job_of_it_however_long() -> None:
    server = Server()
    server.scheduler.add(LANE, 0, server.now)
    worker, ref = WorkerId("w"), AttemptRef(JobId("j"), 1)
    server.fleet.load([(worker, "w", 0, AttemptRef(JobId("other"), 1), True)], server.now)
    server.fleet.grant(worker, Lease(ref, 0, KEY, None, LANE.owner_id), 2)
    assert server.later(2 * LANE_KEPT)
    server.fleet.end(worker, ref, server.now)
    assert server.later(1)
    server.fleet.ended(worker, [ref], server.now)
    assert not server.later(1)


def test_a_lane_of_which_jobs_wait_stays() -> None:
    server = Server()
    server.scheduler.add(LANE, 0, server.now)
    server.now += 2 * LANE_KEPT
    server.scheduler.load([])  # added after the count that this is: `recount` was not called since
    assert server.scheduler.knows(KEY)
    assert server.scheduler.queued(LANE.owner_id) == 1


def test_jobs_are_claimed_under_the_key_that_the_store_has() -> None:
    """Made by another release, and by other rules."""
    server = Server()
    server.scheduler.load([LaneInfo(7, LANE, 1, 0, server.now, None)])
    server.scheduler.again(7)
    assert [server.scheduler.knows(key) for key in (7, KEY)] == [True, False]
    assert server.scheduler.queued(LANE.owner_id) == 2
