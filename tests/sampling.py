"""Families of dear tests: `make test` draws some of each by the run's seed, `make reliability` runs all of them.

`pytestmark = pytest.mark.sample(2)` makes a file a family: faults of one kind, cases of one rule. On a test, the mark
makes a family of its cases. Whoever names a file or a test, or chooses with `-k`, gets all of it.

`pytest.mark.full`: it does more with FULL=1 (`tests/faults/figures.py`), as `make reliability` runs it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from pathlib import Path
from random import Random

import pytest

from tests.faults.figures import FULL

MARK = "sample"
Family = tuple[str, int]
"""Its name, and how many of it are drawn."""


def draw(config: pytest.Config, items: list[pytest.Item], seed: int) -> None:
    """Take out of the items what is not drawn. Every process of a run draws the same."""
    if FULL or config.option.keyword:
        return
    families: dict[Family, list[str]] = defaultdict(list)
    asked = _named(config)
    for item in items:
        if (family := _family(item)) and item.path not in asked:
            families[family].append(item.nodeid)
    if out := left_out(families, seed):
        config.hook.pytest_deselected(items=[item for item in items if item.nodeid in out])
        items[:] = [item for item in items if item.nodeid not in out]


def left_out(families: Mapping[Family, Collection[str]], seed: int) -> set[str]:
    """The tests of the families that are not drawn."""
    out = set()
    for (name, number), tests in families.items():
        drawn = Random(f"{seed} {name}").sample(sorted(tests), min(number, len(tests)))
        out.update(set(tests).difference(drawn))
    return out


def _named(config: pytest.Config) -> set[Path]:
    """Files in which somebody named a test, or that he named."""
    return {(config.invocation_params.dir / argument.partition("::")[0]).resolve() for argument in config.args}


def _family(item: pytest.Item) -> Family | None:
    """By the mark that is closest to the test."""
    for node, mark in item.iter_markers_with_node(MARK):
        return node.nodeid.partition("[")[0], mark.args[0]
    return None
