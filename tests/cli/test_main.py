"""The outermost layer: start-up, help, errors and exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from hecaton import __version__
from hecaton.cli import output
from hecaton.core import errors
from tests.cli.conftest import HECATON, Invoke, Process
from tests.client.scripted import HANG, ScriptedServer, error, reply

HEAVY = {"urllib3", "rich", "msgspec", "prompt_toolkit", "hecaton.client", "asyncio"}


def test_the_version_is_printed_without_loading_what_it_does_not_need() -> None:
    code = (
        "import sys; from hecaton.cli.hecaton.main import run; assert run(['--version']) == 0;"
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"hecaton {__version__}\n"
    assert not HEAVY & set(done.stderr.split())


def test_plain_output_needs_no_rich(server: ScriptedServer) -> None:
    server.on("GET", "/v1/jobs", reply({"jobs": [], "next": None}))
    code = "import sys; from hecaton.cli.hecaton.main import run; assert run(['job', 'list']) == 0; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"rich", "prompt_toolkit", "asyncio"} & set(done.stdout.split())


def test_help_lists_the_nouns_and_the_exit_codes(hecaton: Process) -> None:
    done = hecaton("--help")
    assert done.returncode == 0
    for noun in ("server", "user", "worker", "image", "job", "demo", "completion"):
        assert f"  {noun} " in done.stdout
    for code, meaning, _ in output.EXIT_CODES:
        assert f"{code:<4} {meaning}" in done.stdout


def test_a_typo_gets_a_suggestion_and_exit_code_2(invoke: Invoke) -> None:
    ended = invoke("job", "lsit")
    assert ended.code == 2
    assert ended.out == ""
    assert ended.err.splitlines() == ["Error: No such command 'lsit'. Did you mean 'list'?", "See: hecaton job --help"]


def test_errors_are_json_too_when_asked_for(invoke: Invoke) -> None:
    ended = invoke("job", "show", "1", "--json", "--bogus")
    assert ended.code == 2
    assert json.loads(ended.err)["error"]["code"] == "bad_request"
    assert ended.out == ""


def test_without_a_server_it_says_how_to_register_one(invoke: Invoke) -> None:
    ended = invoke("job", "list")
    assert ended.code == 6
    assert "hecaton server new --ip HOST:8181 --name NAME" in ended.err


def test_a_server_that_is_down_is_one_line_and_no_traceback(invoke: Invoke, server: ScriptedServer) -> None:
    server.stop()
    ended = invoke("worker", "list")
    assert ended.code == 4
    assert "Traceback" not in ended.err
    assert server.address in ended.err
    assert len(ended.err.splitlines()) <= 2


def test_an_expired_token_says_how_to_log_in(invoke: Invoke, server: ScriptedServer) -> None:
    server.on("GET", "/v1/jobs", error(401, "unauthenticated", "the token has expired"))
    ended = invoke("job", "list")
    assert (ended.code, ended.err) == (
        5,
        "Error: the token has expired\nLog in with: hecaton server login my-server\n",
    )


def test_a_wrong_token_of_the_environment_is_named(
    invoke: Invoke, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HECATON_TOKEN", "other")
    server.on("GET", "/v1/jobs", error(401, "unauthenticated", "the token does not hold"))
    ended = invoke("job", "list")
    assert server.seen[-1].headers["authorization"] == "Bearer other"
    assert "HECATON_TOKEN" in ended.err


def test_another_server_is_addressed_by_option_and_by_environment(
    invoke: Invoke, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.on("GET", "/v1/workers", reply([]))
    assert invoke("--server", "nowhere", "worker", "list").code == 6
    assert invoke("worker", "list", "--server", "nowhere").code == 6
    monkeypatch.setenv("HECATON_SERVER", "nowhere")
    assert "'nowhere'" in invoke("worker", "list").err
    assert invoke("worker", "list", "--server", "my-server").code == 0


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.JobFailed("x"), 1),
        (errors.BadRequest("x"), 2),
        (errors.Unreachable("x"), 4),
        (errors.Unavailable("x"), 4),
        (errors.TooMany("x"), 4),
        (errors.Unauthenticated("x"), 5),
        (errors.Forbidden("x"), 5),
        (errors.NotFound("x"), 6),
        (errors.Conflict("x"), 7),
        (errors.TooLarge("x"), 7),
        (errors.WaitTimeout("x"), 8),
        (errors.HecatonError("x"), 9),
    ],
)
def test_each_kind_of_error_has_its_exit_code(error: errors.HecatonError, code: int) -> None:
    assert output.exit_code(error) == code


def test_messages_of_a_server_cannot_control_the_terminal(invoke: Invoke, server: ScriptedServer) -> None:
    server.on("GET", "/v1/jobs", error(403, "forbidden", "no\x1b]52;c;eA==\x07 way\rok", "ask\u202e me"))
    ended = invoke("job", "list")
    assert ended.err == "Error: no way ok\nask\\u202e me\n"


def test_facts_that_belong_to_an_error_stand_below_it(invoke: Invoke, server: ScriptedServer) -> None:
    server.on(
        "GET", "/v1/jobs", error(409, "conflict", "not refreshed. Machines have:\nada: 1f3c9e\nrig2: 9ab041", "log in")
    )
    ended = invoke("job", "list")
    assert ended.code == 7
    assert ended.err == "Error: not refreshed. Machines have:\n  ada: 1f3c9e\n  rig2: 9ab041\nlog in\n"


def test_debug_shows_where_it_happened(hecaton: Process) -> None:
    done = hecaton("job", "list", HECATON_DEBUG="1")
    assert "Traceback" in done.stderr
    assert "NotFound" in done.stderr


def test_a_reader_that_goes_away_is_no_error(server: ScriptedServer) -> None:
    rows = [{"username": f"user{i}", "role": "user", "created_at": 0.0} for i in range(20_000)]
    server.on("GET", "/v1/users", reply(rows))
    command = f"set -o pipefail; {HECATON} user list | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_ctrl_c_ends_quietly_with_130(server: ScriptedServer) -> None:
    server.on("GET", "/v1/users", HANG)
    process = subprocess.Popen(
        [str(HECATON), "user", "list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    while not server.seen:
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err.strip()) == (130, "Interrupted.")
