"""`hecaton` alone: a conversation on a terminal, a script of commands from a pipe."""

from __future__ import annotations

import stat
from pathlib import Path

from hecaton.client import profiles
from tests.cli.conftest import HECATON, Process
from tests.cli.screen import Terminal
from tests.cli.views import finished, image, summary
from tests.client.scripted import ScriptedServer, error, reply

PROMPT = r"hecaton \(my-server\)>"


def test_the_shell_greets_names_its_server_and_runs_commands(server: ScriptedServer) -> None:
    server.on("GET", "/v1/images", reply([image()]))
    with Terminal([str(HECATON)]) as terminal:
        terminal.until("your jobs, many hands")
        terminal.until(PROMPT)
        terminal.type("image list\r")
        terminal.until("python:3.9-slim")
        terminal.until(PROMPT)
        terminal.type("server disconnect\r")
        terminal.until("hecaton>")
        terminal.type("exit\r")
        assert terminal.end() == 0


def test_the_shell_goes_on_after_errors_and_ctrl_c_and_leaves_with_ctrl_d(server: ScriptedServer) -> None:
    server.on("GET", "/v1/jobs/7", error(404, "not_found", "there is no job 7"))
    with Terminal([str(HECATON)]) as terminal:
        terminal.until(PROMPT)
        terminal.type("job show 7\r")
        terminal.until("there is no job 7")
        terminal.until(PROMPT)
        terminal.type('job show "unclosed\r')
        terminal.until("cannot read this line")
        terminal.until(PROMPT)
        terminal.type("half a line\x03")
        terminal.until(PROMPT)
        terminal.type("help\r")
        terminal.until("Exit codes:")
        terminal.until(PROMPT)
        terminal.type("\x04")
        assert terminal.end() == 0


def test_tab_completes_commands_and_names_of_the_live_server(server: ScriptedServer) -> None:
    server.on("GET", "/v1/images", reply([image("mandelbrot:v2")]))
    with Terminal([str(HECATON)]) as terminal:
        terminal.until(PROMPT)
        terminal.type("image sho\t")
        terminal.until("w")
        terminal.type(" mand\t")
        terminal.until("elbrot:v2")
        server.on("GET", "/v1/images/mandelbrot%3Av2", reply(image("mandelbrot:v2", description="it is this one")))
        terminal.type("\r")
        terminal.until("it is this one")
        terminal.until(PROMPT)
        terminal.type("\x04")
        assert terminal.end() == 0


def test_history_is_kept_in_a_private_file_and_without_passwords(server: ScriptedServer, home: Path) -> None:
    server.on("POST", "/v1/users", error(409, "conflict", "there is a user bob"))
    server.on("GET", "/v1/jobs", reply({"jobs": [], "next": None}))
    with Terminal([str(HECATON)]) as terminal:
        for line, answer in (
            ("job list", "No jobs yet"),
            ("user create --username bob --password hunter2", "a user bob"),
        ):
            terminal.until(PROMPT)
            terminal.type(line + "\r")
            terminal.until(answer)
        terminal.until(PROMPT)
        terminal.type("\x04")
        assert terminal.end() == 0
    history = home / "client" / "history"
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    assert "job list" in history.read_text()
    assert "hunter2" not in history.read_text()


def test_commands_from_a_pipe_run_one_after_another(hecaton: Process, server: ScriptedServer) -> None:
    server.on("GET", "/v1/jobs", reply({"jobs": [summary(finished(1))], "next": None}))
    done = hecaton(input="# what is there\njob list --json\n\nhecaton server token\n")
    assert done.returncode == 0
    assert done.stdout.endswith("]\nsecret\n")
    assert done.stderr == ""


def test_a_script_of_commands_ends_at_the_first_that_fails(hecaton: Process, server: ScriptedServer) -> None:
    done = hecaton(input="server connect nowhere\nserver token\n")
    assert (done.returncode, done.stdout) == (6, "")
    assert hecaton(input="exit\nserver connect nowhere\n").returncode == 0


def test_missing_options_are_asked_for_and_a_password_is_not_shown(server: ScriptedServer) -> None:
    token = {"token": "fresh", "username": "ann", "role": "user", "expires_at": 0.0}
    server.on("POST", "/v1/login", reply(token))
    with Terminal([str(HECATON), "server", "login", "my-server"]) as terminal:
        terminal.until("Username: ")
        terminal.type("ann\r")
        terminal.until("Password: ")
        terminal.type("hunter2\r")
        assert terminal.end() == 0
        assert "hunter2" not in terminal.seen
    assert server.seen[-1].json() == {"username": "ann", "password": "hunter2"}
    assert profiles.get("my-server").token == "fresh"


def test_deletion_asks_on_a_terminal(server: ScriptedServer) -> None:
    with Terminal([str(HECATON), "user", "delete", "bob"]) as terminal:
        terminal.until(r"Delete the user bob\?.*: ")
        terminal.type("n\r")
        assert terminal.end() == 130
    assert not server.seen
