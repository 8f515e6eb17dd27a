"""Faults put into the safety net are noticed: some of them here, drawn anew each time; `make mutants` tries all."""

from __future__ import annotations

import ast
import os
from pathlib import Path

import pytest

from tests.mutants.__main__ import draw, line
from tests.mutants.catalogue import MUTANTS
from tests.mutants.laboratory import REPOSITORY, examine
from tests.mutants.mutant import Mutant, Stale, Worlds

SOME = 5


def test_there_are_at_least_thirty_each_with_a_name_of_its_own() -> None:
    names = [mutant.name for mutant in MUTANTS]
    assert len(names) >= 30
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_each_fits_the_source_and_names_tests_that_exist(mutant: Mutant) -> None:
    ast.parse(mutant.applied(REPOSITORY / "hecaton"))
    if not isinstance(mutant.caught_by, Worlds):
        assert mutant.caught_by
        for test in mutant.caught_by:
            file, *_, name = test.partition("[")[0].split("::")
            inherited = (REPOSITORY / "tests/contracts").glob("store_*.py") if "contract" in file else ()
            sources = [(path).read_text(encoding="utf-8") for path in (REPOSITORY / file, *inherited)]
            assert any(f"def {name}(" in source for source in sources), test


def test_one_that_does_not_fit_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\nx = 1\n")
    for text in ("x = 1", "x = 2"):
        with pytest.raises(Stale, match="not once"):
            Mutant("m", "nothing", "a.py", text, "", ()).applied(tmp_path)


def test_some_of_them_are_caught(seed: int) -> None:
    print(f"python -m tests.mutants --some {SOME} --seed {seed}")
    verdicts = examine(draw(MUTANTS, SOME, seed), os.cpu_count() or 1, lambda verdict: print(line(verdict)))
    assert len(verdicts) == SOME
    assert [verdict.mutant.name for verdict in verdicts if verdict.caught_by is None] == []
