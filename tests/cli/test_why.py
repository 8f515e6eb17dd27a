"""`hecaton why`: one answer for what waits, works and has ended, and the line to type next."""

from __future__ import annotations

import time

from hecaton.core.model import Reason
from hecaton.wire.api import Holder, Waiting
from tests.cli.conftest import Invoke
from tests.cli.views import failed, finished, job, summary
from tests.client.scripted import ScriptedServer, reply


def test_a_job_that_waits_says_for_whom_on_each_machine(invoke: Invoke, server: ScriptedServer) -> None:
    now = time.time()
    at_noon = time.mktime((*time.localtime(now)[:3], 12, 0, 0, 0, 0, -1))
    holder = Holder(398, "bob", "train.py", at_noon - 3 * 3600 - 12.5 * 60, at_noon + 2 * 3600 + 40 * 60)
    busy = Waiting("ada", "is busy: 1 of 1 slots run other jobs", (holder, Holder(399, "eve", None, at_noon - 3630)))
    away = Waiting("rig2", "is not connected")
    view = job("IN_QUEUE", waiting=(busy, away), queue_position=2, created_at=at_noon - 7530)
    server.on("GET", "/v1/jobs/12", reply(view, Date=_http(at_noon)))
    assert invoke("why", "12").out.splitlines() == [
        "Job 12 waits, for 2 h 5 min now.",
        "  ada is busy: 1 of 1 slots run other jobs",
        "    job 398 of bob, train.py, for 3 h 12 min, ends by 14:40 (its time limit)",
        "    job 399 of eve, for 1 h 0 min",
        "  rig2 is not connected",
        "  2 jobs are before it",
        "Stop: hecaton cancel 12",
    ]
    assert "    job 398 of bob, train.py, for 3 h 12 min" in invoke("job", "show", "12").out


def test_without_a_number_it_is_the_last_of_ones_own(invoke: Invoke, server: ScriptedServer) -> None:
    server.on("GET", "/v1/jobs", reply({"jobs": [summary(job(index=14))], "next": None}))
    view = finished(1)
    server.on("GET", f"/v1/jobs/{view.id}", reply(view))
    assert invoke("why").out.splitlines() == [
        "Job 12 is FINISHED.",
        "In the queue 40 s, starting 1.00 s, running 58 s.",
        "Its result: hecaton wait 12",
    ]
    assert server.asked("GET", "/v1/jobs")[-1].query == {"whose": "mine", "limit": "1"}
    server.on("GET", "/v1/jobs", reply({"jobs": [], "next": None}))
    ended = invoke("why")
    assert (ended.code, ended.err) == (6, "Error: you have no job yet\nSubmit one: hecaton run train.py\n")


def test_a_job_at_work_says_where_and_where_its_time_goes(invoke: Invoke, server: ScriptedServer) -> None:
    view = job("IN_PROGRESS", progress=0.25, note="pulling app:1, 40 %", attempt=2, cancel_requested=True)
    server.on("GET", "/v1/jobs/12", reply(view))
    lines = invoke("why", "12").out.splitlines()
    assert lines[:3] == ["Job 12 runs on gpu-1, attempt 2.", "  pulling app:1, 40 %", "  [#####---------------] 25%"]
    assert lines[3].startswith("In the queue 40 s, starting 1.00 s, running ")
    assert lines[3].endswith(", in 2 attempts. It is told to stop.")
    assert lines[4] == "Its log: hecaton logs -f 12    Stop: hecaton cancel 12"


def test_a_job_that_failed_says_why_and_what_may_help(invoke: Invoke, server: ScriptedServer) -> None:
    server.on("GET", "/v1/jobs/12", reply(failed("ran for 60 s", reason=Reason.TIMEOUT, timeout=60.0)))
    lines = invoke("why", "12").out.splitlines()
    assert lines[0] == "Job 12 is FAILED: timeout"
    assert lines[-2:] == ["Its log: hecaton logs 12", "With more time: hecaton retry 12 --timeout 120"]
    server.on("GET", "/v1/jobs/12", reply(failed()))
    assert invoke("why", "12").out.splitlines()[-1] == "Again: hecaton retry 12"


def _http(at: float) -> str:
    return time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(at))
