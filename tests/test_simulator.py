"""Whole worlds from seeds: the real server, store and worker brains, with everything around them simulated."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hecaton.server.accounts.auth import Passwords
from tests.simulator.__main__ import run_some, summary
from tests.simulator.world import World, run

WORLDS = 8
"""Fresh ones with each run; `make reliability` takes 600."""

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


def test_fresh_seeds_break_no_rule(passwords: Passwords, seed: int) -> None:
    begun = time.monotonic()
    reports = run_some(WORLDS, passwords, seed)
    print(summary(reports, time.monotonic() - begun))
    assert len(reports) == WORLDS


def test_a_world_that_breaks_off_leaves_nothing_running(passwords: Passwords, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(world: World) -> None:
        worlds.append(world)
        raise ValueError("not a rule: a mistake in the simulator")

    worlds: list[World] = []
    monkeypatch.setattr("tests.simulator.world.judge", breaks)
    with pytest.raises(ValueError, match="a mistake"):
        run(1, passwords)
    assert [world.service for world in worlds] == [None]


@pytest.mark.sample(1)
@pytest.mark.parametrize("seed", [1, 8])
def test_a_seed_replays_exactly_in_any_process(seed: int, passwords: Passwords) -> None:
    here = run(seed, passwords)
    for hash_seed in ("1", "2"):
        command = [sys.executable, "-m", "tests.simulator", "--seed", str(seed)]
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        assert here.digest in done.stdout
