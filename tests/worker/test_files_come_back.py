"""What handlers leave in the folder of outputs, on its way from a container to whoever asks for it: real processes."""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from hecaton.client import Client, JobFailed, JobHandle
from hecaton.testing.cluster import LocalCluster
from hecaton.wire.api import JobEvent

HANDLER = """
import os, pathlib, time
from hecaton.serverless import progress, start

OUT = pathlib.Path(os.environ["HECATON_OUTPUTS"])

def handler(data):
    do = data.input
    assert sorted(one.name for one in OUT.iterdir()) in ([], [".hecaton"]), "nothing of the job before"
    if do == "nothing":
        return os.getpid()
    (OUT / "sub").mkdir()
    (OUT / "sub" / "file").write_text(do)
    if do == "dies":
        os._exit(3)
    if do == "raises":
        raise ValueError("no good")
    if do == "waits":
        progress("waiting")
        time.sleep(600)
    if do == "large":
        with (OUT / "large").open("wb") as file:
            for number in range(192):
                file.write(bytes([number]) * 1024 * 1024)
    return os.getpid()

start(handler)
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    home = tmp_path_factory.mktemp("files")
    (home / "handler.py").write_text(HANDLER)
    with LocalCluster(home / "home") as cluster:
        cluster.start_worker("one", handlers={"makes": home / "handler.py"})
        yield cluster


@pytest.fixture(scope="module")
def client(cluster: LocalCluster) -> Client:
    return cluster.client()


def _left(job: JobHandle, folder: Path) -> dict[str, str]:
    return {one.path: one.where.read_text() for one in job.get(folder)}


def test_each_job_of_a_warm_container_has_its_own(client: Client, tmp_path: Path) -> None:
    words = ["first", "second", "nothing", "third"]
    jobs = [client.submit("makes", word) for word in words]
    assert len({job.result(60) for job in jobs}) == 1, "it was the same container"
    for job, word in zip(jobs, words, strict=True):
        made = {} if word == "nothing" else {"sub/file": word}
        assert _left(job, tmp_path / word) == made


@pytest.mark.parametrize("end", ["raises", "dies"])
def test_a_failed_job_has_them_too(client: Client, tmp_path: Path, end: str) -> None:
    job = client.submit("makes", end)
    with pytest.raises(JobFailed):
        job.result(60)
    assert _left(job, tmp_path) == {"sub/file": end}


def test_a_cancelled_job_has_what_it_had_made(client: Client, tmp_path: Path) -> None:
    job = client.submit("makes", "waits")
    assert [event.event for event in _until(job, "progress")][-1] == "progress"
    job.cancel()
    job.wait(60)
    # Its end is known before its container has gone; the next job runs when it has.
    client.submit("makes", "nothing").result(60)
    assert _left(job, tmp_path) == {"sub/file": "waits"}


def _until(job: JobHandle, what: str) -> Iterator[JobEvent]:
    for event in job.events():
        yield event
        if event.event == what:
            return


def test_large_ones_come_whole_though_the_worker_is_killed_on_the_way(
    cluster: LocalCluster, client: Client, tmp_path: Path
) -> None:
    job = client.submit("makes", "large")
    assert [event.event for event in _until(job, "note")][-1] == "note", "it brings its files back"
    cluster.workers["one"].stop(signal.SIGKILL)
    cluster.start_worker("one", handlers={"makes": cluster.folder.parent / "handler.py"})
    job.wait(60)
    [large, small] = job.get(tmp_path)
    digest = hashlib.sha256()
    for number in range(192):
        digest.update(bytes([number]) * 1024 * 1024)
    assert hashlib.sha256(large.where.read_bytes()).hexdigest() == digest.hexdigest()
    assert small.where.read_text() == "large"
