"""docs/commands.md and the commands are the same, both ways."""

from __future__ import annotations

import re

import click
import pytest

from tests.command_reference import PROGRAMS, REFERENCE, text, walk

WRITTEN = REFERENCE.read_text(encoding="utf-8")


def _sections() -> dict[str, str]:
    """What is written about each command, by what one writes to run it."""
    parts = re.split(r"^##+ `([a-z -]+)`$", WRITTEN, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


REAL = {words: context for program, command in PROGRAMS.items() for words, context in walk(command, program)}


def test_the_reference_is_what_the_commands_say() -> None:
    assert text() == WRITTEN, "docs/commands.md is not what the commands say: make commands"


def test_every_command_is_written_and_every_written_one_exists() -> None:
    assert set(_sections()) == set(REAL)


@pytest.mark.parametrize("words", sorted(REAL))
def test_every_argument_and_option_is_written_and_every_written_one_exists(words: str) -> None:
    written = set()
    for cell in re.findall(r"^\| `([^`]+)` \|", _sections()[words], re.MULTILINE):
        spellings = re.findall(r"(?<![\w-])--?[a-z][a-z-]*", cell) if cell.startswith("-") else []
        written.add(tuple(spellings) or (cell.replace("\\|", "|"),))
    there = set()
    for param in REAL[words].command.params:
        if isinstance(param, click.Option):
            there.add((*param.opts, *param.secondary_opts))
        else:
            there.add((param.make_metavar(REAL[words]),))
    assert written == there


def test_every_command_has_a_help_of_its_own_and_every_option_its_own() -> None:
    for words, context in REAL.items():
        assert context.command.help, words
        assert {"-h", "--help"} <= set(context.help_option_names), words
        for param in context.command.params:
            assert not isinstance(param, click.Option) or param.help, (words, param.name)
