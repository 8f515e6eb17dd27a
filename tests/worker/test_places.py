"""Places that an assignment opens: several cards or a part of one, beside those that the worker opens itself. What is
given to one container is given to no other."""

from __future__ import annotations

import pytest

from hecaton.core.model import AttemptRef, Gpu, JobId, Reason
from hecaton.core.placement.holds import Holds, Part
from hecaton.wire.bounds import MAX_SLOTS
from hecaton.wire.channel import Held, Lost, Released, SlotInfo
from hecaton.worker.brain import events as ev
from hecaton.worker.brain.settings import WorkerSettings
from tests.worker.brain import Brain, assignment

A, B, C = (AttemptRef(JobId(name), 1) for name in "abc")
FIRST, SECOND = (Gpu("GPU-0001", "H", 16), Gpu("GPU-0002", "H", 16))
BOTH = Holds((Part(FIRST.uuid), Part(SECOND.uuid)))
HALF = Holds((Part(FIRST.uuid, 8),))


@pytest.fixture
def brain() -> Brain:
    brain = Brain(WorkerSettings(cpus=8.0, memory=64), (FIRST, SECOND))
    brain.connect()
    return brain


def places(brain: Brain) -> dict[int, Holds | None]:
    return {info.index: info.holds for info in brain.state.holdings.slot_infos()}


def done(brain: Brain, container: str, job: AttemptRef) -> None:
    brain.answer(container, job)
    brain.accept(job)


def held_by(brain: Brain, container: str) -> Holds:
    return brain.state.holdings.containers[container].holds


def test_a_place_is_opened_by_its_first_job_and_closed_with_its_container(brain: Brain) -> None:
    brain.assign(assignment("a", slot=5, holds=BOTH))
    assert brain.started() == ["c-1"]
    assert held_by(brain, "c-1") == BOTH
    assert places(brain) == {0: None, 1: None, 5: BOTH}
    brain.boot("c-1")
    brain.answer("c-1", A)
    assert brain.state.holdings.slot_infos()[2] == SlotInfo(5, None, "w1", "python:3.9-slim", None, BOTH)
    brain.wait(900)
    brain.gone("c-1")
    assert places(brain) == {0: None, 1: None}


def test_the_next_job_there_finds_the_container_warm(brain: Brain) -> None:
    brain.assign(assignment("a", slot=5, holds=HALF), assignment("b", slot=5, holds=HALF))
    brain.boot("c-1")
    brain.answer("c-1", A)
    assert brain.given() == [("c-1", B)]


def test_idle_containers_that_are_in_the_way_go_first(brain: Brain) -> None:
    brain.assign(assignment("a"), assignment("b", slot=1))
    for container, job in (("c-1", A), ("c-2", B)):
        brain.boot(container)
        done(brain, container, job)
    brain.assign(assignment("c", slot=2, holds=HALF))
    assert brain.stopped() == ["c-1"], "the other card is not asked for"
    assert brain.started() == []
    brain.gone("c-1")
    assert brain.started() == ["c-3"]


def test_only_as_many_go_as_have_to_and_those_used_last_stay(brain: Brain) -> None:
    for number, job in ((3, A), (4, B)):
        brain.assign(assignment(job.job, slot=number, holds=HALF))
        brain.boot(f"c-{number - 2}")
        brain.now += 10
        done(brain, f"c-{number - 2}", job)
    brain.assign(assignment("c", slot=5, holds=HALF))
    assert brain.stopped() == ["c-1"]


def test_what_is_being_stopped_already_makes_the_room(brain: Brain) -> None:
    for number, job in ((3, A), (4, B)):
        brain.assign(assignment(job.job, slot=number, holds=HALF))
        brain.boot(f"c-{number - 2}")
        if job is A:
            done(brain, "c-1", A)
        brain.now += 10
    brain.cancel(B)  # used last
    assert brain.stopped() == ["c-2"]
    brain.assign(assignment("c", slot=5, holds=HALF))
    assert brain.stopped() == [], "one of the two halves is enough"
    brain.gone("c-2")
    assert brain.started() == ["c-3"]


def test_a_job_waits_for_what_another_one_still_works_with(brain: Brain) -> None:
    brain.assign(assignment("a", slot=3, holds=HALF))
    brain.boot("c-1")
    brain.assign(assignment("b", slot=0))
    assert (brain.started(), brain.stopped()) == ([], [])
    brain.answer("c-1", A)
    assert brain.stopped() == ["c-1"]
    brain.gone("c-1")
    assert brain.started() == ["c-2"]
    assert held_by(brain, "c-2").uuids == (FIRST.uuid,)


def test_one_that_waits_for_room_is_revoked_and_cancelled_as_any_other(brain: Brain) -> None:
    brain.assign(assignment("a", slot=3, holds=BOTH))
    brain.boot("c-1")
    brain.assign(assignment("b", slot=4, holds=HALF), assignment("c", slot=5, holds=HALF))
    brain.revoke(B)
    assert brain.said(Released) == [Released((B,))]
    brain.cancel(C)
    assert brain.results() == [(C, Reason.CANCELLED)]
    assert places(brain) == {0: None, 1: None, 3: BOTH}
    brain.answer("c-1", A)
    assert brain.stopped() == [], "nobody waits for it any more"


