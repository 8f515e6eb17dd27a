"""Cancelling: a job is over only when its container is really gone, or nobody can say any more."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hecaton.core.model import JobState, Mode
from hecaton.testing.cluster import LocalCluster
from tests.e2e.conftest import PATIENCE, PYTHON, Act, running, until
from tests.engine.daemon import docker

LOST_AFTER = 8.0


@pytest.fixture(scope="module")
def own(python39_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """A cluster whose worker is frozen and killed; it counts as lost after some seconds."""
    folder = tmp_path_factory.mktemp("cancel") / "home"
    with LocalCluster(folder, server_options=("--lost-after", str(LOST_AFTER))) as cluster:
        cluster.start_worker("one")
        cluster.register(PYTHON)
        yield cluster


def _containers(cluster: LocalCluster) -> set[str]:
    [worker] = [view.id for view in cluster.client().workers() if view.name == "one"]
    return set(docker("ps", "--quiet", "--filter", f"label=hecaton.worker={worker}").splitlines())


def test_a_running_job_is_cancelled_when_its_container_is_gone(own: LocalCluster, act: Act) -> None:
    client = own.client()
    job = running(act({"sleep": 600}, client=client))
    before = _containers(own)
    assert len(before) == 1
    job.cancel()
    assert job.wait(PATIENCE).state is JobState.CANCELLED
    assert not before & _containers(own)


def test_a_job_that_starts_is_cancelled_and_nothing_of_it_runs(own: LocalCluster, act: Act) -> None:
    job = act({"sleep": 600}, client=own.client())
    until(lambda: job.status() != JobState.IN_QUEUE, "it is assigned")
    job.cancel()
    assert job.wait(PATIENCE).state is JobState.CANCELLED
    next_job = act(client=own.client())
    assert next_job.result(PATIENCE)["attempt"] == 1, "the slot is free"


def test_a_job_of_a_frozen_worker_is_cancelled_when_that_has_stopped_it(own: LocalCluster, act: Act) -> None:
    job = running(act({"sleep": 600}, client=own.client()))
    before = _containers(own)
    own.workers["one"].send_signal(signal.SIGSTOP)
    try:
        view = job.cancel()
        assert (view.state, view.cancel_requested) == (JobState.IN_PROGRESS, True)
        time.sleep(1.0)
        assert job.status() is JobState.IN_PROGRESS, "its container still runs"
        assert before <= _containers(own)
    finally:
        own.workers["one"].send_signal(signal.SIGCONT)
    assert job.wait(PATIENCE).state is JobState.CANCELLED
    assert not before & _containers(own)


def test_a_job_of_a_worker_that_never_comes_back_is_cancelled_at_last(own: LocalCluster, act: Act) -> None:
    job = running(act({"sleep": 600}, client=own.client()))
    before = _containers(own)
    own.workers["one"].kill()
    assert job.cancel().state is JobState.IN_PROGRESS
    view = job.wait(PATIENCE)
    assert (view.state, view.attempt) == (JobState.CANCELLED, 1)
    assert before <= _containers(own), "nobody is there to stop it"
    own.start_worker("one")
    until(lambda: not before & _containers(own), "the worker stops it when it is back")


TRAINING = """#!/usr/bin/env python3
import signal, sys, time
def save(number, frame):
    time.sleep(2)  # more than an eighth of lost_after
    print("checkpoint saved", flush=True)
    sys.exit(1)
signal.signal(signal.SIGTERM, save)
print("training", flush=True)
time.sleep(600)
"""


SCRIPTS = {
    "train.py": TRAINING,
    "train.sh": f"cat >/tmp/train.py <<'END'\n{TRAINING}END\npython /tmp/train.py\n",
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_job_that_is_stopped_has_its_workers_grace_to_save_its_work(
    own: LocalCluster, tmp_path: Path, name: str
) -> None:
    """Also below a shell, which ends by the signal at once."""
    script = tmp_path / name
    script.write_text(SCRIPTS[name])
    client = own.client()
    job = client.submit(PYTHON, mode=Mode.SCRIPT, file=script)
    until(lambda: "training" in client.logs(job.id), "it trains")
    job.cancel()
    assert job.wait(PATIENCE).state is JobState.CANCELLED
    assert client.logs(job.id) == "training\ncheckpoint saved\n"
