"""The first job of an image that is local but has no container, over `docker run` of the same image."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from benchmarks import subject
from benchmarks.load import Connection
from benchmarks.measure import median
from benchmarks.plan import Measurement, Plan, Row

IMAGES = 10


def _run(plan: Plan, folder: Path) -> dict[str, float]:
    if not subject.image_ready():
        return {}
    count = plan.size(IMAGES, 1)
    names = [subject.build(f"hecaton-benchmark/cold:{number}", f"LABEL number={number}") for number in range(count)]
    runs, jobs = [], []
    try:
        with subject.running(folder) as hecaton:
            hecaton.cluster.register(*names)
            hecaton.cluster.start_worker("bench", options=["--slots", str(count)])
            with Connection(hecaton.target) as connection:
                for number, name in enumerate(names):
                    if number % 2:  # neither is always the first to use an image
                        jobs.append(_job(connection, name))
                        runs.append(_docker_run(name))
                    else:
                        runs.append(_docker_run(name))
                        jobs.append(_job(connection, name))
    finally:
        subject.remove(*names)
    over = median([job - run for job, run in zip(jobs, runs, strict=True)])
    return {"over": over, "job": median(jobs), "run": median(runs)}


def _job(connection: Connection, image: str) -> float:
    """Milliseconds from submit to result."""
    start = time.perf_counter()
    connection.run_job(b'{"image":"%s","input":1}' % image.encode())
    return (time.perf_counter() - start) * 1e3


def _docker_run(image: str) -> float:
    """Milliseconds until the first instruction of Python in a new container."""
    start = time.perf_counter()
    command = ["docker", "run", "--rm", image, "python3", "-uc", "print('here')"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        took = time.perf_counter() - start
    return took * 1e3


MEASUREMENT = Measurement(
    "cold start",
    {
        "over": Row("cold start of a job, over `docker run` of the same image", "ms", "+ 50 ms", 50.0),
        "job": Row("the job, submit to result", "ms"),
        "run": Row("`docker run`, until Python's first instruction", "ms"),
    },
    _run,
)
