"""What one sees of jobs: bars, silent servers, causes once, times that add up; and streams that cannot show it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from hecaton.client import profiles
from hecaton.wire.home import home as hecaton_home
from tests.cli.conftest import HECATON, Invoke, Process
from tests.cli.screen import Terminal
from tests.cli.test_jobs import PATH, ends_as, event
from tests.cli.views import failed, finished, job, summary
from tests.client.scripted import Answer, ScriptedServer, reply

# -- bars ------------------------------------------------------------------------------------------


def _bar(*percent: int) -> str:
    return "".join(f"\r{one:>3}%" for one in percent)


def test_a_progress_bar_is_one_line(server: ScriptedServer) -> None:
    ends_as(
        server,
        finished(1),
        event("state", "IN_PROGRESS", attempt=1),
        event("log", _bar(1, 2), attempt=1, offset=10),
        event("log", _bar(3, 100), attempt=1, offset=20),
        event("log", "\nsaved\n", attempt=1, offset=30),
    )
    with Terminal([str(HECATON), "job", "wait", "12"]) as terminal:
        assert terminal.end() == 0
        shown = terminal.seen
    assert shown.count("100%\r\n") == 1
    assert "saved\r\n" in shown
    assert re.search(r"IN_PROGRESS +\d+ ms +  2%", shown), "it stands in the status line until it ends"
    assert not re.search(r"  [123]%\r?\n", shown)


def test_a_printed_log_writes_its_bars_over_and_ends_with_a_line(server: ScriptedServer) -> None:
    log = _bar(1, 2, 100).encode() + b"\nno end"
    server.on("GET", "/v1/jobs/12/logs", Answer(200, log, {"Content-Type": "text/plain"}))
    with Terminal([str(HECATON), "job", "logs", "12"]) as terminal:
        assert terminal.end() == 0
        assert terminal.seen == "\r  1%\r  2%\r100%\r\nno end\r\n"


# -- a server that does not answer -----------------------------------------------------------------


def test_a_server_that_is_away_is_said_and_so_is_its_return(server: ScriptedServer) -> None:
    gone = Answer(lines=(event("state", "IN_PROGRESS", attempt=1),), then="close")
    back = Answer(lines=(event("end", finished(1)),))
    started = time.monotonic()

    def away(_: Any) -> Answer:
        return Answer(503) if time.monotonic() - started < 5 else back

    server.on("GET", f"{PATH}/events", gone, away)
    server.on("GET", "/v1/jobs/12/events", gone, away)
    server.on("GET", "/v1/jobs/12", reply(finished(1)))
    with Terminal([str(HECATON), "job", "wait", "12"]) as terminal:
        terminal.until(r"the server has not answered for 3\.\d\d s, trying again")
        assert terminal.end() == 0


def test_without_a_terminal_it_is_said_once(invoke: Invoke, server: ScriptedServer) -> None:
    gone = Answer(lines=(event("state", "IN_PROGRESS", attempt=1),), then="close")
    server.on("GET", "/v1/jobs/12/events", gone, Answer(503))
    ended = invoke("job", "wait", "12", "--timeout", "6s")
    assert ended.code == 8
    assert ended.err.count("the server has not answered for") == 1


# -- causes and results ----------------------------------------------------------------------------

TRACEBACK = 'Traceback (most recent call last):\n  File "h.py", line 7, in draw\nValueError: no such row\n'


def test_a_traceback_is_shown_once(invoke: Invoke, server: ScriptedServer) -> None:
    failure = {"message": "no such row", "type": "ValueError", "traceback": TRACEBACK}
    view = failed(failure=failure, log_tail=f"begin\n{TRACEBACK}")
    ends_as(server, view, event("log", f"begin\n{TRACEBACK}", attempt=1, offset=99))
    assert invoke("job", "wait", "12").err.count("Traceback") == 1
    server.on("GET", "/v1/jobs/12", reply(view))
    assert invoke("job", "show", "12").out.count("Traceback") == 1
    ends_as(server, failed(failure=failure))
    assert invoke("job", "wait", "12").err.count("Traceback") == 1, "the log may have had nothing of it"


def test_a_script_s_last_lines_are_shown_once(invoke: Invoke, server: ScriptedServer) -> None:
    message = f"the script ended with exit code 1. Its last lines:\n{TRACEBACK}"
    view = failed(message, reason="script_exit", mode="script", failure={"message": message}, log_tail=TRACEBACK)
    ends_as(server, view, event("log", TRACEBACK, attempt=1, offset=99))
    ended = invoke("job", "wait", "12")
    assert ended.err.count("no such row") == 1
    assert "Job 12 is FAILED: script_exit\nthe script ended with exit code 1\n" in ended.err
    server.on("GET", "/v1/jobs/12", reply(view))
    assert invoke("job", "show", "12").out.count("no such row") == 1


def test_a_module_that_the_image_lacks_gets_a_hint(invoke: Invoke, server: ScriptedServer) -> None:
    lost = {"message": "No module named 'helper'", "type": "ModuleNotFoundError"}
    ends_as(server, failed(failure=lost))
    assert "The image has no module helper: it has to be installed there." in invoke("job", "wait", "12").err


def test_a_script_without_a_result_prints_nothing(invoke: Invoke, server: ScriptedServer) -> None:
    ends_as(server, finished(None, mode="script"))
    assert invoke("job", "wait", "12").out == ""
    ends_as(server, finished([None], mode="script"))
    assert invoke("job", "wait", "12").out == "[\n  null\n]\n"


def test_times_add_up_over_all_attempts(invoke: Invoke, server: ScriptedServer) -> None:
    now = time.time()
    attempts = [
        {"number": 1, "worker": "a", "assigned_at": now - 99, "started_at": now - 97, "ended_at": now - 60,
         "reason": "worker_lost"},
        {"number": 2, "worker": "b", "assigned_at": now - 50, "started_at": now - 47, "ended_at": now - 10,
         "reason": "ok"},
    ]  # fmt: skip
    view = finished(
        1, created_at=now - 100, assigned_at=now - 50, started_at=now - 47, ended_at=now - 10, attempts=attempts
    )
    server.on("GET", "/v1/jobs/12", reply(view))
    shown = invoke("job", "show", "12").out
    assert re.search(r"^in the queue  11 s\nstarting      5\.00 s\nrunning       1 min 14 s$", shown, re.MULTILINE)


def test_what_a_worker_does_for_a_job_is_shown_until_that_has_ended(invoke: Invoke, server: ScriptedServer) -> None:
    server.on("GET", "/v1/jobs/12", reply(job("FINISHED", note="sending its files")))
    assert "doing" not in invoke("job", "show", "12").out
    server.on("GET", "/v1/jobs/12", reply(job("IN_PROGRESS", note="sending its files")))
    assert "sending its files" in invoke("job", "show", "12").out
    server.on("GET", "/v1/jobs/12", reply(job("ASSIGNED", note="fetching the job's file")))
    assert "fetching the job's file" in invoke("job", "show", "12").out


@pytest.mark.parametrize("hours", [1, -1])
def test_ages_are_those_of_the_server_s_clock(invoke: Invoke, server: ScriptedServer, hours: int) -> None:
    """A laptop whose clock is wrong: seen from it, the server's is."""
    there = time.time() + hours * 3600
    dated = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(there))
    view = job("IN_PROGRESS", created_at=there - 600, assigned_at=there - 300, started_at=there - 300)
    page = {"jobs": [summary(view)], "next": None}
    server.on("GET", "/v1/jobs", reply(page, Date=dated))
    [_, row] = invoke("job", "list").out.splitlines()
    assert re.search(r"(9|10) min ago +(4 min 5\d|5 min \d) s ", row), row


