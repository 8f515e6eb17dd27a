"""Fixtures: every installed Python in turn, and a worker's end for a container that runs on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serverless.interpreters import installed
from tests.serverless.worker_side import WorkerSide


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "python" in metafunc.fixturenames:
        metafunc.parametrize("python", list(installed().values()), ids=list(installed()), scope="session")


@pytest.fixture
def worker(tmp_path: Path, python: str) -> Iterator[WorkerSide]:
    with WorkerSide(tmp_path / "shared", python) as side:
        yield side
