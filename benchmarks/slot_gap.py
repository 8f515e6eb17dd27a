"""How long a slot stands still between two jobs of the same image, while more wait: told by the handler's own clock."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

from benchmarks import subject
from benchmarks.load import Connection
from benchmarks.measure import percentile
from benchmarks.plan import Measurement, Plan, Row

JOBS = 2000
CLIENTS = 32


def _run(plan: Plan, folder: Path) -> dict[str, float]:
    jobs = plan.size(JOBS, 100)
    with subject.running(folder) as hecaton:
        hecaton.start_worker()
        body = b'{"image":"%s","input":"when"}' % hecaton.image.encode()
        first = hecaton.target.flood([body] * jobs, CLIENTS)
        assert len(first) == jobs
        with Connection(hecaton.target) as connection:
            called = sorted(_times(connection, jobs))
    gaps = [(after - before) / 1e6 for before, after in itertools.pairwise(called)]
    return {"p50": percentile(gaps, 0.5), "p90": percentile(gaps, 0.9)}


def _times(connection: Connection, jobs: int) -> list[int]:
    """When each of the newest jobs was called, in nanoseconds of the machine's monotonic clock."""
    target, before = connection.target, ""
    found: list[int] = []
    while len(found) < jobs:
        page = connection.send(target.request("GET", f"/v1/jobs?limit=1000{before}")).body.decode()
        ids = re.findall(r'"id":"([0-9a-f-]{36})"', page)
        for job in ids[: jobs - len(found)]:
            result = connection.send(target.request("GET", f"/v1/jobs/{job}/result")).body
            found.append(int(result))
        following = re.search(r'"next":"([^"]+)"', page)
        if following is None:
            break
        before = f"&before={following[1]}"
    return found


MEASUREMENT = Measurement(
    "slot gap",
    {
        "p50": Row("gap on a slot from one job to the next of the same image, p50", "ms", "0.3 ms", 0.3),
        "p90": Row("the same, p90", "ms"),
    },
    _run,
)
