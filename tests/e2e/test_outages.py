"""Servers and workers that are stopped, killed, away for a while, or two of a kind: no job is lost, none runs twice."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hecaton.core.errors import HecatonError
from hecaton.core.model import Mode
from hecaton.testing.cluster import LocalCluster
from hecaton.wire.api import WorkerView
from tests.e2e.conftest import ACTOR, PYTHON, Act, ended, running, until
from tests.engine.daemon import docker

pytestmark = pytest.mark.sample(4)

STOP_SECONDS = 15.0


@pytest.fixture
def own(python39_image: str, tmp_path: Path) -> Iterator[LocalCluster]:
    """A cluster that a test may damage: a server, and a worker on the Docker engine."""
    with LocalCluster(tmp_path / "home") as cluster:
        cluster.start_worker("one")
        cluster.register(PYTHON)
        yield cluster


def workers(cluster: LocalCluster) -> dict[str, WorkerView]:
    return {worker.name: worker for worker in cluster.client().workers()}


def containers_of(cluster: LocalCluster, name: str) -> list[str]:
    worker = workers(cluster)[name].id
    return docker("ps", "--all", "--quiet", "--filter", f"label=hecaton.worker={worker}").splitlines()


def test_a_server_that_is_away_costs_time_and_nothing_else(own: LocalCluster, act: Act) -> None:
    """The running job ends while the server is down; the waiting one was acknowledged before."""
    client = own.client()
    job = running(act({"say": "before", "sleep": 1.5}, client=client))
    waiting = act(client=client)
    container = containers_of(own, "one")
    assert own.server is not None
    own.server.kill()
    log = docker("inspect", "--format", "{{.State.Running}}", container[0])
    assert log == "true", "a worker without its server lets its containers run"
    own.workers["one"].wait_for("job finished after 1.5", seconds=30)
    own.start_server()
    first, second = job.result(30), waiting.result(30)
    assert (first["served"], first["attempt"]) == (1, 1)
    assert (second["served"], second["attempt"]) == (2, 1)
    assert second["container"] == first["container"], "not even the warm container was lost"
    assert client.logs(job.id) == "before\n"


def test_jobs_are_accepted_before_there_is_any_worker_and_outlive_the_server(own: LocalCluster, act: Act) -> None:
    client = own.client()
    assert own.workers["one"].stop() == 0
    until(lambda: workers(own)["one"].status == "OFFLINE", "the worker is gone")
    jobs = [act({"number": number}, client=client) for number in range(5)]
    assert "no worker is connected" in str(jobs[0].view().waiting)
    assert own.server is not None
    own.server.kill()
    own.start_server()
    own.start_worker("one")
    assert [job.result(30)["served"] for job in jobs] == [1, 2, 3, 4, 5], "in the order of their submission"


def test_a_worker_that_was_killed_runs_its_job_again_and_leaves_no_container(own: LocalCluster, act: Act) -> None:
    client = own.client()
    job = running(act({"sleep": 3}, client=client))
    old = containers_of(own, "one")
    own.workers["one"].kill()
    own.start_worker("one")
    view = ended(job)
    assert view.state == "FINISHED"
    until(lambda: len(containers_of(own, "one")) <= 1, "one warm container at most")
    if view.attempt > 1:
        assert old[0] not in containers_of(own, "one"), "the orphan is removed"


def test_sigterm_stops_worker_and_server_in_time_and_the_worker_takes_its_containers_along(
    own: LocalCluster, act: Act
) -> None:
    assert act(client=own.client()).result(30)["served"] == 1
    began = time.monotonic()
    assert own.workers["one"].stop(seconds=STOP_SECONDS) == 0
    assert containers_of(own, "one") == []
    assert own.server is not None
    assert own.server.stop(seconds=STOP_SECONDS) == 0
    assert time.monotonic() - began < STOP_SECONDS


def test_a_stopping_worker_lets_its_job_end_and_hands_the_next_one_back(own: LocalCluster, act: Act) -> None:
    client = own.client()
    job = running(act({"sleep": 1.5}, client=client))
    waiting = act(client=client)
    own.workers["one"].send_signal(signal.SIGTERM)
    assert job.result(30)["attempt"] == 1
    assert own.workers["one"].stop() == 0
    assert waiting.status() == "IN_QUEUE"
    own.start_worker("one")
    assert waiting.result(30)["served"] == 1


def test_a_server_that_stops_leaves_no_follower_waiting(own: LocalCluster, act: Act) -> None:
    """Long polls and event streams do not hold the server up."""
    client = own.client()
    job = running(act({"sleep": 600}, client=client))
    stream = client.events(job.id)
    next(stream)
    assert own.server is not None
    began = time.monotonic()
    assert own.server.stop() == 0
    assert time.monotonic() - began < STOP_SECONDS
    own.start_server()
    until(lambda: workers(own)["one"].status == "ONLINE", "the worker comes back")
    job.cancel()
    assert ended(job).state == "CANCELLED"


def test_two_workers_on_one_machine_share_the_work_and_nothing_else(own: LocalCluster, act: Act) -> None:
    own.start_worker("two")
    client = own.client()
    jobs = [running(act({"sleep": 600}, client=client)) for _ in range(2)]
    assert {job.view().worker for job in jobs} == {"one", "two"}
    assert own.workers["two"].stop(signal.SIGKILL) < 0
    own.start_worker("two")
    assert jobs[[job.view().worker for job in jobs].index("one")].status() == "IN_PROGRESS"
    for job in jobs:
        job.cancel()
        ended(job)


def test_a_removed_worker_ends_and_its_job_runs_elsewhere(own: LocalCluster, act: Act) -> None:
    client = own.client()
    job = running(act({"sleep": 2}, client=client))
    client.remove_worker("one")
    assert own.workers["one"].child.wait(30) == 0
    own.start_worker("two")
    view = ended(job)
    assert (view.state, view.worker, view.attempt) == ("FINISHED", "two", 2)
    assert [worker.name for worker in client.workers()] == ["two"]


def test_a_machine_without_docker_runs_named_handlers_as_processes(tmp_path: Path) -> None:
    environment = {"DOCKER_HOST": "unix:///nowhere/docker.sock"}
    with LocalCluster(tmp_path / "home", environment={**os.environ, **environment}) as cluster:
        with pytest.raises(HecatonError, match="Docker"):
            cluster.start_worker("docker")
        worker = cluster.start_worker("process", handlers={"actor": ACTOR})
        assert "without isolation" in worker.said()
        cluster.register("actor", PYTHON)
        client = cluster.client()
        first, second = (client.submit("actor").result(30) for _ in range(2))
        assert (first["served"], second["served"]) == (1, 2)
        refused = client.submit(PYTHON, {}, mode=Mode.HANDLER, file=ACTOR)
        assert "process runtime" in str(refused.view().waiting)
        client.cancel(refused.id)
