"""One server and one worker with a real Docker engine, shared by all tests that do not need their own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hecaton.client import Client, JobHandle
from hecaton.core.model import Mode, Role
from hecaton.testing.cluster import PASSWORD, LocalCluster
from hecaton.wire.api import JobView
from tests.e2e.commands import Person
from tests.engine.images import build_image

ACTOR = Path(__file__).with_name("actor.py")
PYTHON = "python:3.9-slim"
WORKER = "gpu-machine"
PATIENCE = 30.0

Act = Callable[..., JobHandle]


@pytest.fixture(scope="session")
def cluster(python39_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """A server, and a worker with one slot."""
    home = tmp_path_factory.mktemp("cluster") / "home"
    with LocalCluster(home, server_options=("--default-image", PYTHON)) as cluster:
        cluster.start_worker(WORKER)
        cluster.register(PYTHON)
        yield cluster


@pytest.fixture(scope="session")
def admin(cluster: LocalCluster) -> Client:
    return cluster.client()


@pytest.fixture(scope="session")
def person(cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Person:
    """The admin at a keyboard, logged in."""
    return Person(tmp_path_factory.mktemp("person")).logs_in(cluster.url, "admin", PASSWORD)


@pytest.fixture(scope="session")
def ann(cluster: LocalCluster) -> Client:
    return user(cluster, "ann")


@pytest.fixture(scope="session")
def bob(cluster: LocalCluster) -> Client:
    return user(cluster, "bob")


def user(cluster: LocalCluster, name: str) -> Client:
    cluster.client().create_user(name, f"password of {name}", Role.USER)
    client = Client(cluster.url)
    client.login(name, f"password of {name}")
    return client


@pytest.fixture
def act(admin: Client) -> Iterator[Act]:
    """Submits an order for the actor as a handler file: `act({"say": "hello"}, retries=1)`. What a test leaves in the
    queue is cancelled: it would keep the next test waiting."""

    def submit(order: object = None, *, client: Client = admin, file: Path = ACTOR, **limits: object) -> JobHandle:
        return client.submit(PYTHON, order, mode=Mode.HANDLER, file=file, **limits)  # type: ignore[arg-type]

    yield submit
    for job in admin.jobs().jobs:
        if not job.state.terminal:
            admin.cancel(job.id)
            admin.wait(job.id, PATIENCE)


@pytest.fixture(scope="session")
def actor_image(cluster: LocalCluster) -> str:
    """An image that has Hecaton and the actor in it."""
    return make_image(cluster, "hecaton-test/e2e-actor:1")


def make_image(cluster: LocalCluster, tag: str, lines: str = "") -> str:
    """The actor as an image's own command, with more lines in its Dockerfile; built and registered."""
    dockerfile = f"""\
FROM {PYTHON}
RUN pip install hecaton
COPY actor.py /app/actor.py
{lines}
CMD ["python", "/app/actor.py"]
"""
    build_image(tag, dockerfile, {"actor.py": ACTOR.read_bytes()})
    cluster.register(tag)
    return tag


def until(condition: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.02)


def running(job: JobHandle) -> JobHandle:
    """The job, as soon as it runs."""
    until(lambda: job.status() == "IN_PROGRESS", f"job {job.index} runs")
    return job


def ended(job: JobHandle) -> JobView:
    return job.wait(PATIENCE)
