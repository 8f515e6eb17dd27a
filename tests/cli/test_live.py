"""Waiting for a job on a real terminal."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import msgspec
import pytest

from tests.cli.conftest import HECATON
from tests.cli.screen import Terminal
from tests.cli.test_jobs import SUBMITTED, ends_as, event
from tests.cli.test_new import Uploads
from tests.cli.test_run import DEFAULT
from tests.cli.views import JOB_ID, finished, job
from tests.client.scripted import Answer, ScriptedServer, reply


def test_the_status_line_tells_state_time_progress_and_what_the_worker_does(server: ScriptedServer) -> None:
    running = (
        event("state", "ASSIGNED", attempt=1),
        event("note", "pulling python:3.9-slim, 40 %", attempt=1),
    )
    server.on("GET", "/v1/jobs/12/events", Answer(lines=running, then="hang"))
    with Terminal([str(HECATON), "job", "wait", "12"]) as terminal:
        terminal.until(r"ASSIGNED  \d.*  pulling python:3.9-slim, 40 %")
        terminal.until(r"\r\x1b\[2K.*ASSIGNED  1\.\d\d s")


def test_the_log_stands_above_the_status_line_and_cannot_control_the_terminal(server: ScriptedServer) -> None:
    ends_as(
        server,
        finished({"answer": 42}),
        event("state", "IN_PROGRESS", attempt=1),
        event("log", "step 1\x1b]52;c;", attempt=1, offset=10),
        event("log", "eA==\x07 done\rover\n", attempt=1, offset=20),
        event("log", "no end of line", attempt=1, offset=30),
        event("progress", 0.25, attempt=1),
    )
    with Terminal([str(HECATON), "job", "wait", "12"]) as terminal:
        assert terminal.end() == 0
        shown = terminal.seen
    assert "over 1 done\r\n" in shown
    assert "no end of line\r\n" in shown
    assert "25%" in shown
    assert "]52" not in shown
    assert '"answer": 42' in shown


@pytest.mark.parametrize(
    ("reported", "drawn"),
    [
        (0.25, r"\[#####---------------\] 25%"),
        ({"done": 12, "total": 60}, r"\[####----------------\] 20%, 12 of 60"),
        ({"done": 1, "total": "many"}, r'  \{"done":1,"total":"many"\}'),
        ({"done": 2, "total": 1}, r'  \{"done":2,"total":1\}'),
        (3, "  3"),
        ("epoch 3", "  epoch 3"),
    ],
)
def test_a_share_is_drawn_as_a_bar_and_anything_else_is_shown_as_it_is(
    server: ScriptedServer, reported: object, drawn: str
) -> None:
    running = (event("state", "IN_PROGRESS", attempt=1), event("progress", reported, attempt=1))
    server.on("GET", "/v1/jobs/12/events", Answer(lines=running, then="hang"))
    with Terminal([str(HECATON), "job", "wait", "12"], columns=60) as terminal:
        terminal.until(r"IN_PROGRESS  [\d.]+ m?s  *" + drawn.lstrip())


def test_a_followed_log_has_the_bar_below_it(server: ScriptedServer) -> None:
    lines = (
        event("log", "epoch 1\n", attempt=1, offset=8),
        event("progress", {"step": 1}, attempt=1),
        event("progress", {"done": 1, "total": 4}, attempt=1),
        event("log", "epoch 2\nhalf a ", attempt=1, offset=23),
        event("log", "line\n", attempt=1, offset=28),
        event("progress", 0.5, attempt=1),
    )
    ends_as(server, finished(1), *lines)
    with Terminal([str(HECATON), "job", "logs", "-f", "12"], NO_COLOR="1") as terminal:
        assert terminal.end() == 0
        shown = terminal.seen
    assert shown == (
        "epoch 1\r\n[#####---------------] 25%, 1 of 4\r\x1b[2Kepoch 2\r\nhalf a line\r\n"
        "[#####---------------] 25%, 1 of 4\r\x1b[2K[##########----------] 50%\r\x1b[2K"
    )


def test_ctrl_c_leaves_the_job_running_and_says_how_to_come_back(server: ScriptedServer) -> None:
    server.on("GET", "/v1/jobs/12/events", Answer(lines=(event("state", "IN_PROGRESS", attempt=1),), then="hang"))
    with Terminal([str(HECATON), "job", "wait", "12"]) as terminal:
        terminal.until("IN_PROGRESS")
        terminal.type("\x03")
        terminal.until("Job 12 goes on. Ctrl-C again within 3 s cancels it. Come back with: hecaton job wait 12")
        assert terminal.end() == 128 + signal.SIGINT
    assert not [seen for seen in server.seen if seen.method != "GET"]


@pytest.mark.parametrize(
    ("state", "says", "code"),
    [
        ("CANCELLED", "Job 12 is CANCELLED.", 3),
        ("IN_PROGRESS", "Job 12 is IN_PROGRESS, and told to stop.", 3),
        ("FINISHED", "Job 12 is FINISHED.", 0),  # in the meantime
    ],
)
def test_a_second_ctrl_c_cancels_the_job(server: ScriptedServer, state: str, says: str, code: int) -> None:
    server.on("GET", "/v1/jobs/12/events", Answer(lines=(event("state", "IN_PROGRESS", attempt=1),), then="hang"))
    server.on("POST", "/v1/jobs/12/cancel", reply(job(state)))
    with Terminal([str(HECATON), "job", "wait", "12"]) as terminal:
        terminal.until("IN_PROGRESS")
        terminal.type("\x03")
        terminal.until("again within 3 s")
        terminal.type("\x03")
        terminal.until(says)
        assert terminal.end() == code
    assert len(server.asked("POST", "/v1/jobs/12/cancel")) == 1


@pytest.mark.parametrize("again", [False, True])
def test_under_run_it_is_the_same(
    server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    (tmp_path / "train.py").write_text("print(1)\n")
    monkeypatch.setattr(server, "take", Uploads(server))
    server.on("GET", "/v1/server", reply(DEFAULT))
    server.on("POST", "/v1/jobs", SUBMITTED)
    running = (event("state", "IN_PROGRESS", attempt=1), event("log", "step 1\n", attempt=1, offset=7))
    server.on("GET", f"/v1/jobs/{JOB_ID}/events", Answer(lines=running, then="hang"))
    server.on("POST", f"/v1/jobs/{JOB_ID}/cancel", reply(job("CANCELLED")))
    with Terminal([str(HECATON), "run", str(tmp_path / "train.py")]) as terminal:
        terminal.until("step 1")
        terminal.type("\x03")
        terminal.until("Job 12 goes on. Ctrl-C again within 3 s cancels it. Come back with: hecaton job wait 12")
        if again:
            terminal.type("\x03")
            terminal.until("Job 12 is CANCELLED.")
        assert terminal.end() == 130
    assert len(server.asked("POST", f"/v1/jobs/{JOB_ID}/cancel")) == again


def test_ctrl_c_while_several_are_waited_for_is_about_those_that_go_on(server: ScriptedServer) -> None:
    ids = {number: f"{JOB_ID[:-2]}{number:02}" for number in (7, 8, 9)}
    for number, job_id in ids.items():
        view = job("FINISHED" if number == 7 else "IN_PROGRESS", index=number, id=job_id)
        server.on("GET", f"/v1/jobs/{number}", reply(view))
        server.on("GET", f"/v1/jobs/{job_id}", reply(view))
        server.on("POST", f"/v1/jobs/{job_id}/cancel", reply(job("CANCELLED", index=number, id=job_id)))
    with Terminal([str(HECATON), "wait", "7", "8", "9"], columns=200) as terminal:
        terminal.until("Job 7 is FINISHED")
        terminal.type("\x03")
        terminal.until("Each of the jobs 8 9 goes on. Ctrl-C again within 3 s cancels it. .* hecaton job wait 8 9")
        terminal.type("\x03")
        terminal.until("Each of the jobs 8 9 is CANCELLED.")
        assert terminal.end() == 3
    assert [len(server.asked("POST", f"/v1/jobs/{job_id}/cancel")) for job_id in ids.values()] == [0, 1, 1]


def test_tables_fit_the_terminal_and_colours_can_be_switched_off(server: ScriptedServer) -> None:
    view = {**json.loads(msgspec.json.encode(finished(1))), "image": "registry.example.com/a/very/long/name:tag"}
    page = Answer(200, msgspec.json.encode({"jobs": [view], "next": None}), {"Content-Type": "application/json"})
    server.on("GET", "/v1/jobs", page)
    with Terminal([str(HECATON), "job", "list"], columns=60) as terminal:
        assert terminal.end() == 0
        assert "\x1b[1m" in terminal.seen
        assert "\x1b[32mFINISHED\x1b[0m" in terminal.seen
        assert "…" in terminal.seen
    with Terminal([str(HECATON), "job", "list"], columns=60, NO_COLOR="1") as terminal:
        assert terminal.end() == 0
        assert "\x1b" not in terminal.seen
        assert all(len(line) <= 60 for line in terminal.seen.splitlines())
