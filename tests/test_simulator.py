"""Whole worlds from seeds: the real server, store and worker brains, with everything around them simulated."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hecaton.server.accounts.auth import Passwords
from tests.simulator.__main__ import run_for, summary
from tests.simulator.world import run

SECONDS = float(os.environ.get("SIM_SECONDS", "60"))
"""Of real time for fresh seeds."""

SEEDS = Path(__file__).parent / "simulator" / "seeds.txt"


@pytest.fixture(scope="module")
def passwords() -> Iterator[Passwords]:
    made = Passwords()
    yield made
    made.close()


def _kept_seeds() -> list[int]:
    lines = (line.partition("#")[0].strip() for line in SEEDS.read_text(encoding="utf-8").splitlines())
    return [int(line) for line in lines if line]


def test_seeds_that_once_broke_a_rule_break_none(passwords: Passwords) -> None:
    for seed in _kept_seeds():
        run(seed, passwords)


def test_fresh_seeds_break_no_rule(passwords: Passwords) -> None:
    reports = run_for(SECONDS, passwords)
    print(summary(reports, SECONDS))
    assert reports


@pytest.mark.parametrize("seed", [1, 8])
def test_a_seed_replays_exactly_in_any_process(seed: int, passwords: Passwords) -> None:
    here = run(seed, passwords)
    for hash_seed in ("1", "2"):
        command = [sys.executable, "-m", "tests.simulator", "--seed", str(seed)]
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        assert here.digest in done.stdout
