"""A training that is killed with its machine goes on where it was, on whatever machine it runs next."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hecaton.client import Client, JobHandle
from hecaton.testing.cluster import LocalCluster
from tests.e2e.conftest import PYTHON
from tests.engine.daemon import docker

PATIENCE = 90.0
STEPS = 40
TRAIN = f"""
import json, os, random, sys, time
STATE = os.path.join(os.environ["HECATON_CHECKPOINTS"], "state.json")
if os.path.exists(STATE):
    state = json.load(open(STATE))
else:
    state = {{"step": 0, "weights": [0.5] * 8, "begun": []}}
print("begins at step", state["step"], flush=True)
state["begun"].append(state["step"])
data = random.Random(7)
rows = [([data.random() for _ in range(8)], data.random()) for _ in range(64)]
while state["step"] < {STEPS}:
    inputs, wanted = rows[state["step"] % len(rows)]
    error = sum(w * x for w, x in zip(state["weights"], inputs)) - wanted
    state["weights"] = [w - 0.1 * error * x for w, x in zip(state["weights"], inputs)]
    state["step"] += 1
    with open(STATE + ".new", "w") as file:
        json.dump(state, file)
    os.replace(STATE + ".new", STATE)
    time.sleep(float(sys.argv[1]))
with open(os.environ["HECATON_OUTPUT"], "w") as output:
    json.dump(state, output)
"""


@pytest.fixture(scope="module")
def cluster(python39_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    with LocalCluster(tmp_path_factory.mktemp("trained") / "home", server_options=("--lost-after", "3")) as cluster:
        cluster.register(PYTHON)
        yield cluster


def _train(client: Client, folder: Path, pause: float) -> JobHandle:
    file = folder / "train.py"
    file.write_text(TRAIN)
    return client.submit(PYTHON, mode="script", file=file, args=(str(pause),), retries=5)


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def _lose(cluster: LocalCluster, name: str) -> None:
    """As if the power of its machine had gone, with its disk."""
    cluster.workers[name].kill()
    worker = next(view for view in cluster.client().workers() if view.name == name)
    found = docker("ps", "--all", "--quiet", "--filter", f"label=hecaton.worker={worker.id}").split()
    docker("rm", "--force", *found)


def test_it_ends_with_the_weights_of_an_undisturbed_one(cluster: LocalCluster, tmp_path: Path) -> None:
    with cluster.client() as client:
        cluster.start_worker("first")
        job = _train(client, tmp_path, 0.5)
        for number, (name, following) in enumerate((("first", "second"), ("second", "third")), 1):

            def saved(attempt: int = number) -> bool:
                kept = client.job(job.id).checkpoint
                return kept is not None and kept.attempt == attempt

            _until(saved)
            _lose(cluster, name)
            cluster.start_worker(following)
        result = job.result(PATIENCE)
        undisturbed = _train(client, tmp_path, 0.0).result(PATIENCE)
        view = client.job(job.id)
    assert [attempt.worker for attempt in view.attempts] == ["first", "second", "third"]
    assert (result["step"], result["weights"]) == (undisturbed["step"], undisturbed["weights"])
    first, second, third = result["begun"]
    assert first == 0 < second < third, "each attempt went on where the one before was"


def test_a_repeated_job_goes_on_unless_it_had_finished(cluster: LocalCluster, tmp_path: Path) -> None:
    with cluster.client() as client:
        cluster.start_worker("fourth")
        job = _train(client, tmp_path, 0.5)
        _until(lambda: client.job(job.id).checkpoint is not None)
        client.cancel(job.id)
        assert job.wait(PATIENCE).state == "CANCELLED"
        again = client.retry(job.id)
        kept = client.job(again.id).checkpoint
        assert kept is not None
        assert kept.attempt == 0
        begun = again.result(PATIENCE)["begun"]
        assert len(begun) == 2, "and what it had saved when it was stopped came, too"
        assert client.retry(again.id).result(PATIENCE)["begun"] == [0]
