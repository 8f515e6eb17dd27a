"""How a test run is put together: its seed, its order, what is drawn of it, and what its children inherit."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests import sampling, schedule

REPOSITORY = Path(__file__).resolve().parents[1]

INTERRUPTED = """
import signal, subprocess, sys

def test_a_child_can_be_interrupted():
    program = "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "True\\n"
"""
DRAWS = """
import random
from hypothesis import given, strategies

drawn = []

@given(strategies.integers())
def examples(number):
    drawn.append(number)

def test_draws(seed):
    examples()
    print(f"drew {seed} {drawn}")
    assert False, "so that it is shown"
"""

FAMILIES = """
import pytest

pytestmark = pytest.mark.sample(2)

@pytest.mark.parametrize("case", range(6))
def test_of_the_file(case): pass

def test_another_of_the_file(): pass

@pytest.mark.sample(1)
@pytest.mark.parametrize("case", range(3))
def test_with_cases(case): pass

@pytest.mark.sample(1)
def test_alone(): pass
"""


def run(folder: Path, tests: str, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """With our conftest, started as a background job of a script is: SIGINT is ignored."""
    (folder / "test_it.py").write_text(tests)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n    engine: e\n    slow: s\n    sample: f\n")
    inner = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "--basetemp", "base", *options]
    return subprocess.run(
        ["bash", "-c", 'trap "" INT; exec "$@"', "bash", *inner],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "FULL": "", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("processes", [(), ("-n", "1")])
def test_what_a_test_starts_can_be_interrupted_whoever_started_the_run(tmp_path: Path, processes: tuple[str]) -> None:
    done = run(tmp_path, INTERRUPTED, *processes)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_run_names_its_seed_and_the_seed_draws_the_same_again(tmp_path: Path) -> None:
    # CI: there Hypothesis would draw without a seed.
    first, again, other = (run(tmp_path, DRAWS, SEED=seed, CI="true").stdout for seed in ("7", "7", "8"))
    assert "make test SEED=7 draws the same again" in first
    drawn = [next(line for line in said.splitlines() if line.startswith("drew")) for said in (first, again, other)]
    assert drawn[0].startswith("drew 7 ")
    assert drawn[0] == drawn[1]
    assert drawn[0].removeprefix("drew 7") != drawn[2].removeprefix("drew 8")


@pytest.mark.parametrize(
    ("options", "environment", "number"),
    [
        ((), {}, 2 + 1 + 1),
        (("-m", "sample"), {"FULL": "1"}, 6 + 1 + 3 + 1),
        (("test_it.py",), {}, 6 + 1 + 3 + 1),
    ],
)
def test_some_of_a_family_are_drawn_but_all_are_run_by_make_reliability_and_for_whoever_names_them(
    tmp_path: Path, options: tuple[str, ...], environment: dict[str, str], number: int
) -> None:
    said = run(tmp_path, FAMILIES, *options, **environment).stdout
    assert f" {number} passed" in said


def test_the_seed_decides_what_is_drawn_and_all_are_drawn_in_time() -> None:
    families = {("one", 1): ["a", "b", "c"], ("two", 2): ["d", "e", "f"], ("small", 3): ["g"]}
    left = [sampling.left_out(families, seed) for seed in range(50)]
    assert left == [sampling.left_out(families, seed) for seed in range(50)]
    assert {len(out) for out in left} == {2 + 1}
    assert set.union(*left) == set("abcdef")
    assert set.intersection(*left) == set()


def test_every_file_of_the_schedule_exists() -> None:
    for path in (*schedule.TOGETHER, *schedule.FIRST, *schedule.SLOW):
        assert path in schedule.TOGETHER.values() or (REPOSITORY / path).exists(), path


def test_groups_stay_whole_in_the_order() -> None:
    tests = [f"{path.relative_to(REPOSITORY)}::test_a" for path in (REPOSITORY / "tests").rglob("test_*.py")] * 2
    random.Random(1).shuffle(tests)
    groups = [schedule.group(test) for test in sorted(tests, key=schedule.rank)]
    runs = [one for one, before in zip(groups, [None, *groups], strict=False) if one != before]
    assert len(runs) == len(set(groups))
    assert runs[0] == schedule.OWN_ENGINE
