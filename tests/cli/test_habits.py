"""Words that are no commands, options or names here: what is answered to them."""

from __future__ import annotations

import shlex

import click
import pytest

from hecaton.cli.hecaton import habits
from hecaton.cli.hecaton.main import root
from hecaton.cli.hecaton_gpu.main import HABITS, cli
from hecaton.cli.suggestions import filled
from hecaton.client import profiles
from tests.cli.conftest import Ended, Invoke
from tests.cli.views import image, user, worker
from tests.client.scripted import ScriptedServer, error, reply
from tests.command_reference import PROGRAMS

GROUPS: list[tuple[click.Group, dict[str, str]]] = [
    (root, dict(habits.ROOT)),
    (cli, dict(HABITS)),
    *(
        (group, dict(rows))
        for noun, rows in {
            "job": habits.JOB, "batch": habits.BATCH, "image": habits.IMAGE, "worker": habits.WORKER,
            "user": habits.USER, "server": habits.SERVER,
        }.items()
        if isinstance(group := root.get_command(click.Context(root), noun), click.Group)
    ),
]  # fmt: skip


def _is_command(line: str) -> bool:
    """Whether a line would be taken: its commands and options exist."""
    words = shlex.split(line)
    words = words[1:] if words[0] == "sudo" else words
    command = PROGRAMS[words.pop(0)]
    context = click.Context(command)
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        inner = command.get_command(context, words.pop(0))
        assert inner is not None, line
        command = inner
    options = {spelled for param in command.params for spelled in param.opts}
    return all(word in options for word in words if word.startswith("-"))


@pytest.mark.parametrize(("group", "rows"), GROUPS, ids=lambda value: getattr(value, "name", ""))
def test_every_line_that_a_habit_gets_works_and_no_habit_hides_a_command(
    group: click.Group, rows: dict[str, str]
) -> None:
    assert rows
    for word, lines in rows.items():
        assert group.get_command(click.Context(group), word) is None, f"{word} is a command"
        for line in lines.split("|"):
            assert _is_command(filled(line, [])), line


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("jobs", "hecaton job list"),
        ("ls", "hecaton job list"),
        ("submit payload.json", "hecaton job new payload.json IMAGE"),
        ("exec python 'my file.py'", "hecaton run 'my file.py'"),
        ("status 412", "hecaton job show 412   or: hecaton job list   or: hecaton server show"),
        ("tail 1", "hecaton logs -f 1"),
        ("log", "hecaton logs JOB"),
        ("kill 3", "hecaton cancel 3"),
        ("login my-server", "hecaton server login my-server"),
        ("job status 3", "hecaton job show 3"),
        ("job ls", "hecaton job list"),
        ("batch ls", "hecaton batch list"),
        ("image add me/model:v2", "hecaton image new me/model:v2"),
        ("worker pause gpu-1", "hecaton worker drain gpu-1"),
        ("user add ann", "hecaton user create --username ann"),
        ("server use home", "hecaton server connect home"),
    ],
)
def test_what_other_programs_have_taught_is_answered_with_the_line_that_is_meant(
    invoke: Invoke, typed: str, meant: str
) -> None:
    ended = invoke(*shlex.split(typed))
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.splitlines()[1] == "You may mean: " + " ".join(meant.split())


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("jbo", "No such command 'jbo'. Did you mean 'job'?"),
        ("batch resutls", "No such command 'resutls'. Did you mean 'results'?"),
        ("job new p.json img --tiemout 5", "'--timeout'"),
        ("xyzzy", "No such command 'xyzzy'."),
    ],
)
def test_a_mistyped_command_or_option_gets_the_near_one(invoke: Invoke, typed: str, said: str) -> None:
    ended = invoke(*typed.split())
    assert ended.code == 2
    assert said in ended.err.splitlines()[0]
    assert ended.err.splitlines()[1].startswith("See: hecaton")


@pytest.mark.parametrize("noun", ["job", "batch", "image", "worker", "user", "server"])
def test_a_noun_alone_shows_its_help_as_it_is(invoke: Invoke, noun: str) -> None:
    ended = invoke(noun)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == invoke(noun, "--help").out
    assert ended.out.startswith(f"Usage: hecaton {noun} ")


def test_the_worker_s_program_alone_shows_its_help_too(capfd: pytest.CaptureFixture[str]) -> None:
    from hecaton.cli.hecaton_gpu.main import _main

    assert _main([]) == 0
    out, err = capfd.readouterr()
    assert out.startswith("Usage: hecaton-gpu ")
    assert err == ""
    assert _main(["add", "me:8181"]) == 2
    assert "You may mean: sudo hecaton-gpu install SERVER" in capfd.readouterr().err


def _names_gpu_1(ended: Ended, meant: str) -> None:
    assert (ended.code, ended.err.splitlines()[1]) == (6, f"Did you mean {meant!r}?")


def test_names_that_are_not_there_get_the_near_one(invoke: Invoke, server: ScriptedServer) -> None:
    server.on("GET", "/v1/images", reply([image("n1-image"), image("other")]))
    server.on("GET", "/v1/workers", reply([worker("gpu-1")]))
    server.on("GET", "/v1/users", reply([user("hannah")]))
    missing = error(404, "not_found", "there is none")
    me = {"version": "2", "username": "ann", "role": "admin", "max_payload": 1, "max_result": 1}
    server.on("GET", "/v1/server", reply(me))
    for method, path in (
        ("GET", "/v1/images/n1-imag"), ("PATCH", "/v1/images/n1-imag"), ("DELETE", "/v1/images/n1-imag"),
        ("POST", "/v1/workers/gpu1/drain"), ("POST", "/v1/workers/gpu1/undrain"), ("DELETE", "/v1/workers/gpu1"),
        ("DELETE", "/v1/users/hanna"), ("PUT", "/v1/users/hanna/password"),
    ):  # fmt: skip
        server.on(method, path, missing)
    _names_gpu_1(invoke("image", "show", "n1-imag"), "n1-image")
    _names_gpu_1(invoke("image", "update", "n1-imag", "--desc", "x"), "n1-image")
    _names_gpu_1(invoke("image", "delete", "n1-imag", "--yes"), "n1-image")
    _names_gpu_1(invoke("worker", "drain", "gpu1"), "gpu-1")
    _names_gpu_1(invoke("worker", "undrain", "gpu1"), "gpu-1")
    _names_gpu_1(invoke("worker", "remove", "gpu1", "--yes"), "gpu-1")
    _names_gpu_1(invoke("user", "delete", "hanna", "--yes"), "hannah")
    _names_gpu_1(invoke("user", "passwd", "hanna", "--password", "long enough"), "hannah")


def test_a_server_that_is_not_registered_gets_the_near_one(invoke: Invoke, server: ScriptedServer) -> None:
    assert profiles.get("my-server").name == "my-server"
    for arguments in (["server", "connect", "my-sever"], ["job", "list", "--server", "my-sever"]):
        ended = invoke(*arguments)
        assert ended.code == 6
        assert ended.err.splitlines()[1] == "Did you mean 'my-server'? Known: my-server."
