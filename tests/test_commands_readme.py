"""The README's command reference and the real commands are the same, both ways."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from hecaton.cli import output
from hecaton.cli.hecaton.main import root
from hecaton.cli.hecaton_gpu.main import cli as worker
from hecaton.cli.hecaton_server.main import cli as server

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")

EVERYWHERE = {"--json", "--server", "--help"}
"""Described once for all commands of `hecaton`."""

DAILY = ("logs", "wait", "cancel", "retry")

Reference = dict[str, set[str]]
"""What is written on the command line to run a command, and its options."""


def written(program: str) -> Reference:
    """The first cells of the reference's tables."""
    found: Reference = {}
    for cell in re.findall(rf"^\| `({program}(?: [^`]*)?)` \|", README, re.MULTILINE):
        words = re.split(r"[ \[\]]+", cell)
        names = []
        for word in words:
            if not re.fullmatch(r"[a-z-]+", word) or word.startswith("-"):
                break
            names.append(word)
        found[" ".join(names)] = {word for word in words if re.fullmatch(r"--?[a-z][a-z-]*", word)}
    return found


def real(command: click.Command, name: str) -> Reference:
    """Every command that can be run. Of an option with two spellings either one may be written."""
    context = click.Context(command)
    found: Reference = {}
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            inner = command.get_command(context, child)
            assert inner is not None
            found |= real(inner, f"{name} {child}")
    if not isinstance(command, click.Group) or command.invoke_without_command:
        options = (param for param in command.params if isinstance(param, click.Option))
        found[name] = {max(option.opts, key=len) for option in options} - {"--version"}
    return found


def spelled_long(reference: Reference, command: click.Command) -> Reference:
    """`-o` in the README means `--output`."""
    long = {}
    for _, option in options_of(command):
        for spelling in option.opts:
            long[spelling] = max(option.opts, key=len)
    return {name: {long.get(option, option) for option in options} for name, options in reference.items()}


def options_of(command: click.Command) -> list[tuple[str, click.Option]]:
    context = click.Context(command)
    found = [(command.name or "", param) for param in command.params if isinstance(param, click.Option)]
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            inner = command.get_command(context, child)
            assert inner is not None
            found += options_of(inner)
    return found


def test_every_command_and_option_of_hecaton_is_in_the_readme_and_the_other_way_round() -> None:
    there = {name: options - EVERYWHERE for name, options in real(root, "hecaton").items()}
    del there["hecaton"]  # the interactive shell, described in the text
    for name in DAILY:  # described once: they are those of `hecaton job`
        assert there.pop(f"hecaton {name}") == there[f"hecaton job {name}"]
        assert f"`hecaton {name}`" in README
    assert spelled_long(written("hecaton"), root) == there


def test_every_command_and_option_of_hecaton_server_is_in_the_readme_and_the_other_way_round() -> None:
    assert spelled_long(written("hecaton-server"), server) == real(server, "hecaton-server")


def test_every_command_and_option_of_hecaton_gpu_is_in_the_readme_and_the_other_way_round() -> None:
    there = spelled_long(written("hecaton-gpu"), worker)
    assert "takes the options of `run`" in README
    there["hecaton-gpu install"] |= there["hecaton-gpu run"]
    assert there == real(worker, "hecaton-gpu")


def test_every_command_of_hecaton_takes_json() -> None:
    for name, options in real(root, "hecaton").items():
        assert "--json" in options, name


def test_the_exit_codes_in_the_readme_are_those_of_the_table() -> None:
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", README, re.MULTILINE)
    assert [(int(code), meaning) for code, meaning in rows] == [(code, text) for code, text, _ in output.EXIT_CODES]


@pytest.mark.parametrize("option", sorted(EVERYWHERE))
def test_options_that_all_commands_have_are_described_once(option: str) -> None:
    assert f"`{option}" in README
