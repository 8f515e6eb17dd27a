"""Where the time of one job goes: one client, and one hop more with every measurement."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import subject
from benchmarks.herd import IMAGE, Herd
from benchmarks.load import Connection
from benchmarks.measure import fsync_ms, percentile
from benchmarks.plan import Measurement, Plan, Row

CALLS = 500
WARM_UP = 100


def _run(plan: Plan, folder: Path) -> dict[str, float]:
    def p50(call: Callable[[], object]) -> float:
        took = []
        for number in range(plan.size(WARM_UP, 5) + plan.size(CALLS, 20)):
            start = time.perf_counter()
            call()
            if number >= plan.size(WARM_UP, 5):
                took.append((time.perf_counter() - start) * 1e3)
        return percentile(took, 0.5)

    with subject.running(folder) as hecaton, Connection(hecaton.target) as connection:
        target, waiting = hecaton.target, hecaton.body(1)
        disk = fsync_ms(folder)
        http = p50(lambda: connection.send(target.request("GET", "/v1/server")))
        stored = p50(lambda: connection.send(target.request("POST", "/v1/jobs", waiting)))
        with Herd(hecaton, 1, folder):
            body = b'{"image":"%s","input":1}' % IMAGE.encode()
            answered = p50(lambda: connection.run_job(body))
        hecaton.start_worker()  # works off what was stored above before its first own job is done
        ran = p50(lambda: connection.run_job(hecaton.body(1)))
    return {
        "disk": disk,
        "http": http,
        "stored": stored - http,
        "answered": answered - stored,
        "ran": ran - answered,
        "sum": ran,
    }


MEASUREMENT = Measurement(
    "hops",
    {
        "http": Row("one job, hop by hop: an authenticated request that reads memory, p50", "ms"),
        "stored": Row("+ the job stored, fsynced", "ms"),
        "answered": Row("+ to a worker that answers at once, the result stored, fsynced, read by the client", "ms"),
        "ran": Row("+ the worker's journal, the socket into the warm container, the handler, and back", "ms"),
        "sum": Row("= submit to result", "ms"),
        "disk": Row("of which one 4 KiB append and fdatasync takes (twice in a job)", "ms"),
    },
    _run,
)
