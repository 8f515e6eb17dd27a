"""The worker's brain and short jobs: a container has some ahead, and each can be withdrawn until it begins."""

from __future__ import annotations

import msgspec
import pytest

from hecaton.core.model import AttemptRef, Body, Gpu, Kind, Reason
from hecaton.wire.channel import Assignment, Held, Released, Started
from hecaton.worker.brain import events as ev
from hecaton.worker.brain.settings import WorkerSettings
from hecaton.worker.brain.slots import AHEAD_BYTES, MAX_AHEAD
from hecaton.worker.runtimes.port import Exit
from tests.worker.brain import Brain, assignment, ref

A, B, C, D, E = map(ref, "abcde")


def ahead(brain: Brain) -> list[AttemptRef]:
    return [job.ref for action in brain.did(ev.GiveAhead) for job in action.assignments]


def withdrawn(brain: Brain, *refs: AttemptRef) -> None:
    brain.hear(ev.Withdrawn(brain.now, "c-1", refs))


@pytest.fixture
def brain() -> Brain:
    """A container that has ended a job in a millisecond and waits for more."""
    brain = Brain(gpus=(Gpu("GPU-0", "H", 1),))
    brain.connect()
    brain.assign(assignment("before"))
    brain.hear(ev.ImageReady(brain.now, "c-1"))
    brain.hear(ev.ContainerStarted(brain.now, "c-1"))
    brain.hear(ev.ContainerReady(brain.now, "c-1", takes_ahead=True))
    brain.now += 0.001
    brain.answer("c-1", ref("before"))
    brain.accept(ref("before"))
    return brain


def test_a_container_with_short_jobs_is_given_the_next_ones_ahead(brain: Brain) -> None:
    brain.assign(*map(assignment, "abc"))
    assert brain.given() == [("c-1", A)]
    assert ahead(brain) == [B, C]
    assert brain.said(Started) == [Started((A,))]
    brain.now += 0.001
    brain.answer("c-1", A)
    assert brain.given() == []
    assert brain.said(Started) == [Started((B,))]
    assert brain.results() == [(A, Reason.OK)]
    assert [held.phase for held in brain.state.holdings.held(brain.now) if held.ref == C] == ["queued"]
    assert Held(B, 0, "running", 0.0) in brain.state.holdings.held(brain.now)


