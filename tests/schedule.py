"""Which tests go to one process together, and in which order the groups are begun: long ones first, so that no process
is left with one at the end.

A file is a group of its own, but for those that share what is dear or disturb each other."""

from __future__ import annotations

from collections.abc import Collection

OWN_ENGINE = "tests/own-engine"
"""They kill, freeze and restart an engine of their own: one for all of them, and no two such storms at once."""
ON_THE_ENGINE = "tests/on-the-engine"
"""They look for what is left on the engine that all share."""

TOGETHER = {
    "tests/engine/test_private.py": OWN_ENGINE,
    "tests/faults/test_chaos.py": OWN_ENGINE,
    "tests/faults/test_engine_faults.py": OWN_ENGINE,
    "tests/faults/test_kills_leave_nothing.py": OWN_ENGINE,
    "tests/faults/test_worker_kills.py": OWN_ENGINE,
    "tests/engine/test_engine.py": ON_THE_ENGINE,
    "tests/e2e/test_leftovers.py": ON_THE_ENGINE,
}

FIRST = (
    OWN_ENGINE,
    "tests/test_benchmarks.py",
    "tests/test_simulator.py",
    "tests/e2e/",
    "tests/faults/",
    "tests/options/",
    "tests/test_mutants.py",
    "tests/worker/test_adoption.py",
    "tests/server/test_process.py",
    "tests/cli/test_demo.py",
    "tests/serverless/test_link.py",
    "tests/client/test_batches.py",
    ON_THE_ENGINE,
)

SLOW = (
    *FIRST,
    "tests/description/",
    "tests/engine/",
    "tests/release/",
    "tests/server/",
    "tests/serverless/",
    "tests/cli/",
    "tests/store/test_sqlite_file.py",
    "tests/store/test_sqlite_faults.py",
    "tests/worker/test_agent.py",
    "tests/worker/test_ahead.py",
    "tests/worker/test_hostile.py",
    "tests/worker/test_lost_card.py",
    "tests/test_platforms.py",
    "tests/test_schedule.py",
    "tests/worker/test_second_process.py",
    "tests/worker/test_whose_log.py",
    "tests/worker/test_no_overlap.py",
    "tests/worker/test_disk_full.py",
    "tests/worker/test_container_protocol.py",
    "tests/worker/test_removal.py",
    "tests/store/test_sqlite_machine.py",
    "tests/client/test_forks.py",
)
"""Not in `make test-fast`: they start processes, and wait for real time."""

ENGINE_FIXTURES = frozenset({"engine", "base_image", "python39_image", "systemd_image", "registry", "own_engine"})


def group(test: str) -> str:
    """Of a test's id."""
    file = test.partition("::")[0]
    return TOGETHER.get(file, file)


def rank(test: str) -> tuple[int, str]:
    """By which tests are sorted: groups stay whole, those of FIRST come first."""
    own = group(test)
    return next((place for place, prefix in enumerate(FIRST) if own.startswith(prefix)), len(FIRST)), own


def is_slow(test: str) -> bool:
    return group(test).startswith(SLOW)


def needs_engine(fixtures: Collection[str]) -> bool:
    return not ENGINE_FIXTURES.isdisjoint(fixtures)
