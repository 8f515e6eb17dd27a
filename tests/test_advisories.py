"""What is known to be broken in the packages that Hecaton stands on: neither what is pinned here nor the oldest that a
user may have is older than the cure. Whoever hears of one writes a line into tests/advisories.csv."""

from __future__ import annotations

import ast
import csv
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name
from packaging.version import Version

import hecaton
from tests.elsewhere import REPOSITORY, requirements

PACKAGE = Path(hecaton.__file__).parent


def _advisories() -> list[dict[str, str]]:
    with (REPOSITORY / "tests" / "advisories.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def _pinned() -> dict[NormalizedName, Version]:
    lines = (REPOSITORY / "requirements-dev.txt").read_text().splitlines()
    rows = [line.split("==") for line in lines if "==" in line]
    return {canonicalize_name(name): Version(version) for name, version in rows}


def _oldest(requirement: Requirement) -> Version:
    return max(Version(one.version) for one in requirement.specifier if one.operator in (">=", "=="))


def _cures() -> dict[NormalizedName, Version]:
    cures: dict[NormalizedName, Version] = {}
    for row in _advisories():
        name, cure = canonicalize_name(row["package"]), Version(row["fixed in"])
        cures[name] = max(cure, cures.get(name, cure))
    return cures


def test_every_line_says_what_where_cured_and_who_says_so() -> None:
    rows = _advisories()
    assert rows
    assert [row for row in rows if not all(row.values()) or not row["source"].startswith("https://")] == []
    assert len({row["advisory"] for row in rows}) == len(rows)
    assert {canonicalize_name(row["package"]) for row in rows} - _pinned().keys() == set(), "no longer needed"


def test_what_is_pinned_has_the_cures() -> None:
    pinned = _pinned()
    assert {name: cure for name, cure in _cures().items() if pinned[name] < cure} == {}


def test_the_oldest_that_a_user_may_have_has_the_cures() -> None:
    cures = _cures()
    ours = {canonicalize_name(one.name): _oldest(one) for one in requirements("linux")}
    assert {name: oldest for name, oldest in ours.items() if oldest < cures.get(name, oldest)} == {}


def test_nothing_of_starlette_is_used_that_puts_an_address_together() -> None:
    """`request.url` is made of what the client says of itself. Who may do what is decided by the path alone."""
    used = {
        node.module
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("starlette")
    }
    assert used == {"starlette.routing", "starlette.types"}
