"""A small run of `make chaos`, with a fresh seed each time."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.engine.private import PrivateEngine
from tests.faults import chaos
from tests.faults.chaos_plan import WEIGHTS, Fault, Kind, make_plan
from tests.faults.figures import figure

JOBS, FAULTS = figure(400, 1000), figure(8, 20)


def test_jobs_outlive_random_faults(own_engine: PrivateEngine, tmp_path: Path, seed: int) -> None:
    """kill -9 and SIGSTOP of server, workers, handlers, containers and their engine."""
    outcome = chaos.run(tmp_path, own_engine, jobs=JOBS, faults=FAULTS, seed=seed, fault_seconds=1.0)
    print(outcome.table())
    assert outcome.faults() == []


def test_a_seed_gives_the_same_plan_and_another_seed_another() -> None:
    assert make_plan(7, 200, 300.0) == make_plan(7, 200, 300.0)
    assert make_plan(7, 200, 300.0) != make_plan(8, 200, 300.0)


@pytest.mark.parametrize("number", range(5))
def test_a_full_plan_strikes_everything_and_nothing_twice_at_once(number: int) -> None:
    plan = make_plan(number, 200, 300.0)
    assert {(fault.kind, fault.target) for fault in plan} == set(WEIGHTS)
    assert [fault.at for fault in plan] == sorted(fault.at for fault in plan)
    assert all(1.0 <= fault.seconds <= 6.0 for fault in plan if fault.kind is Kind.PAUSE)
    for target in {fault.target for fault in plan}:
        assert _apart([fault for fault in plan if fault.target == target])


def _apart(faults: Sequence[Fault]) -> bool:
    return all(one.at + one.seconds < next.at for one, next in itertools.pairwise(faults))
