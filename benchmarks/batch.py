"""Jobs submitted as batches of 100 and of 1,000, every result read from the batch's stream.

As many jobs are on their way with either size, so that the size of a request is all that differs."""

from __future__ import annotations

import http.client
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks import subject
from benchmarks.load import TIMEOUT
from benchmarks.measure import cpu_seconds
from benchmarks.plan import Measurement, Plan, Row
from benchmarks.subject import Subject

JOBS = 20_000
SIZES = (100, 1000)
ON_THEIR_WAY = 4000
SLOTS = 2


def _run(plan: Plan, folder: Path) -> dict[str, float]:
    values = {}
    with subject.running(folder) as hecaton:
        hecaton.start_worker(slots=SLOTS)
        for size in SIZES:
            together = ON_THEIR_WAY // size if plan.full else 2
            batches = max(together, plan.size(JOBS, 0) // size)
            before = cpu_seconds([hecaton.server_pid])
            start = time.perf_counter()
            with ThreadPoolExecutor(together) as pool:
                for _ in pool.map(lambda size: run(hecaton, size), [size] * batches):
                    pass
            values[f"rate{size}"] = size * batches / (time.perf_counter() - start)
            values[f"server{size}"] = (cpu_seconds([hecaton.server_pid]) - before) / (size * batches) * 1e6
    return values


def run(hecaton: Subject, size: int) -> None:
    """Submit so many jobs in one request and read all results."""
    target = hecaton.target
    items = ",".join(f'{{"input":{number}}}' for number in range(size))
    connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=TIMEOUT)
    headers = {"Authorization": f"Bearer {target.token}"}
    try:
        connection.request("POST", "/v1/batches", f'{{"image":"{hecaton.image}","items":[{items}]}}', headers)
        answer = connection.getresponse().read()
        batch = answer.split(b'"id":"')[1][:36].decode()
        connection.request("GET", f"/v1/batches/{batch}/results?wait=300", headers=headers)
        lines = connection.getresponse().read()
    finally:
        connection.close()
    if lines.count(b'"state":"FINISHED"') != size:
        raise RuntimeError(f"a batch of {size} ended otherwise: {lines[:500].decode(errors='replace')}")


MEASUREMENT = Measurement(
    "batch",
    {
        "rate100": Row(
            "jobs submitted 100 in a request, 4,000 on their way, results read", "jobs/s", "10,000/s", 10_000, True
        ),
        "server100": Row("the same, CPU of the server", "µs/job"),
        "rate1000": Row(
            "jobs submitted 1,000 in a request, 4,000 on their way, results read", "jobs/s", "10,000/s", 10_000, True
        ),
        "server1000": Row("the same, CPU of the server", "µs/job"),
    },
    _run,
)
