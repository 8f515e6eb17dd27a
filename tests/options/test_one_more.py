"""One option more than this release has: nothing that waits is stranded, and nobody drops what he does not know."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from hecaton.core.model import JobId
from hecaton.testing.cluster import LocalCluster
from tests.options.one_more import NAME, release_after, run

PYTHON = "python:3.9-slim"
HANDLER = """
import os
from hecaton.serverless import start
start(lambda job: sorted(os.listdir("/sys/class/net")))
"""
SCRIPT = """
import json, os
with open(os.environ["HECATON_OUTPUT"], "w") as output:
    json.dump(sorted(os.listdir("/sys/class/net")), output)
"""
SUBMIT = """
import json, sys
from hecaton.client import Client
url, token, file, *options = sys.argv[1:]
with Client(url, token) as client:
    ways = {"handler": {"input": 1}, "script": {}}
    for mode, more in ways.items():
        job = client.submit("python:3.9-slim", mode=mode, file=f"{file}/{mode}.py", network=options[0], **more)
        print(job.id)
    print(client.submit("echo", 1, network=options[0]).id)
"""


@pytest.fixture
def after(tmp_path: Path) -> dict[str, str]:
    return release_after(tmp_path / "after")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "handler.py").write_text(HANDLER)
    (tmp_path / "script.py").write_text(SCRIPT)
    return tmp_path


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LocalCluster]:
    with LocalCluster(tmp_path / "home") as cluster:
        for image in (PYTHON, "echo"):
            cluster.register(image)
        yield cluster


def test_all_that_waits_in_the_database_of_the_release_before_runs(
    cluster: LocalCluster, after: dict[str, str], files: Path, python39_image: str
) -> None:
    with cluster.client() as client:
        jobs = [
            client.submit("echo", 1),
            client.submit("echo", 1, timeout=60, retries=1, priority=2, queue_ttl=600, no_overlap=True),
            client.submit(PYTHON, 1, mode="handler", file=files / "handler.py"),
            client.submit(PYTHON, mode="script", file=files / "script.py", args=("a",)),
            client.submit("echo", "delayed"),
        ]
        batches = [
            client.submit_many("echo", [1, 2]),
            client.submit_many(PYTHON, [1, 2], mode="handler", file=files / "handler.py"),
        ]
    assert cluster.server is not None
    cluster.server.stop()
    with sqlite3.connect(cluster.folder / "server/hecaton.db") as database:  # as after a failed attempt
        database.execute("UPDATE job SET run_after = created_at + 1 WHERE id = ?", (jobs[-1].id,))
    database.close()

    cluster.start_server(environment=after)
    with cluster.client() as client:
        cluster.start_worker("process", handlers={"echo": files / "handler.py"}, environment=after)
        here = [*jobs[:2], jobs[-1]]  # an engine would look for an image `echo`
        assert [client.wait(job.id, 60).state for job in here] == ["FINISHED"] * len(here)
        assert client.batch(batches[0].id).wait().finished == 2
        cluster.start_worker("docker", environment=after)
        assert [client.wait(job.id, 60).state for job in jobs[2:4]] == ["FINISHED"] * 2
        assert client.batch(batches[1].id).wait().finished == 2


def test_it_is_carried_out_where_it_can_be_and_elsewhere_refused_in_words(
    cluster: LocalCluster, after: dict[str, str], files: Path, python39_image: str
) -> None:
    assert cluster.server is not None
    cluster.server.stop()
    cluster.start_server(environment=after)
    cluster.start_worker("before")  # of this release, which does not know it
    cluster.start_worker("process", handlers={"echo": files / "handler.py"}, environment=after)

    def submit(value: str) -> list[JobId]:
        return [JobId(one) for one in run(SUBMIT, cluster.url, token, str(files), value, environment=after).split()]

    with cluster.client() as client:
        token = client.token
        assert [client.wait(job, 60).state for job in submit("default")] == ["FINISHED"] * 3, "they know the default"
        waiting = submit("none")
        for job in waiting:
            why = {line.worker: line.why for line in client.job(job).waiting}
            assert f"does not carry out --{NAME}" in why["before"]
            assert client.job(job).state == "IN_QUEUE"
        assert f"does not carry out --{NAME}" in {w.worker: w.why for w in client.job(waiting[2]).waiting}["process"]
        cluster.start_worker("docker", environment=after)
        for job in waiting[:2]:
            assert client.wait(job, 60).worker == "docker"
            assert json.loads(json.dumps(client.result(job))) == ["lo"], "seen from inside of the container"
        client.cancel(waiting[2])
