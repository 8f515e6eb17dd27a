"""Completion in real shells, with names from the server."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable

import pytest

from hecaton.cli.hecaton.main import root
from hecaton.cli.hecaton.shell import completions
from tests.cli.conftest import HECATON, Invoke
from tests.cli.screen import Terminal
from tests.cli.views import failed, finished, image, summary, worker
from tests.client.scripted import HANG, ScriptedServer, reply
from tests.engine import needs

PATH = f"{HECATON.parent}{os.pathsep}{os.environ['PATH']}"


@pytest.fixture(scope="module", autouse=True)
def shells() -> None:
    needs.require("zsh", "fish")


@pytest.fixture
def names(server: ScriptedServer) -> ScriptedServer:
    server.on("GET", "/v1/images", reply([image("mandelbrot:v1"), image("mandelbrot:v2"), image("evil \x1b[2J")]))
    server.on("GET", "/v1/jobs", reply({"jobs": [summary(finished(1)), summary(failed())], "next": None}))
    server.on("GET", "/v1/workers", reply([worker("gpu-1")]))
    return server


def bash(line: str) -> list[str]:
    """What bash's completion function answers at the end of this line, as bash itself would call it."""
    script = f"""
        eval "$(hecaton completion bash)"
        COMP_LINE={line!r} COMP_POINT={len(line)}
        compopt() {{ :; }}
        _hecaton_completion hecaton
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(
        ["bash", "--norc", "-c", script], capture_output=True, text=True, check=True, env={**os.environ, "PATH": PATH}
    )
    assert done.stderr == ""
    return done.stdout.split()


def fish(line: str) -> list[str]:
    script = f"hecaton completion fish | source; complete -C {line!r}"
    done = subprocess.run(
        ["fish", "--no-config", "-c", script], capture_output=True, text=True, check=True,
        env={**os.environ, "PATH": PATH},
    )  # fmt: skip
    return [answer.split("\t")[0] for answer in done.stdout.splitlines()]


@pytest.mark.parametrize("shell", [bash, fish])
def test_commands_options_and_names_are_completed(shell: Callable[[str], list[str]], names: ScriptedServer) -> None:
    assert shell("hecaton serv") == ["server"]
    assert shell("hecaton job wa") == ["wait"]
    assert shell("hecaton job new --idem") == ["--idempotency-key"]
    assert shell("hecaton image show mand") == ["mandelbrot:v1", "mandelbrot:v2"]
    assert set(shell("hecaton job show ")) == {"12"}
    assert shell("hecaton worker remove gp") == ["gpu-1"]
    assert shell("hecaton server connect ") == ["my-server"]
    assert shell("hecaton completion z") == ["zsh"]


def test_bash_is_given_what_follows_the_colon(names: ScriptedServer) -> None:
    assert bash("hecaton image show mandelbrot:") == ["v1", "v2"]


@pytest.mark.parametrize(
    ("command", "script"),
    [
        (["bash", "--norc", "--noprofile", "-i"], "bash"),
        (["zsh", "-f", "-i"], "zsh"),
        (["fish", "--no-config"], "fish"),
    ],
)
def test_the_tab_key_completes_an_image_name_in_a_real_shell(
    command: list[str], script: str, server: ScriptedServer
) -> None:
    server.on("GET", "/v1/images", reply([image("mandelbrot:v2")]))
    server.on("GET", "/v1/images/mandelbrot%3Av2", reply(image("mandelbrot:v2", description="it is this one")))
    with Terminal(command, PATH=PATH) as terminal:
        if script == "zsh":
            terminal.type("autoload -U compinit; compinit -u -D\r")
        load = "hecaton completion fish | source" if script == "fish" else f'eval "$(hecaton completion {script})"'
        terminal.type(f"{load}; echo load''ed\r")
        terminal.until("loaded")
        terminal.type("hecaton image show mandelbrot:\t")
        terminal.until("v2")
        terminal.type("\r")
        terminal.until("it is this one")


def test_nothing_is_said_and_little_time_lost_when_the_server_hangs(server: ScriptedServer) -> None:
    server.on("GET", "/v1/images", HANG)
    began = time.monotonic()
    assert bash("hecaton image show ") == []
    assert time.monotonic() - began < 10
    server.stop()
    assert bash("hecaton image show ") == []


def test_nothing_is_said_when_no_server_is_known(invoke: Invoke) -> None:
    assert bash("hecaton image show ") == []
    assert bash("hecaton server connect ") == []


def test_the_interactive_shell_knows_commands_names_and_files(names: ScriptedServer) -> None:
    assert {item[0] for item in completions(root, "", None)[1]} >= {"server", "job", "help", "exit"}
    incomplete, [(value, help, kind)] = completions(root, "job sh", None)
    assert (incomplete, value, kind) == ("sh", "show", "plain")
    assert help.startswith("View full details of a job")
    assert [item[0] for item in completions(root, "image show mandelbrot:", None)[1]] == [
        "mandelbrot:v1",
        "mandelbrot:v2",
    ]
    assert [item[0] for item in completions(root, "job show 01987a5e", None)[1]] == [finished().id, failed().id]
    assert completions(root, "job new pay", None)[1] == [("pay", "", "file")]


def test_the_interactive_shell_asks_the_server_once_for_a_few_keys(names: ScriptedServer) -> None:
    for text in ("image show m", "image show ma", "image show man"):
        completions(root, text, None)
    assert len(names.asked("GET", "/v1/images")) == 1


def test_states_are_completed(names: ScriptedServer) -> None:
    assert [item[0] for item in completions(root, "job list --state FIN", None)[1]] == ["finished"]
