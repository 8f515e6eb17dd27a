"""Every command of the three programs as `docs/commands.md` has it, made from the commands themselves.

`python -m tests.command_reference` (`make commands`) writes the file; tests/test_command_reference.py compares.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

import click

from hecaton.cli.hecaton.main import root
from hecaton.cli.hecaton_gpu.main import cli as worker
from hecaton.cli.hecaton_server.main import cli as server

REFERENCE = Path(__file__).resolve().parents[1] / "docs" / "commands.md"

PROGRAMS: dict[str, click.Command] = {"hecaton": root, "hecaton-server": server, "hecaton-gpu": worker}

HEAD = """\
# Commands

Every command, argument and option of the three programs, besides `-h` and `--help`, which all of them have. Made from
the commands by `make commands`, and compared with them by a test: change the command, not this file.
"""


def text() -> str:
    lines = [HEAD]
    for program, command in PROGRAMS.items():
        for words, context in walk(command, program):
            lines += _section(words, context)
    return "\n".join(lines).rstrip("\n") + "\n"


def walk(command: click.Command, name: str, parent: click.Context | None = None) -> Iterator[tuple[str, click.Context]]:
    """Every command below one, with what is written to run it; groups before their commands."""
    context = click.Context(command, info_name=name, parent=parent, **command.context_settings)
    yield context.command_path, context
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            inner = command.get_command(context, child)
            assert inner is not None
            yield from walk(inner, child, context)


def _section(words: str, context: click.Context) -> list[str]:
    command = context.command
    level = min(4, 2 + words.count(" "))
    usage = " ".join(command.collect_usage_pieces(context))
    lines = [f"{'#' * level} `{words}`", "", f"`{words} {usage}`", ""]
    lines += _paragraphs(command.help or "")
    rows = [_row(param, context) for param in command.params]
    if rows:
        lines += ["| | default | |", "|---|---|---|", *rows, ""]
    if command.epilog:
        lines += ["```", *inspect.cleandoc(command.epilog.replace("\b", "")).strip().splitlines(), "```", ""]
    return lines


def _paragraphs(help: str) -> list[str]:
    """The help, each paragraph on one line; what `\\b` keeps as it is stands in a block."""
    lines: list[str] = []
    for paragraph in inspect.cleandoc(help).split("\n\n"):
        if paragraph.startswith("\b\n"):
            lines += ["```", *paragraph.splitlines()[1:], "```", ""]
        elif paragraph:
            lines += [" ".join(paragraph.split()), ""]
    return lines


def _row(param: click.Parameter, context: click.Context) -> str:
    """Spelling, default and help of an argument or option."""
    if isinstance(param, click.Argument):
        return _cells(f"`{param.make_metavar(context)}`", "required" if param.required else "", "")
    assert isinstance(param, click.Option)
    spelled = ", ".join([*param.opts, *param.secondary_opts])
    if not param.is_flag and not param.count:
        spelled += f" {param.make_metavar(context)}"
    extra = param.get_help_extra(context)
    notes = [param.help or ""]
    if "range" in extra:
        notes.append(f"Range: `{extra['range']}`.")
    if "envvars" in extra:
        notes.append("Environment: " + ", ".join(f"`{name}`" for name in extra["envvars"]) + ".")
    if param.multiple:
        notes.append("May be given several times.")
    return _cells(f"`{spelled}`", _default(param, context), " ".join(note for note in notes if note))


def _default(option: click.Option, context: click.Context) -> str:
    """What holds without the option."""
    default = option.get_help_extra(context).get("default") or option.to_info_dict()["default"]
    if option.prompt:
        return "asked for"
    if option.required:
        return "required"
    return "" if default in (None, False, (), []) else f"`{default}`"


def _cells(*cells: str) -> str:
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    REFERENCE.write_text(text(), encoding="utf-8")
