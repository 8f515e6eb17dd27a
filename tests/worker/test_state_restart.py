"""The worker's brain after a restart over living containers, and while its disk is full."""

from __future__ import annotations

import pytest

from hecaton.core.model import Failure, Reason
from hecaton.wire.channel import Draining, Held, Released, SlotInfo, Started, Warm
from hecaton.worker.brain import events as ev
from hecaton.worker.brain.settings import WorkerSettings
from tests.worker.brain import Brain, assignment, ref

A, B = ref("a"), ref("b")


@pytest.fixture
def brain() -> Brain:
    return Brain(WorkerSettings(slots=2))


def adopt(brain: Brain, job: str | None = "a", *, warm_key: str | None = "w1", timeout: float | None = None) -> None:
    """The container `old-1` on slot 0; the job has been running for 40 seconds."""
    first = assignment("first" if warm_key else "a", warm_key=warm_key)
    at_work = assignment(job, warm_key=warm_key, timeout=timeout) if job else None
    brain.hear(ev.ContainerAdopted(brain.now, "old-1", 0, first, at_work, brain.now - 40))


class TestAContainerWithAJob:
    def test_is_told_to_the_server_as_it_was(self, brain: Brain) -> None:
        adopt(brain)
        assert brain.state.holdings.held(brain.now) == (Held(A, 0, "running", 40.0),)
        assert brain.state.holdings.slot_infos()[0] == SlotInfo(0, None, "w1", "python:3.9-slim")
        brain.connect()
        assert brain.said(Started) == [Started((A,))]

    def test_is_not_given_it_again_when_it_comes_back(self, brain: Brain) -> None:
        adopt(brain)
        brain.hear(ev.ContainerReady(brain.now, "old-1", (A,)))
        assert brain.given() == []
        brain.answer("old-1", A)
        assert brain.results() == [(A, Reason.OK)]

    def test_releases_a_job_that_never_reached_the_handler(self, brain: Brain) -> None:
        """Its payload went with the earlier process."""
        adopt(brain)
        brain.hear(ev.ContainerReady(brain.now, "old-1", ()))
        assert brain.results() == [(A, Reason.RELEASED)]
        brain.connect()
        brain.assign(assignment("b"))
        assert brain.given() == [("old-1", B)]

    def test_keeps_its_timeout(self, brain: Brain) -> None:
        adopt(brain, timeout=60)
        brain.wait(20)
        assert brain.stopped() == ["old-1"]
        brain.gone("old-1")
        assert brain.results() == [(A, Reason.TIMEOUT)]

    def test_is_stopped_when_the_server_gave_the_job_away(self, brain: Brain) -> None:
        adopt(brain)
        brain.connect(drop=(A,))
        assert brain.stopped() == ["old-1"]

    def test_that_ended_meanwhile_fails_its_job_for_the_reason_of_its_end(self, brain: Brain) -> None:
        adopt(brain)
        brain.exit("old-1", 137, oom=True)
        assert brain.results() == [(A, Reason.OOM_HOST)]

    def test_of_its_own_is_not_used_for_another(self, brain: Brain) -> None:
        adopt(brain, warm_key=None)
        brain.connect()
        brain.assign(assignment("b", warm_key=None))
        brain.answer("old-1", A)
        assert brain.stopped() == ["old-1"]


class TestAnIdleContainer:
    def test_counts_as_warm_once_it_asks_for_work(self, brain: Brain) -> None:
        adopt(brain, None)
        brain.connect()
        assert brain.state.holdings.slot_infos()[0].warm_key is None
        brain.hear(ev.ContainerReady(brain.now, "old-1"))
        assert brain.said(Warm) == [Warm(0, "w1", "python:3.9-slim")]
        brain.assign(assignment("a"))
        assert brain.given() == [("old-1", A)]

    def test_stays_though_the_warden_is_there_before_it_has_come_back(self, brain: Brain) -> None:
        adopt(brain, None)
        brain.connect()
        brain.hear(ev.Guarded(brain.now, True))
        assert brain.stopped() == []
        brain.hear(ev.ContainerReady(brain.now, "old-1"))
        brain.assign(assignment("a"))
        assert brain.given() == [("old-1", A)]

    def test_that_never_asks_for_work_is_stopped(self, brain: Brain) -> None:
        adopt(brain, None)
        brain.wait(brain.state.settings.startup_timeout)
        assert brain.stopped() == ["old-1"]

    def test_that_ends_costs_a_waiting_job_nothing(self, brain: Brain) -> None:
        adopt(brain, None)
        brain.connect()
        brain.assign(assignment("a"))
        brain.exit("old-1", 1)
        assert brain.results() == []
        brain.gone("old-1")
        assert brain.started() == ["c-1"]


def test_an_attempt_whose_container_is_no_more_is_reported_until_it_is_accepted(brain: Brain) -> None:
    brain.hear(ev.AttemptLost(brain.now, A, 1, Reason.WORKER_ERROR, Failure("gone")))
    assert brain.results() == [(A, Reason.WORKER_ERROR)]
    assert [(item.ref, item.slot, item.phase) for item in brain.state.holdings.held(brain.now)] == [(A, 1, "done")]
    brain.connect()
    assert brain.results() == [(A, Reason.WORKER_ERROR)]
    brain.accept(A)
    assert brain.state.holdings.held(brain.now) == ()


class TestAFullDisk:
    def test_lets_what_runs_finish_and_hands_the_rest_back(self, brain: Brain) -> None:
        brain.running(assignment("a"), assignment("b"))
        brain.hear(ev.DiskFull(brain.now, True))
        assert brain.said(Draining) == [Draining()]
        assert brain.said(Released) == [Released((B,))]
        brain.answer("c-1", A)
        assert brain.results() == [(A, Reason.OK)]
        assert brain.ever(ev.Leave) == []

    def test_takes_nothing_new_until_there_is_room(self, brain: Brain) -> None:
        brain.connect()
        brain.hear(ev.DiskFull(brain.now, True))
        brain.assign(assignment("a"))
        assert brain.said(Released) == [Released((A,))]
        brain.connect()
        assert brain.said(Draining) == [Draining()]
        brain.hear(ev.DiskFull(brain.now, False))
        assert brain.said(Draining) == [Draining(active=False)]
        brain.assign(assignment("b"))
        assert brain.started() == ["c-1"]
