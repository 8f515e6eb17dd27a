"""Which work goes to which slot. Sentences first, then properties that hold for every snapshot."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hecaton.core.model import Mode, WorkerId, WorkerStatus
from hecaton.core.placement.matching import (
    PATIENCE,
    TURN,
    Ability,
    Host,
    Lane,
    Placement,
    Slot,
    Want,
    place,
    refusal,
    warm_key,
    why_waiting,
)

NOW = 1000.0


def want(lane: int = 1, **fields: Any) -> Want:
    known = {
        "image": "app",
        "mode": Mode.NATIVE,
        "warm_key": f"warm-{lane}",
        "count": 1,
        "priority": 0,
        "since": NOW - 1,
    }
    return Want(lane=lane, **{**known, **fields})


def host(name: str, *slots: Slot, status: WorkerStatus = WorkerStatus.ONLINE, **able: Any) -> Host:
    return Host(WorkerId(name), name, status, slots or (Slot(0),), Ability(**able))


def places(wants: list[Want], *hosts: Host) -> list[tuple[int, str, int, int]]:
    return [(p.lane, p.worker, p.slot, p.count) for p in place(wants, hosts, NOW)]


def test_a_job_goes_to_a_free_slot() -> None:
    assert places([want()], host("a")) == [(1, "a", 0, 1)]


def test_nothing_waits_nothing_happens() -> None:
    assert places([], host("a")) == []
    assert places([want()]) == []


def test_a_warm_slot_goes_first() -> None:
    assert places([want()], host("cold"), host("warm", Slot(0, warm_key="warm-1"))) == [(1, "warm", 0, 1)]


def test_an_empty_slot_goes_before_one_that_is_warm_for_another() -> None:
    assert places([want()], host("other", Slot(0, warm_key="warm-2")), host("empty")) == [(1, "empty", 0, 1)]


def test_among_slots_that_are_warm_for_others_the_longest_unused_gives_way() -> None:
    used = [Slot(0, warm_key="x", used_at=9.0), Slot(1, warm_key="y", used_at=3.0), Slot(2, warm_key="z", used_at=6.0)]
    assert places([want()], host("a", *used)) == [(1, "a", 1, 1)]


def test_higher_priority_goes_first_then_the_older() -> None:
    wants = [want(1, since=NOW - 3), want(2, priority=1, since=NOW - 1), want(3, since=NOW - 4)]
    assert [p[0] for p in places(wants, host("a"))] == [2]
    assert [p[0] for p in places(wants, host("a", Slot(0), Slot(1)))] == [2, 3]


def test_a_younger_lane_keeps_its_warm_slot_for_a_moment() -> None:
    wants = [want(1, since=NOW - PATIENCE + 1), want(2, since=NOW)]
    assert places(wants, host("a", Slot(0, warm_key="warm-2"))) == [(2, "a", 0, 1)]


def test_after_that_the_older_lane_gets_the_slot() -> None:
    wants = [want(1, since=NOW - PATIENCE - 1), want(2, since=NOW)]
    assert places(wants, host("a", Slot(0, warm_key="warm-2"))) == [(1, "a", 0, 1)]


def test_priority_has_no_patience_with_warm_slots() -> None:
    wants = [want(1, priority=1, since=NOW), want(2, since=NOW)]
    assert places(wants, host("a", Slot(0, warm_key="warm-2"))) == [(1, "a", 0, 1)]


# -- several owners --------------------------------------------------------------------------------


def test_free_slots_go_to_owners_in_turn_however_much_each_has_waiting() -> None:
    wants = [want(1, owner=1, count=100, since=NOW - 50), want(2, owner=2, count=2), want(3, owner=3)]
    given = Counter(p[0] for p in places(wants, host("a", *[Slot(index) for index in range(8)])))
    assert given == {1: 5, 2: 2, 3: 1}


def test_the_owner_with_fewer_running_jobs_goes_first() -> None:
    wants = [want(1, owner=1, running=4, since=NOW - 50, count=9), want(2, owner=2, running=1, count=9)]
    assert [p[0] for p in places(wants, host("a"))] == [2]
    assert [p[0] for p in places(wants, host("a", *[Slot(index) for index in range(4)]))] == [2, 2, 2, 1]


def test_with_equal_shares_the_one_who_got_nothing_for_longest_goes_first() -> None:
    wants = [want(1, owner=1, passed_over=NOW - 2, since=NOW - 50), want(2, owner=2, passed_over=NOW - 9)]
    assert [p[0] for p in places(wants, host("a"))] == [2]


def test_a_warm_slot_changes_hands_after_a_turn_if_the_other_has_no_more_running() -> None:
    warm = host("a", Slot(0, warm_key="warm-1"))

    def winner(passed_over: float, running: int) -> int:
        wants = [
            want(1, owner=1, since=NOW - 50, passed_over=NOW, running=2, count=9),
            want(2, owner=2, passed_over=passed_over, running=running, count=9),
        ]
        return places(wants, warm)[0][0]

    assert winner(NOW - TURN - 0.1, 2) == 2
    assert winner(NOW - TURN + 0.1, 2) == 1
    assert winner(NOW - TURN - 0.1, 3) == 1


def test_priority_orders_the_work_of_its_owner_and_nobody_elses() -> None:
    loud = [want(1, owner=1, priority=-1, passed_over=NOW - 9, count=9), want(3, owner=1, priority=1000, count=9)]
    quiet = want(2, owner=2, passed_over=NOW - 1, count=9)
    given = [p[0] for p in places([*loud, quiet], host("a", *[Slot(index) for index in range(6)]))]
    assert given == [3, 2, 3, 2, 3, 2], "their places alternate, and the first of one owner is what he calls urgent"
    assert [p[0] for p in places([want(1, owner=1, running=1, priority=1000), quiet], host("a"))] == [2]


def test_priority_takes_no_warm_slot_from_another_owner() -> None:
    wants = [want(1, owner=1, priority=1000, passed_over=NOW), want(2, owner=2, passed_over=NOW)]
    assert places(wants, host("a", Slot(0, warm_key="warm-2"))) == [(2, "a", 0, 1)]


def test_an_owner_gets_no_more_slots_than_one_may_have() -> None:
    wants = [want(1, owner=1, running=1, count=9), want(2, owner=2, since=NOW, count=9)]
    free = host("a", Slot(0, warm_key="warm-1"), *[Slot(index) for index in range(1, 8)])
    assert Counter(p.lane for p in place(wants, [free], NOW, 3)) == {1: 2, 2: 3}
    assert place([want(1, running=3, count=9)], [host("a")], NOW, 3) == []


def test_work_waits_beside_other_work_of_an_owner_who_has_all_the_slots_that_one_may_have() -> None:
    busy = host("a", Slot(0, held=1, depth=4, warm_key="warm-1"))
    assert place([want(1, running=1, count=2)], [busy], NOW, 1) == [Placement(1, WorkerId("a"), 0, 2)]
    full, other = want(1, owner=1, running=1, passed_over=0.0), want(2, owner=2, running=1, passed_over=NOW)
    warm = host("b", Slot(0, warm_key="warm-2"))
    assert [p.lane for p in place([full, other], [warm], NOW, 2)] == [1], "it is his turn"
    other = msgspec.structs.replace(other, running=0)
    full = msgspec.structs.replace(full, running=0)
    assert [p.lane for p in place([full, other], [warm], NOW, 1)] == [1]
    assert [p.lane for p in place([msgspec.structs.replace(full, running=1), other], [warm], NOW, 1)] == [2]


def test_a_machine_that_just_failed_such_a_job_is_taken_last_but_taken() -> None:
    bad = host("bad", Slot(0, warm_key="warm-1"))
    shunning = want(shunned=frozenset({WorkerId("bad")}))
    assert places([shunning], bad, host("good")) == [(1, "good", 0, 1)]
    assert places([shunning], bad) == [(1, "bad", 0, 1)]


def test_older_work_that_the_worker_cannot_do_does_not_block_it() -> None:
    wants = [want(1, image="other", priority=5, since=0.0), want(2)]
    worker = host("a", Slot(0, warm_key="warm-2"), serves=frozenset({"app"}))
    assert places(wants, worker) == [(2, "a", 0, 1)]


def test_jobs_wait_beside_a_running_one_of_the_same_container_only() -> None:
    same, other = Slot(0, held=1, depth=4, warm_key="warm-1"), Slot(0, held=1, depth=4, warm_key="warm-2")
    assert places([want(count=9)], host("a", same)) == [(1, "a", 0, 3)]
    assert places([want(count=9)], host("a", other)) == []


def test_idle_slots_are_filled_before_anything_waits_beside_another() -> None:
    busy = Slot(0, held=1, depth=4, warm_key="warm-1")
    assert places([want(count=2)], host("a", busy, Slot(1))) == [(1, "a", 1, 1), (1, "a", 0, 1)]


def test_nothing_waits_beside_another_where_urgent_work_has_a_claim() -> None:
    busy = Slot(0, held=1, depth=4, warm_key="warm-1")
    assert places([want(1, count=5), want(2, priority=1)], host("a", busy)) == []


def test_scripts_never_wait_beside_another_job() -> None:
    script = want(mode=Mode.SCRIPT, warm_key=None, count=5)
    assert places([script], host("a", Slot(0, held=1, depth=4, warm_key=None))) == []


@pytest.mark.parametrize(
    "status", [WorkerStatus.OFFLINE, WorkerStatus.SUSPECT, WorkerStatus.DRAINING, WorkerStatus.QUARANTINED]
)
def test_only_workers_that_are_online_get_work(status: WorkerStatus) -> None:
    away = host("a", status=status)
    assert places([want()], away) == []
    assert refusal(want(), away) == why_waiting(want(), away) is not None


def test_the_process_runtime_runs_its_own_handlers_only() -> None:
    able = host("a", serves=frozenset({"app", "other"}), doors=frozenset({"native"}))
    worker = msgspec.structs.replace(able, runtime="process")
    assert refusal(want(), worker) is None
    assert refusal(want(image="x"), worker) == (
        "uses the process runtime and has no handler for 'x' (it has: app, other)"
    )
    assert refusal(want(mode=Mode.SCRIPT), worker) == "uses the process runtime, which runs no script jobs"
    assert "it has: nothing" in (refusal(want(), host("b", serves=frozenset())) or "")


def test_a_worker_that_does_not_know_a_way_of_speaking_to_a_container_needs_a_newer_program() -> None:
    assert refusal(want(mode=Mode.SCRIPT), host("a", doors=frozenset({"native", "handler"}))) == (
        "uses the docker runtime, which runs no script jobs in this version: the worker needs a newer hecaton-gpu"
    )


def test_a_waiting_job_hears_why() -> None:
    assert why_waiting(want(), host("a", Slot(0, held=1))) == "is busy: 1 of 1 slots run other jobs"
    assert why_waiting(want(), Host(WorkerId("a"), "a", WorkerStatus.ONLINE, ())) == "has no slot"
    assert why_waiting(want(), host("a")) == "has a free slot: the job goes there next"


def test_a_container_is_shared_by_jobs_of_one_owner_image_digest_env_and_file() -> None:
    lane = Lane(1, 1, Mode.HANDLER, "f" * 64)
    base = warm_key(lane, "sha256:" + "a" * 64, 1)
    changed = [
        warm_key(msgspec.structs.replace(lane, owner_id=2), "sha256:" + "a" * 64, 1),
        warm_key(msgspec.structs.replace(lane, image_id=2), "sha256:" + "a" * 64, 1),
        warm_key(msgspec.structs.replace(lane, file="e" * 64), "sha256:" + "a" * 64, 1),
        warm_key(lane, "sha256:" + "b" * 64, 1),
        warm_key(lane, None, 1),
        warm_key(lane, "sha256:" + "a" * 64, 2),
    ]
    assert len({base, *changed}) == 7
    assert warm_key(Lane(1, 1, Mode.SCRIPT, "f"), None, 1) is None


def test_the_key_of_a_lane_is_stored_so_it_must_never_change() -> None:
    assert Lane(1, 2).key() == 6864722077160733516
    assert 0 <= Lane(7, 9, Mode.HANDLER, "ab" * 32).key() < 2**63


# -- properties ------------------------------------------------------------------------------------

warms = st.sampled_from([None, "warm-0", "warm-1", "warm-2"])
slot_lists = st.lists(
    st.builds(Slot, index=st.just(0), held=st.integers(0, 4), depth=st.integers(1, 4), warm_key=warms), max_size=4
)


@st.composite
def snapshots(draw: st.DrawFn) -> tuple[list[Want], list[Host]]:
    lanes = draw(st.lists(st.integers(0, 3), unique=True, max_size=4))
    wants = [
        want(
            lane,
            image=draw(st.sampled_from(["app", "other"])),
            count=draw(st.integers(1, 6)),
            priority=draw(st.integers(-1, 1)),
            since=draw(st.floats(NOW - 20, NOW)),
            warm_key=draw(st.sampled_from([f"warm-{lane}", None])),
        )
        for lane in lanes
    ]
    hosts = [
        host(
            f"host-{number}",
            *(msgspec.structs.replace(slot, index=i) for i, slot in enumerate(draw(slot_lists))),
            status=draw(st.sampled_from(list(WorkerStatus))),
            serves=draw(st.none() | st.just(frozenset({"app"}))),
            doors=draw(st.sampled_from([frozenset(Mode), frozenset({"native"})])),
        )
        for number in range(draw(st.integers(0, 4)))
    ]
    return wants, hosts


def _slot(hosts: list[Host], placed: Placement) -> tuple[Host, Slot]:
    found = next(one for one in hosts if one.id == placed.worker)
    return found, found.slots[placed.slot]


@given(snapshots())
def test_never_more_than_asked_for_and_never_more_than_fits(snapshot: tuple[list[Want], list[Host]]) -> None:
    wants, hosts = snapshot
    given_out, into = Counter[int](), Counter[tuple[str, int]]()
    for placed in place(wants, hosts, NOW):
        assert placed.count > 0
        given_out[placed.lane] += placed.count
        into[placed.worker, placed.slot] += placed.count
        worker, slot = _slot(hosts, placed)
        assert slot.held + into[placed.worker, placed.slot] <= max(slot.depth, 1)
        assert slot.held > 0 or into[placed.worker, placed.slot] == 1  # an idle slot gets one: the next round sees more
        assert worker.status is WorkerStatus.ONLINE
    assert all(given_out[one.lane] <= one.count for one in wants)


@given(snapshots())
def test_only_to_workers_that_would_take_it_and_beside_the_same_container(
    snapshot: tuple[list[Want], list[Host]],
) -> None:
    wants, hosts = snapshot
    by_lane = {one.lane: one for one in wants}
    for placed in place(wants, hosts, NOW):
        worker, slot = _slot(hosts, placed)
        assert refusal(by_lane[placed.lane], worker) is None
        assert slot.held == 0 or (slot.warm_key is not None and slot.warm_key == by_lane[placed.lane].warm_key)


@given(snapshots())
def test_no_slot_stays_idle_while_work_for_it_waits(snapshot: tuple[list[Want], list[Host]]) -> None:
    wants, hosts = snapshot
    placements = place(wants, hosts, NOW)
    left = {one.lane: one.count for one in wants}
    for placed in placements:
        left[placed.lane] -= placed.count
    taken = {(placed.worker, placed.slot) for placed in placements}
    for worker in hosts:
        for slot in worker.slots:
            if slot.held == 0 and (worker.id, slot.index) not in taken:
                assert all(left[one.lane] == 0 or refusal(one, worker) for one in wants)


@given(st.lists(st.integers(-1000, 1000), min_size=2, max_size=2), st.integers(1, 8), st.integers(1, 3))
def test_whatever_two_owners_call_their_work_their_places_alternate(
    priorities: list[int], slots: int, lanes: int
) -> None:
    wants = [
        want(10 * owner + lane, owner=owner, priority=priority, passed_over=NOW - 5, count=9)
        for owner, priority in enumerate(priorities)
        for lane in range(lanes)
    ]
    owners = [placed.lane // 10 for placed in place(wants, [host("a", *map(Slot, range(slots)))], NOW)]
    assert len(owners) == slots
    assert all(one != next_one for one, next_one in pairwise(owners))


@given(snapshots(), st.integers(0, 3))
def test_nobody_has_more_slots_than_one_may_have(snapshot: tuple[list[Want], list[Host]], most: int) -> None:
    wants, hosts = snapshot
    taken = {(p.worker, p.slot) for p in place(wants, hosts, NOW, most) if _slot(hosts, p)[1].held == 0}
    assert len(taken) <= most


@given(snapshots())
def test_the_same_snapshot_gives_the_same_decision(snapshot: tuple[list[Want], list[Host]]) -> None:
    wants, hosts = snapshot
    assert place(wants, hosts, NOW) == place(list(reversed(wants))[::-1], list(hosts), NOW)
