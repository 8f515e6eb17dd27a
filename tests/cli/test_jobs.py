"""`hecaton job`: submit, list, show, wait, logs, cancel, retry."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hecaton.core.model import Failure
from hecaton.wire.api import JobView
from tests.cli.conftest import HECATON, Invoke, Process
from tests.cli.screen import Terminal
from tests.cli.views import JOB_ID, failed, finished, job, summary
from tests.client.scripted import Answer, ScriptedServer, Seen, error, reply

AGAIN = "01987a5e-1c2d-7000-8000-000000000013"
SUBMITTED = reply({"id": JOB_ID, "index": 12}, 201)
PATH = f"/v1/jobs/{JOB_ID}"


@pytest.fixture
def payload(tmp_path: Path) -> str:
    path = tmp_path / "payload.json"
    path.write_text('{"prompt": "hello"}')
    return str(path)


def event(event: str, value: Any, **fields: Any) -> bytes:
    return msgspec.json.encode({"event": event, "value": value, **fields}) + b"\n"


def ends_as(server: ScriptedServer, view: JobView, *events: bytes) -> None:
    """The job tells `events` and has then ended as `view`, under its id and its number."""
    for path in (PATH, "/v1/jobs/12"):
        server.on("GET", path, reply(view))
        server.on("GET", f"{path}/events", Answer(lines=(*events, event("end", view))))


def test_a_no_overlap_job_is_asked_for_and_shown(invoke: Invoke, server: ScriptedServer, payload: str) -> None:
    server.on("POST", "/v1/jobs", SUBMITTED)
    assert invoke("job", "new", payload, "my-image", "--no-overlap").code == 0
    assert server.posted.json()["no_overlap"] is True
    server.on("GET", "/v1/jobs/12", reply(job("IN_PROGRESS", no_overlap=True)))
    assert re.search(r"^no overlap +yes", invoke("job", "show", "12").out, re.MULTILINE)


DURATIONS = ["0", "-1", "nan", "inf", "-inf", "1e300", "31d", "true", "", "1h30", "9" * 400]
NUMBERS = ["1.5", "nan", "inf", "true", "", "1001", "-1001", "9" * 30, "9" * 5000]


@pytest.mark.parametrize(
    ("option", "values"),
    [("--timeout", DURATIONS), ("--queue-ttl", DURATIONS), ("--retries", [*NUMBERS, "-1"]), ("--priority", NUMBERS)],
)
def test_limits_that_make_no_sense_are_refused_and_nothing_is_sent(
    invoke: Invoke, server: ScriptedServer, payload: str, option: str, values: list[str]
) -> None:
    for value in values:
        ended = invoke("job", "new", payload, "my-image:latest", f"{option}={value}")
        assert (ended.code, ended.out) == (2, ""), value[:40]
        assert option in ended.err or option[2:].replace("-", "_") in ended.err, ended.err
        assert len(ended.err) < 500 + len(value)
    assert server.seen == []


def test_job_new_prints_the_id_and_nothing_else(invoke: Invoke, server: ScriptedServer, payload: str) -> None:
    server.on("POST", "/v1/jobs", SUBMITTED)
    ended = invoke("job", "new", payload, "my-image:latest")
    assert (ended.code, ended.out, ended.err) == (0, JOB_ID + "\n", "")
    assert server.posted.json() == {"image": "my-image:latest", "input": {"prompt": "hello"}}
    assert json.loads(invoke("job", "new", payload, "my-image:latest", "--json").out) == {"id": JOB_ID, "index": 12}


def test_the_limits_of_a_job_are_options(invoke: Invoke, server: ScriptedServer, payload: str) -> None:
    server.on("POST", "/v1/jobs", SUBMITTED)
    options = [
        "--timeout",
        "15m",
        "--retries",
        "2",
        "--priority",
        "-3",
        "--queue-ttl",
        "1d",
        "--idempotency-key",
        "mine",
    ]
    assert invoke("job", "new", payload, "img", *options).code == 0
    sent = server.posted
    assert sent.headers["idempotency-key"] == "mine"
    body = sent.json()
    assert (body["timeout"], body["retries"], body["priority"], body["queue_ttl"]) == (900, 2, -3, 86400)
    assert "90s, 15m, 2h, 1d" in invoke("job", "new", payload, "img", "--timeout", "soon").err


def test_a_script_travels_with_its_arguments(invoke: Invoke, server: ScriptedServer, tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text("print('training')\n")
    sha256 = hashlib.sha256(script.read_bytes()).hexdigest()
    server.on("HEAD", f"/v1/blobs/{sha256}", Answer(404))
    server.on("PUT", f"/v1/blobs/{sha256}", Answer(201))
    server.on("POST", "/v1/jobs", SUBMITTED)
    assert invoke("job", "new", str(script), "python:3.9-slim", "--script", "--", "--epochs", "3").code == 0
    assert server.posted.json() == {
        "image": "python:3.9-slim",
        "input": None,
        "mode": "script",
        "file": sha256,
        "file_name": "train.py",
        "args": ["--epochs", "3"],
    }


def test_a_handler_file_travels_beside_its_payload(
    invoke: Invoke, server: ScriptedServer, payload: str, tmp_path: Path
) -> None:
    handler = tmp_path / "handler.py"
    handler.write_text("from hecaton.serverless import start\n")
    sha256 = hashlib.sha256(handler.read_bytes()).hexdigest()
    server.on("HEAD", f"/v1/blobs/{sha256}", Answer(200))
    server.on("POST", "/v1/jobs", SUBMITTED)
    assert invoke("job", "new", payload, "python:3.9-slim", "--handler", str(handler)).code == 0
    sent = server.posted.json()
    assert (sent["mode"], sent["file"], sent["input"]) == ("handler", sha256, {"prompt": "hello"})


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["--script", "--handler", "h.py"], "exclude each other"),
        (["--", "--epochs"], "arguments go to scripts only"),
        (["-o", "result.json"], "--output needs --wait"),
        (["--retries", "-1"], "-1"),
    ],
)
def test_options_that_make_no_sense_together(invoke: Invoke, payload: str, arguments: list[str], fault: str) -> None:
    ended = invoke("job", "new", payload, "img", *arguments)
    assert ended.code == 2
    assert fault in ended.err


def test_a_payload_that_cannot_be_read_is_named(invoke: Invoke, server: ScriptedServer, tmp_path: Path) -> None:
    for path in (tmp_path / "missing.json", tmp_path):
        ended = invoke("job", "new", str(path), "img")
        assert ended.code == 2
        assert str(path) in ended.err
    assert not server.seen


def test_wait_shows_the_log_on_stderr_and_the_result_on_stdout(
    invoke: Invoke, server: ScriptedServer, payload: str
) -> None:
    server.on("POST", "/v1/jobs", SUBMITTED)
    ends_as(
        server,
        finished({"answer": 42}),
        event("state", "IN_QUEUE"),
        event("state", "ASSIGNED", attempt=1),
        event("note", "pulling python:3.9-slim, 40 %", attempt=1),
        event("state", "IN_PROGRESS", attempt=1),
        event("log", "step 1\n", attempt=1, offset=7),
        event("progress", 0.5, attempt=1),
        event("log", "step 2\n", attempt=1, offset=14),
        event("state", "FINISHED", attempt=1),
    )
    ended = invoke("job", "new", payload, "img", "--wait")
    assert ended.code == 0
    assert json.loads(ended.out) == {"answer": 42}
    assert ended.err.splitlines() == [
        "Job 12 is submitted.",
        "IN_QUEUE",
        "ASSIGNED",
        "pulling python:3.9-slim, 40 %",
        "IN_PROGRESS",
        "step 1",
        "step 2",
        "FINISHED",
    ]


def test_a_failed_job_is_explained_and_exits_with_1(invoke: Invoke, server: ScriptedServer) -> None:
    ends_as(server, failed())
    ended = invoke("job", "wait", "12")
    assert (ended.code, ended.out) == (1, "")
    for part in (
        "Job 12 is FAILED: handler_error",
        "ValueError: no such row",
        'File "handler.py", line 7',
        "Look at line 7.",
    ):
        assert part in ended.err


def test_a_cancelled_job_exits_with_3(invoke: Invoke, server: ScriptedServer) -> None:
    ends_as(server, job("CANCELLED", reason="cancelled"))
    assert invoke("job", "wait", "12").code == 3


def test_json_of_a_wait_is_the_whole_job(invoke: Invoke, server: ScriptedServer) -> None:
    ends_as(server, failed())
    ended = invoke("job", "wait", "12", "--json")
    assert ended.code == 1
    assert json.loads(ended.out)["failure"]["type"] == "ValueError"


def test_results_are_printed_as_what_they_are(invoke: Invoke, hecaton: Process, server: ScriptedServer) -> None:
    ends_as(server, finished("a text\n", "text"))
    assert invoke("job", "wait", "12").out == "a text\n"
    ends_as(server, finished(None))
    assert invoke("job", "wait", "12").out == "null\n"


def test_bytes_go_into_a_pipe_and_into_a_file(invoke: Invoke, server: ScriptedServer, tmp_path: Path) -> None:
    data = bytes(range(256)) * 4
    view = job("FINISHED", result_kind="bytes", result_size=len(data), result_base64=base64.b64encode(data).decode())
    ends_as(server, view)
    server.on("GET", f"{PATH}/result", Answer(200, data, {"Content-Type": "application/octet-stream"}))
    target = tmp_path / "result.bin"
    ended = invoke("job", "wait", "12", "--output", str(target))
    assert (ended.code, ended.out, target.read_bytes()) == (0, "", data)
    assert str(target) in ended.err


@pytest.mark.parametrize("size", [2, 65_537, 2**20, 2**20 + 1, 2_000_000])
@pytest.mark.parametrize("here", [True, False], ids=["in the view", "beside it"])
def test_a_result_is_printed_at_every_size(invoke: Invoke, server: ScriptedServer, size: int, here: bool) -> None:
    text = json.dumps("x" * (size - 2))
    view = job("FINISHED", result_kind="json", result_size=size)
    ends_as(server, msgspec.structs.replace(view, result=msgspec.Raw(text.encode())) if here else view)
    server.on("GET", f"{PATH}/result", Answer(200, text.encode(), {"Content-Type": "application/json"}))
    assert invoke("job", "wait", "12").out == text + "\n"
    assert json.loads(invoke("--json", "job", "wait", "12").out)["result"] == json.loads(text)


def test_a_null_with_a_line_end_is_a_null(invoke: Invoke, server: ScriptedServer) -> None:
    ends_as(server, job("FINISHED", result_kind="json", result_size=5))
    server.on("GET", f"{PATH}/result", Answer(200, b"null\n"))
    assert invoke("job", "wait", "12").out == "null\n"


@pytest.mark.parametrize(("kind", "shown"), [("text", ("e\u0301" * 600_000, None)), ("bytes", (None, "/w=="))])
def test_a_large_result_is_in_the_json_too(
    invoke: Invoke, server: ScriptedServer, kind: str, shown: tuple[str | None, str | None]
) -> None:
    text, encoded = shown
    data = text.encode() if text is not None else base64.b64decode(encoded or "")
    ends_as(server, job("FINISHED", result_kind=kind, result_size=len(data)))
    server.on("GET", f"{PATH}/result", Answer(200, data))
    said = json.loads(invoke("--json", "job", "wait", "12").out)
    assert (said["result"], said["result_base64"]) == shown


def test_a_refused_result_is_named_and_written_where_it_is_asked_for(
    invoke: Invoke, server: ScriptedServer, tmp_path: Path
) -> None:
    why = Failure("$.val_loss: NaN is not JSON", hint="Give null in its place.")
    ends_as(server, job("FAILED", reason="result_invalid", failure=why, result_kind="text", result_size=26))
    server.on("GET", f"{PATH}/result", Answer(200, b'{"acc":0.9,"val_loss":NaN}'))
    ended = invoke("job", "wait", "12")
    assert (ended.code, ended.out) == (1, "")
    assert "$.val_loss: NaN" in ended.err
    assert "What it returned is kept (text, 26 B): hecaton job wait 12 -o FILE" in ended.err
    target = tmp_path / "refused"
    ended = invoke("job", "wait", "12", "-o", str(target))
    assert (ended.code, target.read_bytes()) == (1, b'{"acc":0.9,"val_loss":NaN}')
    assert f"What was refused is in {target}" in ended.err


def test_a_wait_can_be_limited(invoke: Invoke, server: ScriptedServer) -> None:
    server.on("GET", "/v1/jobs/12/events", Answer(lines=(event("state", "IN_PROGRESS", attempt=1),), then="hang"))
    ended = invoke("job", "wait", "12", "--timeout", "0.5s")
    assert ended.code == 8
    assert "hecaton job wait 12" in ended.err


def test_a_job_that_waits_in_the_queue_says_why_after_two_seconds(invoke: Invoke, server: ScriptedServer) -> None:
    waiting = [
        {"worker": "gpu-1", "why": "is busy: 1 of 1 slots run other jobs"},
        {"worker": "gpu-2", "why": "is offline"},
    ]
    server.on("GET", "/v1/jobs/12", reply(job(waiting=waiting)))
    server.on("GET", "/v1/jobs/12/events", Answer(lines=(event("state", "IN_QUEUE"),), then="hang"))
    ended = invoke("job", "wait", "12", "--timeout", "3s")
    assert "Waiting, because:\n  gpu-1 is busy: 1 of 1 slots run other jobs\n  gpu-2 is offline\n" in ended.err


def test_job_show_has_id_status_payload_and_index(invoke: Invoke, server: ScriptedServer) -> None:
    server.on("GET", "/v1/jobs/12", reply(finished({"answer": 42})))
    lines = invoke("job", "show", "12").out.splitlines()
    fields = {line.split("  ")[0]: line.split("  ")[-1].strip() for line in lines if line and line[0] != " "}
    assert fields["id"] == JOB_ID
    assert (fields["index"], fields["status"], fields["worker"]) == ("12", "FINISHED", "gpu-1")
    assert '  "prompt": "hello"' in "\n".join(lines)
    assert '  "answer": 42' in "\n".join(lines)


def test_a_script_has_no_payload_to_show(invoke: Invoke, server: ScriptedServer) -> None:
    waiting = [{"worker": "gpu-1", "why": "is draining"}]
    server.on("GET", "/v1/jobs/12", reply(job(mode="script", file_name="t.py", waiting=waiting, queue_position=1)))
    shown = invoke("job", "show", "12").out
    assert "payload" not in shown
    assert "1 job is before it" in shown


def test_job_show_of_a_waiting_job_says_why_worker_by_worker(invoke: Invoke, server: ScriptedServer) -> None:
    waiting = [{"worker": "gpu-1", "why": "is draining"}, {"worker": "evil\nworker\x1b[2J", "why": "is offline"}]
    server.on(
        "GET",
        "/v1/jobs/12",
        reply(job(waiting=waiting, queue_position=3)),
        reply(job(waiting=[{"worker": "*", "why": "no worker is connected"}])),
        reply(job()),
    )
    shown = invoke("job", "show", "12").out
    assert "why it waits\n  gpu-1 is draining\n" in shown
    assert "3 jobs are before it" in shown
    assert "\x1b" not in shown
    assert "why it waits\n  no worker is connected" in invoke("job", "show", "12").out
    assert "no worker is registered yet" in invoke("job", "show", "12").out


def test_job_show_of_a_failed_job_has_reason_traceback_log_hint_and_attempts(
    invoke: Invoke, server: ScriptedServer
) -> None:
    attempts = [
        {
            "number": 1,
            "worker": "gpu-1",
            "assigned_at": 1.0,
            "ended_at": 3.5,
            "reason": "handler_exit",
            "exit_code": 3,
            "log_tail": "\n".join(f"early \x1b[2J{number}" for number in range(50)),
        },
        {"number": 2, "worker": "gpu-2", "assigned_at": 5.0, "ended_at": 6.0, "reason": "handler_error"},
    ]
    server.on("GET", "/v1/jobs/12", reply(failed(log_tail="row 7\n\x1b]0;x\x07row 8\n", attempts=attempts, attempt=2)))
    shown = invoke("job", "show", "12").out
    for part in (
        "handler_error",
        "ValueError: no such row",
        "line 7, in draw",
        "Look at line 7.",
        "  row 7\n  row 8\n",
    ):
        assert part in shown
    [first, *early, second] = shown.partition("\nattempts\n")[2].splitlines()
    assert first.startswith("  1  gpu-1  handler_exit after 2.50 s, ")
    assert first.endswith(" d ago, exit code 3")
    assert early == [f"     | early {number}" for number in range(45, 50)]
    assert second.startswith("  2  gpu-2  handler_error after 1.00 s, ")


def test_job_show_of_a_job_that_waits_again_says_what_became_of_its_attempt(
    invoke: Invoke, server: ScriptedServer
) -> None:
    lost = {"number": 1, "worker": "gpu-1", "assigned_at": 1.0, "ended_at": 61.0, "reason": "worker_lost"}
    server.on("GET", "/v1/jobs/12", reply(job(attempt=1, attempts=[lost | {"log_tail": "epoch 7"}])))
    [first, log] = invoke("job", "show", "12").out.partition("\nattempts\n")[2].splitlines()
    assert first.startswith("  1  gpu-1  worker_lost after 1 min")
    assert log == "     | epoch 7"


def test_job_show_says_why_a_job_waits_at_the_worker_that_has_it(invoke: Invoke, server: ScriptedServer) -> None:
    waiting = [{"worker": "gpu-1", "why": "has it already, behind 3 jobs on the same slot"}]
    server.on("GET", "/v1/jobs/12", reply(job("ASSIGNED", waiting=waiting)))
    shown = invoke("job", "show", "12").out
    assert "why it waits\n  gpu-1 has it already, behind 3 jobs on the same slot\n" in shown


def test_large_payloads_are_described_instead_of_shown(invoke: Invoke, server: ScriptedServer) -> None:
    large: dict[str, Any] = {"payload": None, "payload_kind": "bytes", "payload_size": 5 << 20}
    server.on("GET", "/v1/jobs/12", reply(finished(1, **large)))
    assert "(bytes, 5.0 MiB)" in invoke("job", "show", "12").out


def test_an_unknown_job_is_named(invoke: Invoke, server: ScriptedServer) -> None:
    server.on("GET", "/v1/jobs/99", error(404, "not_found", "there is no job 99"))
    ended = invoke("job", "show", "99")
    assert (ended.code, ended.err) == (6, "Error: there is no job 99\n")


def test_job_list_is_a_table_and_pages_on(invoke: Invoke, server: ScriptedServer) -> None:
    pages = [{"jobs": [summary(finished(1))], "next": "more"}, {"jobs": [summary(failed())], "next": None}]
    server.on("GET", "/v1/jobs", *map(reply, pages))
    lines = invoke("job", "list", "--all").out.splitlines()
    assert lines[0].split() == ["#", "STATUS", "JOB", "IMAGE", "SUBMITTED", "RAN", "WORKER", "OWNER", "ID"]
    assert [line.split("  ")[1] for line in lines[1:]] == ["FINISHED", "FAILED (handler_error)"]
    assert server.seen[-1].query["before"] == "more"


def test_job_list_is_limited_and_filtered(invoke: Invoke, server: ScriptedServer) -> None:
    server.on("GET", "/v1/jobs", reply({"jobs": [summary(finished(1))] * 3, "next": "more"}))
    assert len(json.loads(invoke("job", "list", "--limit", "3", "--state", "finished", "--json").out)) == 3
    assert server.seen[-1].query == {"state": "FINISHED", "limit": "3"}
    assert len(server.seen) == 1


def test_jobs_are_told_apart_by_what_they_are_called_or_run(invoke: Invoke, server: ScriptedServer) -> None:
    script: dict[str, Any] = {"mode": "script", "file_name": "train.py", "args": ["--lr", "0.1", "two words"]}
    views = [job(name="lr-0.1", tags={"team": "vision"}, **script), job(**script), job()]
    server.on("GET", "/v1/jobs", reply({"jobs": list(map(summary, views)), "next": None}))
    ended = invoke("job", "list", "--tag", "team=vision", "--name", "lr-0.1")
    assert server.seen[-1].query == {"limit": "20", "tag": "team=vision", "name": "lr-0.1"}
    assert [re.split("  +", line)[2] for line in ended.out.splitlines()] == [
        "JOB", "lr-0.1: train.py --lr 0.1 'two words'", "train.py --lr 0.1 'two words'", "-",
    ]  # fmt: skip
    assert [re.split("  +", line)[7] for line in ended.out.splitlines()] == ["TAGS", "team=vision", "-", "-"]
    server.on("GET", "/v1/jobs/12", reply(views[0]))
    shown = invoke("job", "show", "12").out
    assert re.search(r"^name +lr-0.1\nruns +train.py --lr 0.1 'two words'\ntags +team=vision$", shown, re.MULTILINE)
    [first, *_] = json.loads(invoke("job", "list", "--json").out)
    assert (first["name"], first["args"], first["tags"]) == ("lr-0.1", script["args"], {"team": "vision"})


def test_people_are_told_numbers_and_scripts_ids(server: ScriptedServer, payload: str) -> None:
    server.on("POST", "/v1/jobs", SUBMITTED)
    with Terminal([str(HECATON), "job", "new", payload, "img"]) as terminal:
        assert terminal.end() == 0
        assert terminal.seen == f"Job 12 is submitted: hecaton job wait 12\r\n{JOB_ID}\r\n"


def test_what_a_job_repeats_is_said_by_its_number_while_that_is_there(invoke: Invoke, server: ScriptedServer) -> None:
    server.on("GET", "/v1/jobs/13", reply(job(id=AGAIN, index=13, retry_of=JOB_ID)))
    server.on("GET", f"/v1/jobs/{JOB_ID}", reply(job()))
    assert re.search(r"^retry of +12$", invoke("job", "show", "13").out, re.MULTILINE)
    server.on("GET", f"/v1/jobs/{JOB_ID}", error(404, "not_found", "no such job"))
    assert re.search(rf"^retry of +{JOB_ID}$", invoke("job", "show", "13").out, re.MULTILINE)


def test_a_job_is_called_and_tagged_when_it_is_submitted(invoke: Invoke, server: ScriptedServer, payload: str) -> None:
    server.on("POST", "/v1/jobs", SUBMITTED)
    server.on("POST", "/v1/batches", reply({"id": JOB_ID, "index": 3, "size": 1, "closed": True}, 201))
    typed = ["--name", "lr-0.1", "--tag", "team=vision", "--tag", "lr=0.1"]
    assert invoke("job", "new", payload, "img", *typed).code == 0
    sent = server.posted.json()
    assert (sent["name"], sent["tags"]) == ("lr-0.1", {"team": "vision", "lr": "0.1"})
    assert invoke("job", "new", "--each", payload, "img", *typed).code == 0
    assert server.posted.json()["tags"] == {"team": "vision", "lr": "0.1"}
    assert invoke("job", "new", payload, "img", "--tag", "vision").code == 2


def test_variables_of_a_job_are_given_or_taken_from_here_and_their_values_not_shown(
    invoke: Invoke, server: ScriptedServer, payload: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.on("POST", "/v1/jobs", SUBMITTED)
    monkeypatch.setenv("TOKEN_OF_MINE", "s3cret")
    assert invoke("job", "new", payload, "img", "-e", "SEED=7", "--env", "TOKEN_OF_MINE").code == 0
    assert server.posted.json()["env"] == {"SEED": "7", "TOKEN_OF_MINE": "s3cret"}
    missing = invoke("job", "new", payload, "img", "-e", "NOT_SET_ANYWHERE")
    assert (missing.code, "NOT_SET_ANYWHERE is not set here" in missing.err) == (2, True)
    server.on("GET", "/v1/jobs/12", reply(job(env={"SEED": "7", "TOKEN_OF_MINE": "s3cret"})))
    shown = invoke("job", "show", "12").out
    assert re.search(r"^environment +SEED, TOKEN_OF_MINE$", shown, re.MULTILINE)
    assert "s3cret" not in shown


def test_jobs_with_a_tag_are_cancelled_together(invoke: Invoke, server: ScriptedServer) -> None:
    pages = {"IN_QUEUE": [job(index=7)], "ASSIGNED": [], "IN_PROGRESS": [job("IN_PROGRESS", index=5)]}

    def page(seen: Seen) -> Answer:
        assert seen.query["tag"] == "team=vision"
        return reply({"jobs": list(map(summary, pages[seen.query["state"]])), "next": None})

    server.on("GET", "/v1/jobs", page)
    for number in (5, 7):
        server.on("POST", f"/v1/jobs/{number}/cancel", reply(job("CANCELLED", index=number)))
    assert invoke("job", "cancel", "--tag", "team=vision").err == "Job 7 is CANCELLED.\nJob 5 is CANCELLED.\n"
    pages = {state: [] for state in pages}
    assert invoke("job", "cancel", "--tag", "team=vision").err == "No job with the tag team=vision waits or runs.\n"
    assert invoke("job", "cancel").code == 2


def test_ps_shows_what_has_not_ended_and_all_when_asked(invoke: Invoke, server: ScriptedServer) -> None:
    pages = {"IN_QUEUE": [job(index=7)], "ASSIGNED": [], "IN_PROGRESS": [job("IN_PROGRESS", index=9)]}
    ended = [job("FINISHED", index=11)]
    server.on(
        "GET", "/v1/jobs",
        lambda seen: reply({"jobs": list(map(summary, pages.get(seen.query.get("state", ""), ended))), "next": None}),
    )  # fmt: skip
    assert [line.split()[0] for line in invoke("ps").out.splitlines()[1:]] == ["9", "7"]
    assert [line.split()[0] for line in invoke("ps", "-a").out.splitlines()[1:]] == ["11"]
    assert [one["index"] for one in json.loads(invoke("ps", "--json").out)] == [9, 7]
    pages = {state: [] for state in pages}
    assert invoke("ps").err == "No job waits or runs. Those that have ended: hecaton ps -a\n"
    nothing = invoke("ps", "--tag", "team=vision").err
    assert nothing == "No job with the tag team=vision waits or runs. Those that have ended: hecaton ps -a\n"


def test_ps_is_about_ones_own_jobs_and_an_admin_asks_for_everybodys(invoke: Invoke, server: ScriptedServer) -> None:
    server.on("GET", "/v1/jobs", reply({"jobs": [], "next": None}))
    for typed, whose in ((("ps",), "mine"), (("ps", "-a"), "mine"), (("ps", "--all-users"), "all"),
                         (("cancel", "--tag", "a=b"), "mine"), (("job", "list"), None)):  # fmt: skip
        server.seen.clear()
        assert invoke(*typed).code == 0
        assert {seen.query.get("whose") for seen in server.asked("GET", "/v1/jobs")} == {whose}, typed


@pytest.mark.parametrize(
    ("states", "code"),
    [(("FINISHED", "FINISHED"), 0), (("FAILED", "CANCELLED"), 1), (("CANCELLED", "FINISHED"), 3)],
)
def test_several_jobs_are_waited_for_and_the_worst_tells(
    invoke: Invoke, server: ScriptedServer, states: tuple[str, ...], code: int
) -> None:
    for number, state in zip((7, 9), states, strict=True):
        view = job(state, index=number, id=JOB_ID[:-1] + str(number))
        server.on("GET", f"/v1/jobs/{number}", reply(view))
        server.on("GET", f"/v1/jobs/{view.id}", reply(view))
    ended = invoke("wait", "7", "9")
    assert (ended.code, ended.out) == (code, "")
    assert ended.err.splitlines() == [f"Job 7 is {states[0]}", f"Job 9 is {states[1]}"]
    assert [one["state"] for one in json.loads(invoke("wait", "7", "9", "--json").out)] == list(states)
    assert invoke("wait", "7", "9", "-o", "x").code == 2
    server.on("GET", "/v1/jobs/8", error(404, "not_found", "no job '8'"))
    server.seen.clear()
    assert invoke("wait", "7", "8").code == 6
    assert all("wait" not in seen.query for seen in server.seen), "known before anything is waited for"


def test_what_is_done_daily_needs_no_noun(invoke: Invoke, server: ScriptedServer) -> None:
    server.on("POST", "/v1/jobs/12/cancel", reply(job("CANCELLED", index=12)))
    assert invoke("cancel", "12").err == invoke("job", "cancel", "12").err == "Job 12 is CANCELLED.\n"


def test_several_tags_are_asked_for_together(invoke: Invoke, server: ScriptedServer) -> None:
    server.on("GET", "/v1/jobs", reply({"jobs": [], "next": None}))
    two = ("--tag", "team=vision", "--tag", "lr=0.1")
    assert invoke("job", "list", *two).err == "No job is called or tagged team=vision, lr=0.1.\n"
    assert server.seen[-1].query["tag"] == "team=vision lr=0.1"
    assert invoke("job", "cancel", *two).err == "No job with the tag team=vision, lr=0.1 waits or runs.\n"
    assert {seen.query["tag"] for seen in server.seen} == {"team=vision lr=0.1"}


def test_logs_go_to_stdout_as_they_are_when_it_is_no_terminal(invoke: Invoke, server: ScriptedServer) -> None:
    server.on("GET", "/v1/jobs/12/logs", Answer(200, b"\x1b[32mgreen\x1b[0m\r\n", {"Content-Type": "text/plain"}))
    assert invoke("job", "logs", "12").out == "\x1b[32mgreen\x1b[0m\r\n"
    assert json.loads(invoke("job", "logs", "12", "--attempt", "2", "--json").out)["log"].startswith("\x1b")
    assert server.seen[-1].query == {"attempt": "2"}


def test_followed_logs_end_with_the_job(invoke: Invoke, server: ScriptedServer) -> None:
    ends_as(server, finished(1), event("log", "one\n", attempt=1, offset=4), event("log", "two\n", attempt=1, offset=8))
    assert invoke("job", "logs", "-f", "12").out == "one\ntwo\n"


def test_cancel_says_what_became_of_the_job(invoke: Invoke, server: ScriptedServer) -> None:
    running = job("IN_PROGRESS", cancel_requested=True)
    server.on("POST", "/v1/jobs/12/cancel", reply(job("CANCELLED")), reply(running))
    assert invoke("job", "cancel", "12").err == "Job 12 is CANCELLED.\n"
    assert "told to stop" in invoke("job", "cancel", "12").err


def test_several_jobs_are_cancelled_at_once_and_one_that_is_not_there_holds_up_none(
    invoke: Invoke, server: ScriptedServer
) -> None:
    for number in (1, 3):
        server.on("POST", f"/v1/jobs/{number}/cancel", reply(job("CANCELLED", index=number)))
    ended = invoke("job", "cancel", "1", "2", "3")
    assert ended.code == 6
    assert [line.split(".")[0] for line in ended.err.splitlines()] == [
        "Job 1 is CANCELLED", "Error: no route POST /v1/jobs/2/cancel", "Job 3 is CANCELLED",
    ]  # fmt: skip
    assert [view["index"] for view in json.loads(invoke("job", "cancel", "1", "3", "--json").out)] == [1, 3]


def test_retry_prints_the_new_id(invoke: Invoke, server: ScriptedServer) -> None:
    server.on("POST", "/v1/jobs/11/retry", reply({"id": JOB_ID, "index": 12}, 201))
    assert invoke("job", "retry", "11").out == JOB_ID + "\n"
    assert server.seen[-1].body == b""
    assert invoke("job", "retry", "11", "--timeout", "2h", "--retries", "0").code == 0
    assert server.posted.json() == {"timeout": 7200, "retries": 0}