def test_and_no_more_bytes_than_it_reads_without_delay(brain: Brain) -> None:
    """Or what waits for it would be more than for one that does not read."""
    body = Body.inline(Kind.BYTES, b"x" * (AHEAD_BYTES // 4))
    brain.assign(*(msgspec.structs.replace(assignment(f"job{number}"), payload=body) for number in range(10)))
    assert len(ahead(brain)) == 4


def test_it_has_work_for_a_few_milliseconds_ahead_and_no_more(brain: Brain) -> None:
    brain.assign(*(assignment(f"job{number}") for number in range(100)))
    assert len(ahead(brain)) == 10
    for number in range(40):
        brain.answer("c-1", ref(f"job{number}"))  # each in no time
    assert 10 < len(brain.state.holdings.containers["c-1"].ahead) <= MAX_AHEAD


@pytest.mark.parametrize("seconds", [0.011, 60.0])
def test_a_container_with_longer_jobs_is_not(brain: Brain, seconds: float) -> None:
    brain.assign(assignment("a"))
    brain.now += 100 * seconds
    brain.answer("c-1", A)
    brain.assign(*map(assignment, "bc"))
    assert brain.given() == [("c-1", B)]
    assert ahead(brain) == []


def test_nor_one_whose_job_takes_longer_than_those_before(brain: Brain) -> None:
    brain.assign(assignment("a"))
    brain.now += 1
    brain.assign(assignment("b"))
    assert ahead(brain) == []


def test_nor_one_that_cannot(brain: Brain) -> None:
    brain.hear(ev.ContainerReady(brain.now, "c-1", takes_ahead=False))
    brain.assign(*map(assignment, "ab"))
    assert ahead(brain) == []


@pytest.mark.parametrize(
    "other",
    [
        assignment("b", blob=True),
        assignment("b", no_overlap=True),
        assignment("b", warm_key="w2"),
        assignment("b", warm_key=None),
    ],
)
def test_large_payloads_no_overlap_jobs_and_other_images_wait_for_their_turn(brain: Brain, other: Assignment) -> None:
    brain.assign(assignment("a"), other, assignment("c"))
    assert ahead(brain) == []


def test_a_job_ahead_that_has_not_begun_is_handed_back_and_the_others_keep_their_turn(brain: Brain) -> None:
    brain.assign(*map(assignment, "abc"))
    brain.now += 1
    brain.revoke(B)
    assert brain.did(ev.Withdraw) == [ev.Withdraw("c-1")]
    assert brain.said(Released) == []
    withdrawn(brain, B, C)
    assert brain.said(Released) == [Released((B,))]
    assert ahead(brain) == []  # the first takes longer than was to be expected
    brain.answer("c-1", A)
    assert brain.given() == [("c-1", C)]


def test_a_job_ahead_that_has_begun_is_not_handed_back(brain: Brain) -> None:
    brain.assign(*map(assignment, "abc"))
    brain.revoke(B)
    withdrawn(brain, C)
    assert brain.said(Released) == []
    brain.answer("c-1", A)
    assert brain.said(Started) == [Started((B,))]
    brain.answer("c-1", B)
    assert brain.results() == [(B, Reason.OK)]


def test_a_job_whose_turn_had_come_and_that_is_withdrawn_with_those_behind_is_given_again(brain: Brain) -> None:
    brain.assign(*map(assignment, "abc"))
    brain.answer("c-1", A)
    assert brain.results() == [(A, Reason.OK)]
    brain.revoke(C)
    withdrawn(brain, B, C)  # the container had answered, and had not come to the next one
    assert brain.said(Released) == [Released((C,))]
    assert brain.given() == [("c-1", B)]
    brain.answer("c-1", B)
    assert brain.results() == [(B, Reason.OK)]


def test_cancelling_a_job_ahead_ends_it_alone(brain: Brain) -> None:
    brain.assign(*map(assignment, "abc"))
    brain.now += 1
    brain.cancel(B)
    withdrawn(brain, B, C)
    assert brain.results() == [(B, Reason.CANCELLED)]
    assert brain.stopped() == []
    brain.answer("c-1", A)
    assert brain.given() == [("c-1", C)]


def test_cancelling_a_job_ahead_that_has_just_begun_stops_the_container(brain: Brain) -> None:
    brain.assign(*map(assignment, "abc"))
    brain.cancel(B)
    withdrawn(brain, C)
    assert brain.stopped() == ["c-1"]
    withdrawn(brain)
    brain.answer("c-1", A)  # was said before
    assert brain.results() == [(A, Reason.OK)]
    brain.gone("c-1")
    assert brain.results() == [(B, Reason.CANCELLED)]
    assert brain.started() == ["c-2"]
    brain.boot("c-2")
    assert brain.given() == [("c-2", C)]


def test_a_timeout_ends_one_job_and_those_ahead_go_to_the_next_container(brain: Brain) -> None:
    brain.assign(assignment("a", timeout=10), assignment("b"), assignment("c"))
    brain.wait(11)
    assert [type(action) for action in brain.all[-2:]] == [ev.Withdraw, ev.StopContainer]
    withdrawn(brain, B, C)
    brain.gone("c-1")
    assert brain.results() == [(A, Reason.TIMEOUT)]
    brain.boot("c-2")
    assert brain.given() == [("c-2", B)]


def test_a_job_that_begins_as_its_container_is_stopped_is_charged_to_the_machine(brain: Brain) -> None:
    brain.assign(assignment("a", timeout=10), assignment("b"), assignment("c"))
    brain.wait(11)
    withdrawn(brain, C)
    brain.gone("c-1")
    assert set(brain.results()) == {(A, Reason.TIMEOUT), (B, Reason.WORKER_ERROR)}


def test_a_crash_fails_what_had_begun_and_nothing_behind_it(brain: Brain) -> None:
    brain.assign(*map(assignment, "abc"))
    brain.answer("c-1", A)
    brain.hear(ev.ContainerExited(brain.now, "c-1", Exit(3), "", (C,)))
    assert brain.results() == [(B, Reason.HANDLER_EXIT)]
    brain.gone("c-1")
    brain.boot("c-2")
    assert brain.given() == [("c-2", C)]


def test_a_crash_fails_a_job_whose_start_was_not_heard_of_yet(brain: Brain) -> None:
    brain.assign(*map(assignment, "abc"))
    brain.hear(ev.ContainerExited(brain.now, "c-1", Exit(3), "", (C,)))
    assert brain.results() == [(A, Reason.HANDLER_EXIT), (B, Reason.HANDLER_EXIT)]


def test_a_crash_fails_no_job_whose_turn_had_come_and_that_had_not_begun(brain: Brain) -> None:
    brain.assign(*map(assignment, "ab"))
    brain.answer("c-1", A)
    brain.hear(ev.ContainerExited(brain.now, "c-1", Exit(3), "", (B,)))
    assert brain.results() == []
    brain.gone("c-1")
    brain.boot("c-2")
    assert brain.given() == [("c-2", B)]


def test_a_crash_while_a_job_ahead_is_being_withdrawn(brain: Brain) -> None:
    brain.assign(*map(assignment, "ab"))
    brain.revoke(B)
    brain.hear(ev.ContainerExited(brain.now, "c-1", Exit(3), "", (B,)))
    assert brain.said(Released) == [Released((B,))]


def test_what_was_lost_with_a_connection_is_given_again(brain: Brain) -> None:
    brain.assign(*map(assignment, "abcd"))
    brain.hear(ev.ContainerReady(brain.now, "c-1", (A, B), takes_ahead=True))
    assert brain.given() == []
    brain.answer("c-1", A)
    assert brain.said(Started) == [Started((B,))]
    assert [job.ref for job in brain.state.holdings.containers["c-1"].begun()] == [B, C, D]
    brain.hear(ev.ContainerReady(brain.now, "c-1", (), takes_ahead=True))
    assert brain.given() == [("c-1", B)]
    assert ahead(brain) == [C, D]


def test_a_worker_that_stops_hands_back_what_is_ahead_and_lets_the_rest_finish(brain: Brain) -> None:
    brain.assign(*map(assignment, "abc"))
    brain.stop()
    withdrawn(brain, C)
    assert brain.said(Released) == [Released((C,))]
    brain.answer("c-1", A)
    brain.answer("c-1", B)
    assert brain.results() == [(B, Reason.OK)]


def test_a_lost_card_fails_what_runs_and_hands_back_what_is_ahead(brain: Brain) -> None:
    brain.assign(*map(assignment, "ab"))
    brain.hear(ev.GpuLost(brain.now, "GPU-0", "it fell off the bus"))
    withdrawn(brain, B)
    assert brain.said(Released) == [Released((B,))]
    brain.gone("c-1")
    assert brain.results() == [(A, Reason.GPU_LOST)]


class TestAfterARestart:
    def test_it_goes_on_with_all_that_the_container_has_begun(self) -> None:
        brain = Brain(WorkerSettings(slots=1))
        jobs = [assignment(name) for name in "abc"]
        brain.hear(ev.ContainerAdopted(brain.now, "c-1", 0, assignment("z"), jobs[0], brain.now, tuple(jobs[1:])))
        brain.connect()
        brain.hear(ev.ContainerReady(brain.now, "c-1", (A, B), takes_ahead=True))
        assert brain.results() == [(C, Reason.RELEASED)]  # its payload went with the earlier process
        brain.answer("c-1", A)
        brain.answer("c-1", B)
        assert brain.results() == [(B, Reason.OK)]
        assert brain.state.holdings.jobs == {}

    def test_the_first_may_be_the_one_that_never_came(self) -> None:
        brain = Brain(WorkerSettings(slots=1))
        brain.hear(
            ev.ContainerAdopted(brain.now, "c-1", 0, assignment("z"), assignment("a"), brain.now, (assignment("b"),))
        )
        brain.hear(ev.ContainerReady(brain.now, "c-1", (B,), takes_ahead=True))
        assert brain.results() == [(A, Reason.RELEASED)]
        brain.hear(ev.JobAnswered(brain.now, "c-1", B, Reason.OK, Body.inline(Kind.JSON, b"1")))
        assert brain.results() == [(B, Reason.OK)]
