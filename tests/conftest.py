"""Loads the fixtures of the real Docker engine for all tests, draws the run's seed, and says which tests stand side by
side."""

from __future__ import annotations

import os
import secrets
import signal
from pathlib import Path

import hypothesis
import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

from tests import sampling, schedule

pytest_plugins = ["tests.engine.fixtures"]

# The contracts' plain asserts explain themselves as those in test files do. Here, since whoever imports one of them
# before has it as it is.
pytest.register_assert_rewrite("tests.contracts")

# No test asserts a time: a busy machine must not fail an example that is right. The run's seed alone decides what is
# drawn: where CI is set, Hypothesis would otherwise draw the same for every seed, and examples kept on disk would add
# what another checkout with the same seed does not have.
settings.register_profile(
    "hecaton", deadline=None, derandomize=False, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("hecaton")

REPOSITORY = Path(__file__).resolve().parents[1]
SEED = "SEED"


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    # In the environment, so that the processes of a run that is spread over several have the same one.
    os.environ.setdefault(SEED, str(secrets.randbelow(2**32)))
    if hypothesis.core.global_force_seed is None:  # --hypothesis-seed goes before
        hypothesis.core.global_force_seed = int(os.environ[SEED])  # type: ignore[assignment]
    # Whoever started us may have SIGINT ignored (nohup, a background job of a script), and children inherit that. A
    # handler, which does nothing, is not inherited: here SIGINT stays ignored, and a test's child has its default.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda *_: None)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """`make test-fast` does not even read what it leaves out: each of its processes would."""
    if "not slow" not in config.option.markexpr or REPOSITORY not in collection_path.parents:
        return None
    path = collection_path.relative_to(REPOSITORY).as_posix()
    return True if schedule.is_slow(path + "/" * collection_path.is_dir()) else None


def pytest_report_header() -> str:
    return f"seed of all that is random: {os.environ[SEED]} (make test SEED={os.environ[SEED]} draws the same again)"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    sampling.draw(config, items, int(os.environ[SEED]))
    for item in items:
        if schedule.needs_engine(getattr(item, "fixturenames", ())):
            item.add_marker("engine")
        if schedule.is_slow(item.nodeid):
            item.add_marker("slow")
    items.sort(key=lambda item: schedule.rank(item.nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadScopeScheduling:
    return ByGroup(config, log)


class ByGroup(LoadScopeScheduling):  # type: ignore[misc]  # xdist is untyped
    """Gives each group of tests to one process, whole."""

    def _split_scope(self, nodeid: str) -> str:
        return schedule.group(nodeid)


@pytest.fixture
def seed() -> int:
    """That of the run."""
    chosen = int(os.environ[SEED])
    print(f"seed {chosen}: SEED={chosen} plays this again")
    return chosen