def test_another_holding_of_the_same_place_is_another_container(brain: Brain) -> None:
    more = Holds((Part(FIRST.uuid),), cpus=4.0, memory=32)
    brain.assign(assignment("a"))
    brain.boot("c-1")
    done(brain, "c-1", A)
    brain.assign(assignment("b", holds=more))
    assert brain.stopped() == ["c-1"]
    brain.gone("c-1")
    assert held_by(brain, "c-2") == more
    assert places(brain) == {0: more, 1: None}


@pytest.mark.parametrize(
    ("slot", "holds"),
    [
        pytest.param(5, None, id="a place that nobody has opened"),
        pytest.param(5, Holds((Part("GPU-0009"),)), id="a card that is not here"),
        pytest.param(5, Holds((Part(FIRST.uuid, 17),)), id="more than the card has"),
        pytest.param(5, Holds((Part(FIRST.uuid, 8), Part(FIRST.uuid, 9))), id="more than the card has, in two parts"),
        pytest.param(5, Holds(cpus=8.5), id="more CPUs than jobs may have"),
        pytest.param(5, Holds(memory=65), id="more memory than jobs may have"),
        pytest.param(MAX_SLOTS, BOTH, id="a number that nobody could say"),
    ],
)
def test_what_can_never_be_given_is_handed_back(brain: Brain, slot: int, holds: Holds | None) -> None:
    brain.assign(assignment("a", slot=slot, holds=holds))
    assert brain.said(Released) == [Released((A,))]
    assert places(brain) == {0: None, 1: None}


def test_a_lost_card_takes_all_places_out_that_hold_it(brain: Brain) -> None:
    brain.assign(assignment("a", slot=4, holds=BOTH))
    brain.boot("c-1")
    brain.hear(ev.GpuLost(brain.now, FIRST.uuid, "it fell off the bus"))
    assert {news.slot for news in brain.said(Lost)} == {0, 4}
    assert brain.stopped() == ["c-1"]
    brain.gone("c-1")
    assert brain.results() == [(A, Reason.GPU_LOST)]
    assert places(brain) == {0: None, 1: None}
    brain.assign(assignment("b", slot=6, holds=HALF), assignment("c", slot=1))
    assert brain.said(Released) == [Released((B,))]
    assert brain.started() == ["c-2"]


def test_a_number_that_is_given_again_while_a_lost_card_is_cleared_is_the_next_jobs(brain: Brain) -> None:
    """The server opens the place anew, with the other card, before the container of the lost one is gone."""
    brain.assign(assignment("a", slot=5, holds=HALF))
    brain.boot("c-1")
    done(brain, "c-1", A)
    brain.hear(ev.GpuLost(brain.now, FIRST.uuid, "it fell off the bus"))
    brain.assign(assignment("b", slot=5, holds=Holds((Part(SECOND.uuid),))))
    brain.gone("c-1")
    assert brain.started() == ["c-2"]
    assert held_by(brain, "c-2").uuids == (SECOND.uuid,)


def test_what_waits_for_a_lost_card_behind_a_container_of_another_goes_elsewhere(brain: Brain) -> None:
    brain.assign(assignment("a", slot=5, holds=Holds((Part(SECOND.uuid),))))
    brain.boot("c-1")
    done(brain, "c-1", A)
    brain.assign(assignment("b", slot=5, holds=HALF))
    assert brain.stopped() == ["c-1"]
    brain.hear(ev.GpuLost(brain.now, FIRST.uuid, "it fell off the bus"))
    assert brain.said(Released) == [Released((B,))]
    brain.gone("c-1")
    assert brain.started() == []
    assert places(brain) == {0: None, 1: None}


def test_a_place_without_a_card_takes_nothing_whatever_it_should_hold_once_cards_came() -> None:
    brain = Brain(WorkerSettings(slots=1, cpus=8.0, memory=64))
    brain.connect()
    brain.hear(ev.GpusCame(brain.now, (FIRST,)))
    brain.assign(assignment("a", slot=0, holds=Holds(cpus=2.0)))  # on its way meanwhile
    assert brain.said(Released) == [Released((A,))]


def test_the_next_process_goes_on_with_the_place_and_what_it_holds(brain: Brain) -> None:
    first = assignment("a", slot=7, holds=BOTH)
    brain.hear(ev.ContainerAdopted(brain.now, "old-1", 7, first, first, brain.now - 5))
    assert places(brain) == {0: None, 1: None, 7: BOTH}
    brain.assign(assignment("b", slot=1))
    assert brain.started() == []
    brain.answer("old-1", A)
    brain.gone("old-1")
    assert brain.started() == ["c-1"]


def test_a_result_whose_place_is_closed_is_still_said(brain: Brain) -> None:
    brain.assign(assignment("a", slot=7, holds=BOTH))
    brain.boot("c-1")
    brain.exit("c-1", code=3)
    brain.gone("c-1")
    assert brain.state.holdings.held(brain.now) == (Held(A, 0, "done", 0.0),)
