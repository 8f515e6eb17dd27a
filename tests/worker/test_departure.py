"""The worker's brain at its end: what it leaves to its next process, and what it stops when its machine goes down."""

from __future__ import annotations

import pytest

from hecaton.core.model import Reason
from hecaton.wire.channel import Draining, Released
from hecaton.worker.brain import events as ev
from hecaton.worker.brain.departure import HANDOVER_SECONDS, POWER_OFF_GRACE, POWER_OFF_SECONDS
from hecaton.worker.brain.settings import WorkerSettings
from tests.worker.brain import Brain, assignment, ref

A, B = ref("a"), ref("b")


@pytest.fixture
def brain() -> Brain:
    return Brain(WorkerSettings(slots=2, grace=600.0, drain_timeout=86400.0))


class TestLeaving:
    def test_what_runs_stays_and_what_waits_is_handed_back(self, brain: Brain) -> None:
        brain.running(assignment("a"), assignment("b"))
        brain.hear(ev.LeaveAsked(brain.now))
        assert brain.said(Draining) == [Draining()]
        assert brain.said(Released) == [Released((B,))]
        assert brain.stopped() == []
        assert brain.did(ev.Leave)

    def test_what_is_warm_stays_warm(self, brain: Brain) -> None:
        brain.running(assignment("a"))
        brain.answer("c-1", A)
        brain.hear(ev.LeaveAsked(brain.now))
        assert brain.stopped() == []
        assert brain.did(ev.Leave)

    def test_no_result_is_waited_for_the_journal_has_it(self, brain: Brain) -> None:
        brain.running(assignment("a"))
        brain.answer("c-1", A)
        assert brain.results() == [(A, Reason.OK)]
        brain.hear(ev.LeaveAsked(brain.now))
        assert brain.did(ev.Leave)
        assert brain.stopped() == []

    def test_what_is_heard_after_it_is_for_the_next_process(self, brain: Brain) -> None:
        brain.running(assignment("a", timeout=5))
        brain.hear(ev.LeaveAsked(brain.now))
        brain.answer("c-1", A)
        assert brain.last == []
        brain.wait(10)
        assert brain.last == []

    def test_a_container_that_nobody_waits_for_any_more_is_not_begun(self, brain: Brain) -> None:
        brain.connect()
        brain.assign(assignment("a"))
        brain.hear(ev.LeaveAsked(brain.now))
        assert brain.said(Released) == [Released((A,))]
        assert brain.stopped() == ["c-1"]
        assert brain.did(ev.Leave) == []
        brain.gone("c-1")
        assert brain.did(ev.Leave)

    def test_one_that_the_engine_starts_is_brought_to_its_start(self, brain: Brain) -> None:
        brain.connect()
        brain.assign(assignment("a", warm_key=None))
        brain.hear(ev.ImageReady(brain.now, "c-1"))
        brain.hear(ev.LeaveAsked(brain.now))
        assert brain.did(ev.Leave) == []
        brain.hear(ev.ContainerStarted(brain.now, "c-1"))
        assert brain.stopped() == []
        assert brain.did(ev.Leave)

    def test_an_engine_that_does_not_answer_holds_it_for_a_moment_only(self, brain: Brain) -> None:
        brain.running(assignment("a"))
        brain.cancel(A)
        brain.hear(ev.LeaveAsked(brain.now))
        brain.wait(HANDOVER_SECONDS - 1)
        assert brain.ever(ev.Leave) == []
        brain.wait(1)
        assert len(brain.ever(ev.Leave)) == 1

    def test_a_signal_that_comes_meanwhile_stops_nothing(self, brain: Brain) -> None:
        brain.running(assignment("a"), assignment("b", slot=1))
        brain.cancel(B)
        brain.hear(ev.LeaveAsked(brain.now))
        brain.stop()
        brain.stop()
        assert brain.ever(ev.StopContainer) == [ev.StopContainer("c-2", 600.0)]

    def test_a_worker_that_drains_goes_on_draining(self, brain: Brain) -> None:
        brain.running(assignment("a"))
        brain.stop()
        brain.hear(ev.LeaveAsked(brain.now))
        assert brain.did(ev.Leave) == []


class TestPowerOff:
    def test_what_runs_gets_its_grace_and_goes_back_to_the_queue(self, brain: Brain) -> None:
        brain.running(assignment("a"))
        brain.hear(ev.PowerOffAsked(brain.now))
        assert brain.did(ev.StopContainer) == [ev.StopContainer("c-1", POWER_OFF_GRACE)]
        brain.gone("c-1")
        assert brain.said(Released) == [Released((A,))]
        assert brain.did(ev.Leave)

    @pytest.mark.parametrize("drains", [False, True])
    def test_what_cannot_be_stopped_does_not_hold_it_up(self, brain: Brain, drains: bool) -> None:
        brain.running(assignment("a"))
        if drains:
            brain.stop()
        brain.hear(ev.PowerOffAsked(brain.now))
        brain.wait(POWER_OFF_SECONDS)
        assert len(brain.ever(ev.Leave)) == 1

    def test_results_of_before_are_delivered_first(self, brain: Brain) -> None:
        brain.running(assignment("a"))
        brain.answer("c-1", A)
        brain.hear(ev.PowerOffAsked(brain.now))
        brain.gone("c-1")
        assert brain.did(ev.Leave) == []
        brain.accept(A)
        assert brain.did(ev.Leave)
