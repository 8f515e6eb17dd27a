"""A decision made over a part of the slots is the one that would be made over all of them, whatever happened before."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hecaton.core.model import AttemptRef, JobId, Mode, WorkerId, WorkerStatus
from hecaton.core.placement.matching import PATIENCE, TURN, Ability, Want, place, refusal, unable
from hecaton.server.fleet.checks import ability
from hecaton.server.fleet.members import Fleet
from hecaton.server.fleet.places.kinds import Work, work_of
from hecaton.server.fleet.places.leases import Lease, Member, OutOfService
from hecaton.server.fleet.places.openings import TIDY, Openings
from hecaton.wire.channel import PROTOCOL, Hello, SlotInfo, ToWorker, Warm

NOW = 1000.0
WORKERS = [WorkerId(name) for name in "abcd"]
OWNERS = {0: 1, 1: 1, 2: 2}
"""Of each lane."""

ABILITIES: dict[str, Callable[[random.Random], Any]] = {
    "serves": lambda rng: rng.choice([None, None, ("app",), ("app", "other")]),
    "doors": lambda rng: rng.choice([None, None, ("native",), ("native", "script", "of the release after")]),
    "options": lambda rng: rng.choice([None, (), ("timeout", "no_overlap"), ("timeout", "of the release after")]),
}
"""What a worker says in its hello, for each field of `Ability`: every world draws them all."""


def drawn_hello(
    rng: random.Random, infos: tuple[SlotInfo, ...] = (), fields: frozenset[str] = frozenset(ABILITIES)
) -> Hello:
    said = {field: ABILITIES[field](rng) for field in sorted(fields)}
    return Hello(PROTOCOL, "1", "x", infos, (), **said)


def drawn_work(rng: random.Random) -> dict[str, Any]:
    """What of a want an ability may have something against."""
    return {
        "image": rng.choice(["app", "app", "other"]),
        "mode": rng.choice([Mode.NATIVE, Mode.NATIVE, Mode.SCRIPT]),
        "asks": rng.choice([frozenset[str](), frozenset[str](), frozenset({"timeout"}), frozenset({"no_overlap"})]),
    }


class NoLink:
    def send(self, message: ToWorker) -> None: ...
    def send_along(self, message: ToWorker) -> None: ...
    def close(self, code: int, reason: str) -> None: ...


class World:
    """A fleet to which things happen, and the index that follows it. All is decided by the seed.

    Between decisions the index is tidied now and then, so that workers are told apart by ever other work."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self.fleet = Fleet()
        self.openings = Openings(self.fleet)
        self._now = 0.0
        self._jobs = 0
        self._links: dict[WorkerId, NoLink] = {}
        for worker in WORKERS:
            self.join(worker)

    def steps(self, most: int) -> None:
        for _ in range(self._rng.randint(1, most)):
            self._now += self._rng.choice([0.0, 0.1])
            worker = self._rng.choice(WORKERS)
            often = [self.grant, self.grant, self.end, self.end, self.reserve, self.warm]
            self._rng.choice(
                [*often, self.join, self.leave, self.out_of_service, self.drain, self.fail_to_end, self.lose]
            )(worker)

    def _warm(self) -> str | None:
        return self._rng.choice([None, "warm-0", "warm-0", "warm-1", "warm-2"])

    def join(self, worker: WorkerId) -> None:
        infos = tuple(SlotInfo(index, None, self._warm(), None) for index in range(self._rng.randint(0, 4)))
        link = self._links[worker] = NoLink()
        self.fleet.join(worker, worker, link, drawn_hello(self._rng, infos), self._now)

    def leave(self, worker: WorkerId) -> None:
        self.fleet.leave(worker, self._links[worker])

    def out_of_service(self, worker: WorkerId) -> None:
        self.fleet.set_out_of_service(worker, OutOfService(drained=self._rng.random() < 0.3))

    def drain(self, worker: WorkerId) -> None:
        self.fleet.set_draining(worker, self._rng.random() < 0.3)

    def warm(self, worker: WorkerId) -> None:
        self.fleet.set_warm(worker, Warm(self._rng.randint(0, 3), self._warm(), None))

    def _slot(self, worker: WorkerId) -> int | None:
        member = self.fleet.members.get(worker)
        return self._rng.choice(list(member.slots)) if member is not None and member.slots else None

    def reserve(self, worker: WorkerId) -> None:
        if (index := self._slot(worker)) is not None:
            self.fleet.reserve(worker, index, self._rng.choice([-2, -1, 1, 2]), self._warm())

    def grant(self, worker: WorkerId) -> None:
        if (index := self._slot(worker)) is not None:
            self._jobs += 1
            lane = self._rng.choice(list(OWNERS))
            ref = AttemptRef(JobId(str(self._jobs)), 1)
            self.fleet.grant(worker, Lease(ref, index, lane, f"warm-{lane}", OWNERS[lane]), self._rng.randint(1, 4))

    def _lease(self, worker: WorkerId) -> AttemptRef | None:
        member = self.fleet.members.get(worker)
        refs = [lease.ref for lease in member.leases()] if member is not None else []
        return self._rng.choice(refs) if refs else None

    def end(self, worker: WorkerId) -> None:
        if (ref := self._lease(worker)) is not None:
            self.fleet.end(worker, ref, self._now)
            self.fleet.ended(worker, [ref], self._now)

    def fail_to_end(self, worker: WorkerId) -> None:
        if (ref := self._lease(worker)) is not None:
            self.fleet.end(worker, ref, self._now)
            self.fleet.not_ended(worker, [ref])

    def lose(self, worker: WorkerId) -> None:
        self.fleet.contact(worker, self._now)
        for member in self.fleet.silent(self._now, 0.5, 2.0):
            self.fleet.ended(member.id, self.fleet.give_up(member, self._now), self._now)

    def wants(self) -> list[Want]:
        rng = self._rng
        passed_over = {owner: rng.choice([NOW, NOW - 2 * TURN]) for owner in (1, 2)}
        barred = {lane: frozenset(rng.sample(WORKERS, rng.choice([0, 0, 1, 3]))) for lane in OWNERS}
        return [
            Want(
                lane,
                warm_key=rng.choice([f"warm-{lane}", f"warm-{lane}", None]),
                count=rng.randint(1, 4),
                priority=rng.choice([0, 0, 1]),
                since=NOW - rng.choice([0.0, 1.0, 2 * PATIENCE]),
                owner=OWNERS[lane],
                running=self.openings.running().get(OWNERS[lane], 0),
                passed_over=passed_over[OWNERS[lane]],
                shunned=frozenset(rng.sample(WORKERS, rng.choice([0, 0, 1, 2]))) | barred[lane],
                barred=barred[lane],
                **drawn_work(rng),
            )
            for lane in rng.sample(list(OWNERS), rng.randint(1, 3))
        ]

    def doable(self, wants: list[Want]) -> list[Want]:
        """Those for which the index has somebody."""
        works = {work_of(want): None for want in wants}
        for work in works:
            self.openings.ask(work)
        for _ in range(self._rng.choice([1, 1, TIDY])):
            doable = set(self.openings.doable(works))
        return [want for want in wants if work_of(want) in doable]

    def members(self) -> list[Member]:
        return list(self.fleet.members.values())


