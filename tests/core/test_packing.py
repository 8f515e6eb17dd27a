"""Which cards, bytes, CPUs and memory a job gets: never more than there are, and all that there are."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from hecaton.core.placement.holds import Holds, Part
from hecaton.core.placement.needs import GIB, Cards, Needs, nominal, suits
from hecaton.core.placement.packing import (
    Card,
    Machine,
    Spot,
    cards_wanted,
    fit,
    giving_way,
    never,
    nobody_could,
    not_now,
)

KINDS = (("Tesla T4", 15), ("NVIDIA L4", 22), ("NVIDIA A100-SXM4-80GB", 79))


def machine(*cards: Card, spots: tuple[Spot, ...] = (), cpus: float = 16.0, memory: int = 64 * GIB) -> Machine:
    fixed = tuple(
        Spot(number, Holds((Part(card.uuid),)), fixed=True)
        for number, card in enumerate(cards)
        if number not in {spot.number for spot in spots}
    )
    return Machine(cards, (*fixed, *spots), cpus, memory)


def t4(number: int, outside: int = 0) -> Card:
    return Card(f"t4-{number}", "Tesla T4", 15 * GIB, outside)


def a100(number: int) -> Card:
    return Card(f"a100-{number}", "NVIDIA A100-SXM4-80GB", 79 * GIB)


cards = st.lists(st.sampled_from(KINDS), max_size=5).map(
    lambda kinds: tuple(Card(f"{n}", name, gb * GIB) for n, (name, gb) in enumerate(kinds))
)
sizes = st.sampled_from([0, 0, 16 * GIB, 24 * GIB])
needs = st.one_of(
    st.builds(
        Needs,
        st.sampled_from([None, 0, 1, 1, 2, 3]),
        st.builds(Cards, st.sampled_from([(), ("t4",), ("l4", "a100")]), sizes),
        cpus=st.sampled_from([0.0, 0.5, 4.0, 40.0]),
        memory=st.sampled_from([0, GIB, 20 * GIB]),
    ),
    st.builds(
        Needs, part=st.sampled_from([4, 8, 12, 30]).map(lambda gb: gb * GIB), cpus=st.sampled_from([0.0, 0.0, 4.0])
    ),
)


def ledger(here: Machine) -> None:
    """Kept by itself, and counts what the busy ones and those that are warm have together."""
    whole: set[str] = set()
    parts: dict[str, int] = {}
    cpus, memory = 0.0, 0
    for spot in here.spots:
        if spot.busy or spot.warm_key is not None:
            for part in spot.holds.cards:
                assert part.card not in whole, "a whole card is nobody else's"
                if part.bytes == 0:
                    assert part.card not in parts
                    whole.add(part.card)
                parts[part.card] = parts.get(part.card, 0) + part.bytes
            cpus, memory = cpus + spot.holds.cpus, memory + spot.holds.memory
    for card in here.cards:
        assert parts.get(card.uuid, 0) <= card.memory
    assert cpus <= here.cpus
    assert memory <= here.memory


def room_by_hand(asked: Needs, here: Machine) -> bool:
    """Slowly: is there room, if all that is idle goes?"""
    busy = [spot for spot in here.spots if spot.busy]
    cpus = asked.cpus or (1.0 if here.cards and cards_wanted(asked, here) == 0 else 0.0)
    if (cpus and cpus > here.cpus - sum(spot.holds.cpus for spot in busy)) or (
        asked.memory and asked.memory > here.memory - sum(spot.holds.memory for spot in busy)
    ):
        return False
    if not here.cards:
        return cards_wanted(asked, here) == 0 and any(not spot.busy for spot in here.spots)
    used = [part for spot in busy for part in spot.holds.cards]
    free = [
        c for c in here.cards if suits(asked.cards, c.name, c.memory) and c.uuid not in {part.card for part in used}
    ]
    if not asked.part:
        return len(free) >= cards_wanted(asked, here)
    for card in here.cards:
        of_it = [part.bytes for part in used if part.card == card.uuid]
        asks = min(asked.part, card.memory) if asked.part <= nominal(card.memory) else asked.part
        if suits(asked.cards, card.name, card.memory) and 0 not in of_it and asks <= card.memory - sum(of_it):
            return True
    return False


@given(cards, st.lists(st.tuples(needs, st.sampled_from([None, "a", "b"]), st.integers(0, 9)), max_size=25))
def test_nothing_is_given_twice_and_nothing_is_refused_for_which_there_is_room(
    installed: tuple[Card, ...], arrivals: list[tuple[Needs, str | None, int]]
) -> None:
    here = machine(*installed, cpus=8.0, memory=32 * GIB)
    if not installed:
        here = msgspec.structs.replace(here, spots=tuple(Spot(number, Holds(), fixed=True) for number in (0, 1)))
    for now, (asked, warm, ending) in enumerate(arrivals, 1):
        found = fit(asked, here, warm)
        assert (found is not None) == room_by_hand(asked, here)
        assert (not_now(asked, here) is None) == (found is not None)
        assert never(asked, "here", here) is None or found is None, "what never runs there gets no place"
        spots = {spot.number: spot for spot in here.spots}
        if found is not None:
            for number in found.closes:
                assert not spots[number].busy
                if spots[number].fixed:
                    spots[number] = msgspec.structs.replace(spots[number], warm_key=None)
                else:
                    del spots[number]
            number = found.number if found.number is not None else max(spots, default=-1) + 1
            old = spots.get(number)
            assert old is None or not old.busy
            fixed = old is not None and old.fixed
            spots[number] = Spot(number, found.holds, busy=True, warm_key=warm or "once", used_at=now, fixed=fixed)
        here = msgspec.structs.replace(here, spots=tuple(spots.values()))
        ledger(here)
        ends = [spot for spot in here.spots if spot.busy][ending : ending + 1]
        here = msgspec.structs.replace(
            here,
            spots=tuple(msgspec.structs.replace(spot, busy=False) if spot in ends else spot for spot in here.spots),
        )


def test_a_card_that_others_share_already_is_filled_first_and_then_the_smallest() -> None:
    busy = Spot(9, Holds((Part("a100-0", 70 * GIB),)), busy=True)
    here = machine(t4(0), a100(0), spots=(busy,))
    found = fit(Needs(part=8 * GIB), here)
    assert found is not None
    assert found.holds.cards == (Part("a100-0", 8 * GIB),), "1 GB is left over, and not 7"
    found = fit(Needs(part=12 * GIB), here)
    assert found is not None
    assert found.holds.cards == (Part("t4-0", 12 * GIB),)


def test_a_warm_container_that_holds_just_this_comes_first() -> None:
    warm = Spot(9, Holds((Part("a100-0", 8 * GIB),)), warm_key="mine", used_at=1.0)
    here = machine(t4(0), a100(0), spots=(warm,))
    found = fit(Needs(part=8 * GIB), here, "mine")
    assert found is not None
    assert (found.number, found.closes) == (9, ())
    other = fit(Needs(part=4 * GIB), here, "mine")
    assert other is not None
    assert other.number is None, "a place of another size is another place"


def test_a_warm_container_on_a_lost_card_or_with_fewer_cpus_is_for_nobody_who_needs_more() -> None:
    warm = Spot(9, Holds((Part("t4-0", 8 * GIB),), 2.0), warm_key="mine", used_at=1.0)
    here = machine(t4(0), spots=(warm,))
    found = fit(Needs(part=8 * GIB, cpus=2.0), here, "mine")
    assert found is not None
    assert found.number == 9
    more = fit(Needs(part=8 * GIB, cpus=4.0), here, "mine")
    assert more is not None
    assert more.holds.cpus == 4.0
    lost = machine(msgspec.structs.replace(t4(0), lost=True), spots=(warm,))
    assert fit(Needs(part=8 * GIB, cpus=2.0), lost, "mine") is None


def test_idle_ones_give_way_the_least_recently_used_first() -> None:
    spots = tuple(
        Spot(10 + n, Holds((Part("t4-0", 5 * GIB),)), warm_key=f"w{n}", used_at=used)
        for n, used in enumerate((3.0, 1.0, 2.0))
    )
    here = machine(t4(0), spots=spots)
    assert giving_way(here, Holds((Part("t4-0", 5 * GIB),))) == (11,)
    assert set(giving_way(here, Holds((Part("t4-0"),))) or ()) == {10, 11, 12}
    found = fit(Needs(part=5 * GIB), here)
    assert found is not None
    assert found.closes == (11,)


def test_a_whole_card_is_the_place_that_is_there_for_it_and_several_are_a_new_one() -> None:
    here = machine(t4(0), t4(1), a100(0))
    single = fit(Needs(1), here)
    assert single is not None
    assert single.number in (0, 1)
    assert not single.closes
    pair = fit(Needs(2), here)
    assert pair is not None
    assert pair.number is None
    assert pair.holds == Holds((Part("t4-0"), Part("t4-1"))), "the smallest that will do"
    assert fit(Needs(2, Cards(low=24 * GIB)), here) is None


def test_a_card_that_somebody_outside_uses_is_no_whole_one_and_has_less_to_share() -> None:
    here = machine(t4(0, outside=9 * GIB))
    assert fit(Needs(1), here) is None
    assert not_now(Needs(1), here) == "has 0 of 1 cards free; 1 used outside Hecaton"
    assert fit(Needs(part=8 * GIB), here) is None
    assert not_now(Needs(part=8 * GIB), here) == "has at most 6 GB free on one card, of 8 GB"
    assert fit(Needs(part=6 * GIB), here) is not None


def test_who_asks_for_all_of_a_card_gets_all_that_its_driver_reports() -> None:
    here = machine(t4(0))
    found = fit(Needs(part=16 * GIB), here)
    assert found is not None
    assert found.holds.cards == (Part("t4-0", 15 * GIB),)


def test_why_not_is_one_condition_with_figures() -> None:
    here = machine(t4(0), t4(1))
    for asked, why in (
        (Needs(part=24 * GIB), "is too small for 24 GB: it has 2 x Tesla T4 16 GB"),
        (Needs(1, Cards(low=24 * GIB)), "is too small for 24 GB: it has 2 x Tesla T4 16 GB"),
        (Needs(1, Cards(("a100",))), "has no such card: it has 2 x Tesla T4 16 GB"),
        (Needs(3), "has 2 of 3 such cards: it has 2 x Tesla T4 16 GB"),
        (Needs(cpus=40.0), "has 16 CPUs for jobs"),
        (Needs(memory=99 * GIB), "has 64 GB of memory for jobs"),
        (Needs(on=("other",)), "is not asked for (--on)"),
        (Needs(off=("here",)), "is not asked for (--on)"),
        (Needs(2), None),
        (Needs(0), None),
    ):
        assert never(asked, "here", here) == why
    assert never(Needs(cpus=1.0), "here", machine(t4(0), cpus=0.0)) == (
        "does not say how much of its CPUs jobs may have"
    )
    busy = Spot(9, Holds((Part("t4-0"),), cpus=14.0), busy=True)
    here = machine(t4(0), t4(1), spots=(busy,))
    assert not_now(Needs(2), here) == "has 1 of 2 cards free"
    assert not_now(Needs(1, cpus=4.0), here) == "has 2 of 16 CPUs free, of 4"


def test_where_no_machine_that_was_ever_here_could_run_it_that_is_the_sentence() -> None:
    there = {"tesla": machine(t4(0)), "ada": machine(Card("l", "NVIDIA L4", 22 * GIB + GIB // 2))}
    assert nobody_could(Needs(part=48 * GIB), there) == "no machine here has 48 GB; the largest is ada, 24 GB"
    assert nobody_could(Needs(1, Cards(low=48 * GIB)), there) == "no machine here has 48 GB; the largest is ada, 24 GB"
    assert nobody_could(Needs(2), there) == (
        "no machine here has 2 cards: ada has 1 of 2 such cards: it has NVIDIA L4 24 GB;"
        " tesla has 1 of 2 such cards: it has Tesla T4 16 GB"
    )
    assert nobody_could(Needs(part=20 * GIB), there) is None
    assert nobody_could(Needs(2), {}) is None, "who has begun has none yet"
