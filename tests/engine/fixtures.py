"""Fixtures of the real engine, loaded for all tests by `tests/conftest.py`.

A test that asks for `engine` gets one or fails with the name of what is missing: it never skips."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator

import pytest

from tests.engine import daemon, images, python_image, systemd
from tests.engine.leftovers import MARKER, Traces
from tests.engine.private import PrivateEngine, private_engine
from tests.engine.registry import Registry, running_registry


@pytest.fixture(scope="session", autouse=True)
def traces(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traces]:
    """The run fails when it leaves a process, container, network or temporary folder behind."""
    traces = Traces(tmp_path_factory.getbasetemp())
    traces.scratch.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(MARKER, traces.mark)
        patch.setenv("TMPDIR", str(traces.scratch))
        patch.setattr(tempfile, "tempdir", str(traces.scratch))
        yield traces
        left = traces.wait_until_none()
        traces.remove()
    if left:
        pytest.fail("Left behind by this test run:\n" + "\n".join(left), pytrace=False)


@pytest.fixture(scope="session")
def engine(traces: Traces) -> str:
    """A Docker engine that answers; its version."""
    version = daemon.up()
    traces.watch_engine()
    return version


@pytest.fixture(scope="session")
def base_image(engine: str) -> str:
    """Name of a small image that has a shell and no Python."""
    return images.base_image()


@pytest.fixture(scope="session")
def python39_image(engine: str) -> str:
    """`python:3.9-slim`: real Python 3.9, and `pip install hecaton` gives the working tree's wheel."""
    return python_image.python_image()


@pytest.fixture(scope="session")
def engine_with_images(python39_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateEngine]:
    with private_engine(tmp_path_factory.mktemp("engine")) as engine:
        engine.load(python39_image)
        yield engine


@pytest.fixture
def own_engine(engine_with_images: PrivateEngine) -> PrivateEngine:
    """A Docker engine that the test may kill, freeze and restart. It has `python39_image`, and no containers yet."""
    engine_with_images.renew()
    return engine_with_images


@pytest.fixture(scope="session")
def systemd_image(engine: str) -> str:
    """Name of an image whose PID 1 is systemd; `tests.engine.systemd.systemd_container` runs it."""
    return systemd.systemd_image()


@pytest.fixture(scope="session")
def registry(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """An empty image registry on loopback."""
    with running_registry(tmp_path_factory.mktemp("registry")) as registry:
        yield registry


@pytest.fixture
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away the user's own HECATON_* settings, except the marker of the run."""
    for name in list(os.environ):
        if name.startswith("HECATON_") and name != MARKER:
            monkeypatch.delenv(name)