# -- streams, names and homes ----------------------------------------------------------------------


def _shell(line: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    ours = {**os.environ, "HECATON": str(HECATON), **environment}
    return subprocess.run(["/bin/sh", "-c", line], env=ours, capture_output=True, timeout=60, check=False)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_finished_job_is_never_said_to_have_failed_because_a_stream_is_closed(
    server: ScriptedServer, closed: str
) -> None:
    ends_as(server, finished({"answer": 42}))
    done = _shell(f'"$HECATON" job wait 12 {closed}')
    assert done.returncode == 0
    assert (b"42" in done.stdout) == (">&- " not in f"{closed} ".replace("2>&-", ""))


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_a_terminal_that_lacks_characters_gets_them_escaped(server: ScriptedServer, encoding: str) -> None:
    ends_as(server, finished({"name": "Zoë 手"}))
    done = _shell('"$HECATON" job wait 12', PYTHONIOENCODING=encoding)
    assert done.returncode == 0
    assert json.loads(done.stdout.decode(encoding)) == {"name": "Zoë 手"}
    ends_as(server, finished("Zoë 手", "text"))
    assert _shell('"$HECATON" job wait 12', PYTHONIOENCODING=encoding).stdout.decode() == "Zoë 手"
    server.on("GET", "/v1/jobs", reply({"jobs": [summary(finished(1, image="手"))], "next": None}))
    assert _shell('"$HECATON" job list', PYTHONIOENCODING=encoding).returncode == 0


BAD = os.fsdecode(b"caf\xe9")


@pytest.mark.parametrize(
    "arguments",
    [
        ["job", "show", BAD], ["job", "new", "p.json", BAD], ["job", "new", f"{BAD}.py", "img", "--script"],
        ["job", "new", "t.py", "img", "--script", "--", BAD], ["job", "new", "--each", "p.json", "img", "--name", BAD],
        ["batch", "show", BAD], ["image", "new", "img", "--desc", BAD], ["worker", "drain", BAD],
        ["server", "login", "my-server", "--username", BAD, "--password", "x"],
    ],
    ids=lambda arguments: " ".join(arguments).encode("ascii", "replace").decode(),
)  # fmt: skip
def test_names_and_arguments_that_are_no_text_are_one_clear_line(
    invoke: Invoke, server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("p.json", "t.py", f"{BAD}.py"):
        Path(name).write_text("1")
    take = server.take
    monkeypatch.setattr(server, "take", lambda seen: Answer(200) if "/blobs/" in seen.path else take(seen))
    ended = invoke(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert "caf\\udce9" in ended.err
    assert "not UTF-8" in ended.err
    assert len(ended.err.splitlines()) == 2


def test_without_a_home_it_says_what_to_set() -> None:
    """As in a container that runs under a number without an account."""
    code = (
        "import os, platformdirs, platformdirs.unix, hecaton.client.profiles, hecaton.cli.hecaton.nouns.servers\n"
        "from hecaton.cli.hecaton.main import run\n"
        "os.setuid(54321)\n"  # who may perhaps read no module any more
        "raise SystemExit(run(['server', 'list']))"
    )
    bare = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [str(HECATON.with_name("python")), "-c", code], env=bare, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[1] == "Set HECATON_HOME to a folder."


# -- servers ---------------------------------------------------------------------------------------


def test_an_address_names_a_server_that_is_not_registered(
    invoke: Invoke, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.on("GET", "/v1/jobs", reply({"jobs": [], "next": None}))
    profiles.remove("my-server")
    monkeypatch.setenv("HECATON_SERVER", server.url)
    monkeypatch.setenv("HECATON_TOKEN", "of-mine")
    assert invoke("job", "list").code == 0
    assert server.seen[-1].headers["authorization"] == "Bearer of-mine"
    monkeypatch.delenv("HECATON_SERVER")
    assert invoke("job", "list", "--server", server.address).code == 0
    assert not (hecaton_home() / "client" / "servers.json").exists() or profiles.all_servers() == []


def test_an_address_that_is_registered_brings_its_token(invoke: Invoke, server: ScriptedServer) -> None:
    server.on("GET", "/v1/jobs", reply({"jobs": [], "next": None}))
    assert invoke("job", "list", "--server", server.url).code == 0
    assert server.seen[-1].headers["authorization"] == "Bearer secret"


def test_a_server_that_does_not_answer_does_not_become_the_active_one(invoke: Invoke, server: ScriptedServer) -> None:
    ended = invoke("server", "new", "--ip", "localhost:1", "--name", "dead")
    assert ended.code == 0
    assert "my-server stays the active one" in ended.err
    active = profiles.active()
    assert active is not None
    assert active.name == "my-server"


def test_a_login_without_a_name_is_that_of_the_active_server(invoke: Invoke, server: ScriptedServer) -> None:
    token = {"token": "t", "username": "ann", "role": "user", "expires_at": 1.0}
    server.on("POST", "/v1/login", reply(token))
    ended = invoke("server", "login", "--username", "ann", "--password", "pw")
    assert (ended.code, ended.err) == (0, "Logged in to my-server as ann (user).\n")


def test_the_first_list_says_how_to_begin(invoke: Invoke, server: ScriptedServer) -> None:
    server.on("GET", "/v1/jobs", reply({"jobs": [], "next": None}))
    assert invoke("job", "list").err == "No jobs yet. Submit one: hecaton job new FILE IMAGE\n"
    assert invoke("job", "list", "--state", "failed").err == "No job is FAILED.\n"


def test_ctrl_c_ends_the_line_that_the_terminal_has_begun(server: ScriptedServer) -> None:
    server.on("GET", "/v1/jobs/12/events", Answer(lines=(event("log", "one\n", attempt=1, offset=4),), then="hang"))
    with Terminal([str(HECATON), "job", "logs", "-f", "12"]) as terminal:
        terminal.until("one")
        terminal.type("\x03")
        terminal.until(r"\^C\r\nInterrupted\.")


def test_the_shell_knows_what_shells_know(hecaton: Process, server: ScriptedServer) -> None:
    assert "Usage: hecaton job" in hecaton(input="? job\nclear\nexit\n").stdout
