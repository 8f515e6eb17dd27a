"""An engine of a test's own, with which it may do what nobody may do to the shared one."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.engine.daemon import docker
from tests.engine.needs import EngineError
from tests.engine.private import PrivateEngine


def runs(engine: PrivateEngine, image: str) -> str:
    """A container that says once a moment that it lives."""
    return engine.docker(
        "run", "--detach", image, "sh", "-c", "trap 'exit 0' TERM; while sleep 0.1; do echo alive; done"
    )


def state(engine: PrivateEngine, container: str) -> str:
    return engine.docker("inspect", "--format", "{{.State.Status}}", container)


def test_it_shares_nothing_with_the_engine_of_the_machine(own_engine: PrivateEngine, python39_image: str) -> None:
    container = runs(own_engine, python39_image)
    assert own_engine.containers() == [container]
    assert container not in docker("ps", "--all", "--quiet", "--no-trunc")


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_containers_outlive_the_daemon_with_live_restore(
    own_engine: PrivateEngine, python39_image: str, end: str
) -> None:
    own_engine.stop()
    own_engine.start(live_restore=True)
    container = runs(own_engine, python39_image)
    getattr(own_engine, end)()
    own_engine.start(live_restore=True)
    assert state(own_engine, container) == "running"


@pytest.mark.parametrize("end", ["stop", "kill", "cut_power"])
def test_a_daemon_may_be_ended_while_another_thread_waits_for_its_answer(own_engine: PrivateEngine, end: str) -> None:
    own_engine.stop()
    with ThreadPoolExecutor(1) as aside:
        starting = aside.submit(own_engine.start)
        while not own_engine.starting:
            time.sleep(0.001)
        getattr(own_engine, end)()
        starting.result()
    own_engine.start()
    assert own_engine.containers() == []


def test_containers_end_with_the_daemon_without_live_restore(own_engine: PrivateEngine, python39_image: str) -> None:
    container = runs(own_engine, python39_image)
    own_engine.stop()
    own_engine.start()
    assert state(own_engine, container) == "exited"


def test_a_frozen_daemon_does_not_answer_until_it_thaws(own_engine: PrivateEngine, python39_image: str) -> None:
    container = runs(own_engine, python39_image)
    own_engine.freeze()
    with pytest.raises(Exception, match="timed out"):
        own_engine.docker("ps", timeout=1)
    own_engine.thaw()
    assert state(own_engine, container) == "running"


def test_a_power_cut_ends_everything_at_once(own_engine: PrivateEngine, python39_image: str) -> None:
    container = runs(own_engine, python39_image)
    began = time.monotonic()
    own_engine.cut_power()
    assert time.monotonic() - began < 20, "nobody was asked to end in good order"
    with pytest.raises(EngineError):
        own_engine.docker("ps")
    own_engine.start()
    assert state(own_engine, container) == "exited"
