"""What a word that nobody knows may have meant: near names, and lines that other programs have taught people."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import PurePath
from typing import Any

import click

from hecaton.core.errors import BadRequest, HecatonError, NotFound


class Suggestion(click.UsageError):
    """A word that there is not; `lines`: command lines that do what was meant."""

    def __init__(self, message: str, lines: Sequence[str], ctx: click.Context | None = None) -> None:
        super().__init__(message, ctx)
        self.lines = lines

    @property
    def hint(self) -> str:
        return "You may mean: " + "   or: ".join(self.lines)

    def format_message(self) -> str:
        return f"{self.message}\n{self.hint}"


class SuggestingGroup(click.Group):
    """`habits`: words that are no commands here -> the line that is meant, as `filled` takes it; several apart by |."""

    def __init__(self, *args: Any, habits: Mapping[str, str] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.habits = habits or {}

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        word = args[0]
        if not ctx.resilient_parsing and not word.startswith("-") and self.get_command(ctx, word) is None:
            message = f"No such command {word!r}."
            habit = self.habits.get(word.lower())
            if habit is not None:
                raise Suggestion(message, [filled(line, args[1:]) for line in habit.split("|")], ctx)
            raise click.UsageError(f"{message}{did_you_mean(word, self.list_commands(ctx))}", ctx)
        return super().resolve_command(ctx, args)


def near(word: str, names: Iterable[str]) -> str | None:
    """The name that looks most like the word."""
    known = {name.lower(): name for name in names}
    found = difflib.get_close_matches(word.lower(), known, 1)
    return known[found[0]] if found else None


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """To stand behind a sentence; nothing where no name is near."""
    name = near(word, names)
    return f" Did you mean {name!r}?" if name else ""


@contextmanager
def known(
    name: str, names: Callable[[], Iterable[str]], otherwise: Callable[[], str | None] = lambda: None
) -> Iterator[None]:
    """Around a call that may not find `name`: the error says which of `names` may be meant, else `otherwise`, else what
    it said."""
    try:
        yield
    except NotFound as error:
        try:
            found = near(name, names())
        except HecatonError:
            found = None
        hint = f"Did you mean {found!r}?" if found else otherwise()
        raise NotFound(error.message, hint or error.hint) from error


def filled(line: str, arguments: Sequence[str]) -> str:
    """The line with what was typed in the place of its word in braces: {FILE} takes the first argument that looks like
    one, any other takes all. Nothing was typed: the word itself."""

    def place(match: re.Match[str]) -> str:
        word = match[1]
        given = [one for one in arguments if PurePath(one).suffix][:1] if word == "FILE" else arguments
        return shlex.join(given) or word

    return re.sub(r"{(\w+)}", place, line)


def explained(error: click.ClickException, program: str) -> BadRequest:
    """What click has against a command line, with what to type instead."""
    if isinstance(error, Suggestion):
        return BadRequest(error.message, error.hint)
    if isinstance(error, click.UsageError):
        command = error.ctx.command_path if error.ctx else program
        return BadRequest(error.format_message(), f"See: {command} --help")
    return BadRequest(error.format_message())
