"""Folders of a machine that a job asks for by name."""

from __future__ import annotations

import pytest

from hecaton.core.batches import lane_of
from hecaton.core.files.mounts import as_asks, asked, spelt
from hecaton.core.model import JobSpec, Mode
from hecaton.core.options import demands
from hecaton.core.placement.matching import Ability, Want, unable


def test_a_mount_is_asked_for_by_its_name_and_may_appear_elsewhere() -> None:
    words = ["data", "home:/home/me"]
    assert asked(words) == {"data": "/mnt/data", "home": "/home/me"}
    assert spelt(asked(words)) == words


@pytest.mark.parametrize("mode", [Mode.HANDLER, Mode.SCRIPT])
def test_only_a_worker_that_has_it_is_able_and_others_say_what_they_have(mode: Mode) -> None:
    lane = lane_of(1, 1, JobSpec(mode=mode, file="f", mount={"data": "/mnt/data", "home": "/home/me"}))
    assert demands(lane.asks) == {"mount", *as_asks(["data", "home"])}
    want = Want(lane.key(), "i", mode, None, 1, 0, 0.0, asks=demands(lane.asks))
    able = Ability(options=frozenset({"mount"}) | as_asks(["data", "home", "more"]))
    assert unable(want, able) is None
    one = Ability(options=frozenset({"mount"}) | as_asks(["data"]))
    assert unable(want, one) == " and has no mount home (it has: data)"
    assert unable(want, Ability(options=frozenset({"mount"}))) == " and has no mount data, home (it has: none)"
    assert "does not carry out --mount there" in str(unable(want, Ability()))


def test_jobs_that_ask_for_other_mounts_are_in_other_lanes() -> None:
    specs = [JobSpec(mode=Mode.SCRIPT, file="f", mount=mount) for mount in ({}, {"a": "/x"}, {"b": "/x"}, {"a": "/y"})]
    assert len({lane_of(1, 1, spec).key() for spec in specs}) == len(specs)
