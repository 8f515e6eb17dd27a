"""Results to stdout, talk and errors to stderr, and the one table of exit codes."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any

import click

from hecaton.cli.terminal import (
    Column,
    colour_wanted,
    harmless,
    harmless_json,
    is_terminal,
    one_line,
    screen_width,
    table,
)
from hecaton.core import errors

USAGE = 2
CANCELLED = 3
GOES_ON = 8
BUG = 9
INTERRUPTED = 130

EXIT_CODES: tuple[tuple[int, str, tuple[type[errors.HecatonError], ...]], ...] = (
    (0, "done; a job that was waited for is FINISHED", ()),
    (1, "the job FAILED", (errors.JobFailed,)),
    (USAGE, "the command or its input makes no sense", (errors.BadRequest,)),
    (CANCELLED, "the job was CANCELLED", ()),
    (4, "no server answered, or it cannot do it now", (errors.Unreachable, errors.Unavailable, errors.TooMany)),
    (5, "not logged in, or not allowed", (errors.Unauthenticated, errors.Forbidden)),
    (6, "no such job, image, user, worker or server", (errors.NotFound,)),
    (7, "refused: it clashes with what is there, or is too large", (errors.Conflict, errors.Fenced, errors.TooLarge)),
    (GOES_ON, "not over yet: the time to wait is over, or results are still to come", (errors.WaitTimeout,)),
    (BUG, "anything else", ()),
    (INTERRUPTED, "interrupted with Ctrl-C; a job goes on", ()),
)

EXIT_CODE_OF_STATE = {"FINISHED": 0, "FAILED": 1, "CANCELLED": CANCELLED}


def exit_code(error: errors.HecatonError) -> int:
    for code, _, kinds in EXIT_CODES:
        if isinstance(error, kinds):
            return code
    return BUG


def print_json(value: Any) -> None:
    """One JSON document on stdout: indented for people, and the same for programs."""
    import msgspec

    text = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    click.echo(harmless_json(text, sys.stdout))


def print_lines(lines: Iterable[str]) -> None:
    for line in lines:
        click.echo(line, color=colour_wanted(sys.stdout))


def say(text: str) -> None:
    """Talk, on stderr, so that stdout holds nothing but the answer."""
    click.echo(harmless(text), err=True)


def behind_ctrl_c() -> str:
    """What a sentence begins with that follows a Ctrl-C: a terminal has written `^C` and stands behind it."""
    return "\n" if is_terminal(sys.stderr) else ""


def warn(text: str) -> None:
    label = click.style("Warning:", fg="yellow", bold=True)
    click.echo(f"{label} {harmless(text)}", err=True, color=colour_wanted(sys.stderr))


def show_error(error: errors.HecatonError, as_json: bool) -> None:
    """What happened in a line, and the facts that belong to it each in a line below, then what to do next; with --json
    one JSON document. On stderr."""
    if as_json:
        import msgspec

        from hecaton.wire.errors import ErrorBody, ErrorReply

        body = ErrorReply(ErrorBody(error.code, error.message, error.hint))
        click.echo(harmless_json(msgspec.json.encode(body).decode(), sys.stderr), err=True)
        return
    label = click.style("Error:", fg="red", bold=True)
    first, *facts = error.message.split("\n")
    click.echo(f"{label} {one_line(first)}", err=True, color=colour_wanted(sys.stderr))
    for fact in facts:
        click.echo(f"  {one_line(fact)}".rstrip(), err=True)
    if error.hint:
        click.echo(one_line(error.hint), err=True)


def table_lines(columns: Sequence[Column], rows: Sequence[Sequence[str]], empty: str) -> list[str]:
    """A table as wide as the terminal, or as wide as it gets elsewhere. Without rows: `empty` is said on stderr."""
    if not rows:
        say(empty)
        return []
    titles, *lines = table(columns, rows, screen_width() if is_terminal(sys.stdout) else None)
    return [click.style(titles, bold=True), *lines]


def field_lines(fields: Iterable[tuple[str, object]]) -> list[str]:
    """`name  value` lines; None is left out, everything else is one line."""
    shown = [(name, one_line(str(value))) for name, value in fields if value is not None]
    wide = max((len(name) for name, _ in shown), default=0)
    return [f"{name:<{wide}}  {value}".rstrip() for name, value in shown]


def block_lines(title: str, text: str) -> list[str]:
    """A titled paragraph of foreign text, indented."""
    body = harmless(text).rstrip("\n").split("\n")
    return ["", click.style(title, bold=True), *(f"  {line}".rstrip() for line in body)]