seeds = given(st.integers(0, 2**32))


@pytest.mark.parametrize("field", Ability.__struct_fields__)
def test_every_field_of_an_ability_refuses_work_in_these_worlds(field: str) -> None:
    """A field that is new belongs into `ABILITIES`, and what it is compared with into `drawn_work`."""
    rng = random.Random(0)
    said = set()
    for _ in range(200):
        able = ability(drawn_hello(rng, fields=frozenset({field})))
        said.add(unable(Want(0, warm_key=None, count=1, priority=0, since=NOW, **drawn_work(rng)), able) is None)
    assert said == {True, False}


@example(141)  # kinds that were told apart between two wants of one decision
@example(40)  # who outranks whom on one worker, and not on others of its kind that are not barred
@seeds
def test_what_is_shown_is_enough_for_the_decision_over_all_slots(seed: int) -> None:
    world = World(seed)
    for _ in range(20):
        world.steps(4)
        everything = [member.host() for member in world.members()]
        for wants in (world.wants(), world.wants()):
            decided = place(wants, everything, NOW)
            assert place(wants, world.openings.hosts(wants), NOW) == decided
            doable = world.doable(wants)
            assert place(doable, world.openings.hosts(doable), NOW) == decided


@seeds
def test_what_is_counted_is_what_is_there(seed: int) -> None:
    world = World(seed)
    for _ in range(20):
        world.steps(2)
        members = world.members()
        hosts = [member.host() for member in members if member.status is WorkerStatus.ONLINE]
        idle = [(host, slot) for host in hosts for slot in host.slots if slot.held == 0]
        assert world.openings.idle() == len(idle)
        assert world.openings.any() == any(s.held == 0 or s.held < s.depth for host in hosts for s in host.slots)
        for want in world.wants():
            assert world.openings.idle_for(want) == any(refusal(want, host) is None for host, _ in idle)
        working = [list(slot.held.values()) for member in members for slot in member.slots.values() if slot.held]
        assert world.openings.running() == Counter(leases[0].owner for leases in working)
        stacked = [(m.id, slot.index) for m in members if m.link for slot in m.slots.values() if len(slot.held) > 1]
        assert sorted((member.id, slot.index) for member, slot in world.openings.stacked()) == sorted(stacked)


