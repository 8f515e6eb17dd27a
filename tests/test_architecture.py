"""The picture of docs/architecture.md, held: who may import whom, how large things may grow, what may stand where."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from tests.house import RULES, House, Rule

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
