"""The picture of docs/architecture.md, held: who may import whom, how large things may grow, what may stand where."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from tests.house import RULES, House, Rule, only_doors_know_the_ways_of_speaking_to_a_container, picture

PACKAGE = Path(__file__).resolve().parents[1] / "hecaton"


@cache
def _house() -> House:
    return House.at(PACKAGE)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_it_holds_that(rule: Rule) -> None:
    assert rule(_house()) == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_it_is_noticed_when_it_no_longer_holds_that(rule: Rule) -> None:
    assert rule(House(RULES[rule])) != []
    assert rule(House({})) == []


@pytest.mark.parametrize(
    "branch",
    [
        "depth = 1 if lane.mode == model.Mode.NATIVE else 2",
        "if str(job.mode) in ('handler', 'script'): pass",
        "WARM = {Mode.HANDLER: True}",
        "match job.mode:\n    case _: pass",
        "nonce = door.nonce if isinstance(door, Native) else None",
        "def f():\n    from hecaton.worker.doors.native import NativeDoor",
    ],
)
def test_every_branch_on_the_way_of_speaking_to_a_container_is_noticed(branch: str) -> None:
    assert only_doors_know_the_ways_of_speaking_to_a_container(House({"worker/containers.py": branch})) != []
    assert only_doors_know_the_ways_of_speaking_to_a_container(House({"worker/doors/a.py": branch})) == []


def test_who_names_a_mode_to_ask_for_it_asks_nothing_about_it() -> None:
    text = "def f(mode: Mode = Mode.NATIVE): f(mode=Mode.SCRIPT)\nclass A:\n    doors = frozenset({Mode.NATIVE})"
    assert only_doors_know_the_ways_of_speaking_to_a_container(House({"worker/a.py": text})) == []


def test_the_rooms_and_their_arrows_are_drawn_as_they_are() -> None:
    page = (PACKAGE.parent / "docs/architecture.md").read_text(encoding="utf-8")
    drawn = page.partition("## The rooms")[2].partition("```\n")[2].partition("\n```")[0]
    assert drawn == picture(_house())