WANT = Want(0, "app", Mode.NATIVE, "warm-0", 1, 0, NOW)


def _unlike(fleet: Fleet, count: int) -> None:
    """Workers that can do the same and more, each something else."""
    for number in range(count):
        worker = WorkerId(f"w{number}")
        hello = Hello(PROTOCOL, "1", "process", (SlotInfo(0, None, "warm-0", None),), (), ("app", f"own-{number}"))
        fleet.join(worker, worker, NoLink(), hello, NOW)


def test_one_job_is_decided_over_one_slot_however_many_are_idle() -> None:
    fleet = Fleet()
    openings = Openings(fleet)
    for number in range(100):
        worker = WorkerId(f"w{number}")
        infos = (SlotInfo(0, None, "warm-0", None), SlotInfo(1, None, None, None))
        fleet.join(worker, worker, NoLink(), Hello(PROTOCOL, "1", "docker", infos, ()), NOW)
    assert [len(host.slots) for host in openings.hosts([WANT])] == [1]


def test_one_job_is_decided_over_one_slot_however_the_workers_differ() -> None:
    fleet = Fleet()
    openings = Openings(fleet)
    _unlike(fleet, 100)
    assert len(openings.hosts([WANT])) == 1
    own = Want(1, "own-7", Mode.NATIVE, None, 1, 0, NOW)
    assert [host.name for host in openings.hosts([own])] == ["w7"]
    assert len(openings.hosts([WANT])) == 2  # those that can do the other's, too, and those that cannot


def test_what_nobody_asks_for_any_more_tells_no_workers_apart() -> None:
    fleet = Fleet()
    openings = Openings(fleet)
    _unlike(fleet, 100)
    waits = work_of(WANT)
    for number in range(100):
        openings.hosts([WANT, Want(1, f"own-{number}", Mode.NATIVE, None, 1, 0, NOW)])
    assert len(openings.hosts([WANT])) == 100
    for _ in range(2 * TIDY):
        assert list(openings.doable({waits: None})) == [waits]
    assert len(openings.hosts([WANT])) == 1


@pytest.mark.parametrize("lanes", [2, 200])
def test_a_lane_waits_in_no_decision_while_nobody_is_there_for_it(lanes: int) -> None:
    fleet = Fleet()
    openings = Openings(fleet)
    _unlike(fleet, 10)
    waiting = {Work(f"nobody-has-{number}", Mode.NATIVE, frozenset()): None for number in range(lanes)}
    waiting[work_of(WANT)] = None
    for work in waiting:
        openings.ask(work)
    assert list(openings.doable(waiting)) == [work_of(WANT)]
