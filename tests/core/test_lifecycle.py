"""The table of moves, and where a job goes when an attempt ends."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hecaton.core.lifecycle import (
    EXCUSED_LIMIT,
    INFRA_LIMIT,
    TRANSITIONS,
    Event,
    History,
    charge,
    judge,
    last_words,
    sources,
)
from hecaton.core.model import Charged, JobState, Reason

DOCUMENT = Path(__file__).resolve().parents[2] / "docs/lifecycle.md"
# Written out, as docs/reliability.md promises them (C5): a list taken from the code would agree with any code.
MACHINES = [Reason.GPU_LOST, Reason.WORKER_ERROR, Reason.WORKER_LOST]
LOSSES = 3
NOBODYS = {Reason.OK, Reason.RELEASED, Reason.CANCELLED, Reason.IMAGE_PULL, Reason.NO_ROOM}
USER_FAULTS = sorted(set(Reason) - set(MACHINES) - NOBODYS)
HOPELESS = [Reason.IMAGE_DENIED, Reason.STARTUP_EXIT]
HELD = (JobState.ASSIGNED, JobState.IN_PROGRESS)
PAYERS = {"nobody": Charged.NONE, "the user": Charged.USER, "the machines": Charged.INFRA}

standings = st.builds(
    History,
    retries=st.integers(0, 100),
    user_failures=st.integers(0, 100),
    infra_failures=st.integers(0, 5),
    cancel_requested=st.booleans(),
)


def fresh(retries: int = 0, user_failures: int = 0, infra_failures: int = 0, cancel: bool = False) -> History:
    return History(retries, user_failures, infra_failures, cancel)


# -- the table -------------------------------------------------------------------------------------


def test_a_terminal_state_has_no_way_out() -> None:
    assert [move for move in TRANSITIONS if move[0].terminal] == []
    assert {state for state in JobState if state.terminal} == {
        JobState.FINISHED, JobState.FAILED, JobState.CANCELLED,
    }  # fmt: skip


def test_every_other_state_can_reach_an_end() -> None:
    for state in (state for state in JobState if not state.terminal):
        assert any(target.terminal for (source, _), target in TRANSITIONS.items() if source is state)


def test_a_job_starts_only_after_it_was_assigned() -> None:
    assert sources(Event.START) == (JobState.ASSIGNED,)
    assert sources(Event.ASSIGN) == (JobState.IN_QUEUE,)
    assert sources(Event.REQUEUE) == HELD
    assert sources(Event.FINISH) == HELD


@given(st.lists(st.sampled_from(list(Event)), max_size=60))
def test_no_sequence_of_events_leaves_the_table_or_a_terminal_state(events: list[Event]) -> None:
    state = JobState.IN_QUEUE
    for event in events:
        target = TRANSITIONS.get((state, event))
        if target is not None:
            assert not state.terminal
            state = target


def test_the_drawing_is_the_table() -> None:
    drawn = re.findall(r"^    (\w+) --> (\w+): (\w+)$", DOCUMENT.read_text(), re.MULTILINE)
    assert {(source, event): target for source, target, event in drawn} == {
        (source.value, event.value): target.value for (source, event), target in TRANSITIONS.items()
    }
    assert len(drawn) == len(TRANSITIONS)


def test_every_state_and_reason_has_its_sentence() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", DOCUMENT.read_text(), re.MULTILINE)
    assert rows == [*(state.value for state in JobState), *(reason.value for reason in Reason)]


def test_the_document_names_who_pays() -> None:
    rows = dict(re.findall(r"^\| `([a-z_]+)` \| (\w[\w ]*) \|", DOCUMENT.read_text(), re.MULTILINE))
    assert {name: PAYERS[payer] for name, payer in rows.items()} == {r.value: charge(r) for r in Reason}


# -- where it goes ---------------------------------------------------------------------------------


def test_a_result_finishes_the_job() -> None:
    verdict = judge(fresh(), Reason.OK)
    assert (verdict.event, verdict.reason, verdict.charged) == (Event.FINISH, Reason.OK, Charged.NONE)


def test_a_result_counts_even_after_a_cancellation_was_asked_for() -> None:
    assert judge(fresh(cancel=True), Reason.OK).event is Event.FINISH


@pytest.mark.parametrize("reason", sorted(set(Reason) - {Reason.OK}))
def test_any_other_end_after_a_cancellation_is_a_cancelled_job_that_costs_nothing(reason: Reason) -> None:
    verdict = judge(fresh(retries=5, cancel=True), reason)
    assert (verdict.event, verdict.reason, verdict.charged) == (Event.CANCEL, Reason.CANCELLED, Charged.NONE)


@pytest.mark.parametrize("reason", USER_FAULTS)
def test_without_retries_a_fault_of_the_user_fails_the_job(reason: Reason) -> None:
    verdict = judge(fresh(), reason)
    assert (verdict.event, verdict.reason, verdict.charged) == (Event.FAIL, reason, Charged.USER)


@pytest.mark.parametrize("reason", sorted(set(USER_FAULTS) - set(HOPELESS)))
def test_retries_are_used_up_one_by_one_with_growing_pauses(reason: Reason) -> None:
    pauses = []
    for failures in range(5):
        verdict = judge(fresh(retries=5, user_failures=failures), reason)
        assert verdict.event is Event.REQUEUE
        pauses.append(verdict.delay)
    assert pauses == [1.0, 5.0, 30.0, 30.0, 30.0]
    assert judge(fresh(retries=5, user_failures=5), reason).event is Event.FAIL


@pytest.mark.parametrize("reason", HOPELESS)
def test_what_would_end_the_same_way_is_not_tried_again(reason: Reason) -> None:
    assert judge(fresh(retries=5), reason).event is Event.FAIL


@pytest.mark.parametrize("reason", MACHINES)
def test_losses_to_the_machines_use_up_no_retries_and_end_after_three(reason: Reason) -> None:
    for losses in range(LOSSES - 1):
        verdict = judge(fresh(user_failures=9, infra_failures=losses), reason)
        assert (verdict.event, verdict.charged) == (Event.REQUEUE, Charged.INFRA)
        assert (verdict.delay == 0) is (reason is Reason.WORKER_LOST)
    last = judge(fresh(retries=9, infra_failures=LOSSES - 1), reason)
    assert (last.event, last.reason) == (Event.FAIL, reason)


def test_poison_is_a_job_whose_worker_was_lost_each_time() -> None:
    before = History(0, 0, LOSSES - 1, False, LOSSES - 1, LOSSES - 1)
    assert judge(before, Reason.WORKER_LOST).reason is Reason.POISON
    once = judge(msgspec.structs.replace(before, charged_losses=LOSSES - 2), Reason.WORKER_LOST)
    assert (once.event, once.reason) == (Event.FAIL, Reason.WORKER_LOST)
    for verdict, said in (
        (judge(before, Reason.WORKER_LOST), "three workers were lost"),
        (once, "ended by the machines"),
    ):
        words = last_words(verdict)
        assert words is not None
        assert said in words.message
    assert last_words(judge(before, Reason.WORKER_ERROR)) is None  # the worker has said it
    assert last_words(judge(fresh(), Reason.WORKER_LOST)) is None  # it is not the end


@pytest.mark.parametrize("reason", [Reason.IMAGE_PULL, Reason.IMAGE_DENIED])
def test_an_image_that_may_yet_be_had_costs_nobody_anything(reason: Reason) -> None:
    verdict = judge(fresh(infra_failures=2), reason, hope=True)
    assert (verdict.event, verdict.charged, verdict.delay) == (Event.REQUEUE, Charged.NONE, 0.0)
    last = judge(fresh(retries=5), reason)
    assert (last.event, last.reason) == (Event.FAIL, reason)


def test_a_payload_that_may_have_room_elsewhere_waits_for_it_at_nobodys_cost() -> None:
    verdict = judge(fresh(infra_failures=2), Reason.NO_ROOM, hope=True)
    assert (verdict.event, verdict.charged, verdict.delay) == (Event.REQUEUE, Charged.NONE, 5.0)
    last = judge(fresh(retries=5), Reason.NO_ROOM)
    assert (last.event, last.reason, last.charged) == (Event.FAIL, Reason.NO_ROOM, Charged.NONE)


def test_what_was_handed_back_waits_again_at_once_and_costs_nothing() -> None:
    verdict = judge(fresh(infra_failures=2), Reason.RELEASED)
    assert (verdict.event, verdict.charged, verdict.delay) == (Event.REQUEUE, Charged.NONE, 0.0)


@given(standings, st.sampled_from(list(Reason)), st.sampled_from(HELD))
def test_every_verdict_is_a_legal_move_of_a_held_job(history: History, reason: Reason, state: JobState) -> None:
    verdict = judge(history, reason)
    assert (state, verdict.event) in TRANSITIONS
    assert verdict.delay >= 0
    assert verdict.delay == 0 or verdict.event is Event.REQUEUE
    assert verdict.reason is not Reason.OK or verdict.event is Event.FINISH


@given(
    st.lists(st.sampled_from(sorted(set(Reason) - {Reason.RELEASED})), min_size=120, max_size=120), st.integers(0, 50)
)
def test_no_job_is_tried_for_ever(reasons: list[Reason], retries: int) -> None:
    user = infra = 0
    for attempt, reason in enumerate(reasons):
        verdict = judge(History(retries, user, infra, False), reason)
        if verdict.event is not Event.REQUEUE:
            assert attempt <= retries + INFRA_LIMIT
            return
        user += verdict.charged is Charged.USER
        infra += verdict.charged is Charged.INFRA
    pytest.fail("it is still being tried")


def test_a_loss_that_no_job_caused_is_charged_to_nobody_as_long_as_that_can_be_believed() -> None:
    history = History(0, 0, INFRA_LIMIT - 1, False, losses=EXCUSED_LIMIT - 2)
    verdict = judge(history, Reason.WORKER_LOST, excused=True)
    assert (verdict.event, verdict.charged, verdict.delay) == (Event.REQUEUE, Charged.NONE, 0.0)
    often = History(0, 0, INFRA_LIMIT - 1, False, losses=EXCUSED_LIMIT - 1, charged_losses=INFRA_LIMIT - 1)
    assert judge(often, Reason.WORKER_LOST, excused=True).reason is Reason.POISON
