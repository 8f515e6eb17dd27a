"""`hecaton` without a command: the interactive shell, or, when stdin is no terminal, one command line after another."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import ShellComplete

from hecaton import __version__
from hecaton.cli import output
from hecaton.cli.hecaton.context import Cli
from hecaton.cli.terminal import colour_wanted, one_line
from hecaton.core.errors import BadRequest, HecatonError

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import CompleteEvent, Completion
    from prompt_toolkit.document import Document

LOGO = r"""
  _  _             _
 | || |___ __ __ _| |_ ___ _ _
 | __ / -_) _/ _` |  _/ _ \ ' \
 |_||_\___\__\__,_|\__\___/_||_|
"""

WORDS = ("help", "clear", "exit")


Run = Callable[[Sequence[str], str | None], int]
"""Runs one command line against a server; its exit code. That of `main`, which opens the shell."""


def open_shell(cli: Cli, root: click.Command, run: Run) -> int:
    """Returns the exit code of the whole command."""
    if not sys.stdin.isatty():
        return run_lines(sys.stdin, cli.server, run)
    return _converse(cli.server, root, run)


def run_lines(lines: Iterable[str], server: str | None, run: Run) -> int:
    """A script of commands. Ends at the first that fails, with its exit code."""
    for line in lines:
        code = run_line(line, server, run)
        if code:
            return code if code > 0 else 0
    return 0


def run_line(line: str, server: str | None, run: Run) -> int:
    """One line of the shell. -1 says that it asked to leave."""
    if line.lstrip().startswith("#"):
        return 0
    try:
        words = list(_lexer(line))
    except ValueError as error:
        output.show_error(BadRequest(f"cannot read this line: {error}".lower()), as_json=False)
        return output.USAGE
    if words[:1] == ["hecaton"]:
        words = words[1:]
    if not words:
        return 0
    if words[0] in ("exit", "quit"):
        return -1
    if words[0] == "clear":
        click.clear()
        return 0
    if words[0] in ("help", "?"):
        words = [*words[1:], "--help"]
    return run(words, server)


def _lexer(line: str) -> shlex.shlex:
    """Words as a POSIX shell has them; on Windows a backslash is a part of a path."""
    lexer = shlex.shlex(line, posix=True)
    lexer.whitespace_split, lexer.commenters = True, ""
    if sys.platform == "win32":
        lexer.escape = ""
    return lexer


def _words_so_far(text: str) -> list[str]:
    """Of a line that is still being typed: an open quotation counts as a word."""
    lexer = _lexer(text)
    words: list[str] = []
    try:
        words.extend(lexer)
    except ValueError:
        words.append(lexer.token)
    return words


def _converse(server: str | None, root: click.Command, run: Run) -> int:
    from prompt_toolkit.patch_stdout import patch_stdout

    click.echo(click.style(LOGO, fg="cyan"), color=colour_wanted(sys.stdout))
    click.echo(f" Hecaton {__version__}: your jobs, many hands.  help shows the commands, exit leaves.\n")
    prompt = _prompt(server, root)
    while True:
        try:
            with patch_stdout():
                line = prompt.prompt(f"hecaton{_connected(server)}> ")
        except KeyboardInterrupt:  # as in any shell: the line is dropped
            continue
        except EOFError:
            return 0
        if run_line(line, server, run) < 0:
            return 0


def _connected(server: str | None) -> str:
    """The prompt's word for where commands go."""
    from hecaton.client import profiles

    try:
        profile = profiles.active()
    except HecatonError as error:
        output.show_error(error, as_json=False)
        return ""
    name = server or (profile.name if profile else None)
    return f" ({one_line(name)})" if name else ""


def _prompt(server: str | None, root: click.Command) -> PromptSession[str]:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import Completer, PathCompleter, ThreadedCompleter
    from prompt_toolkit.document import Document
    from prompt_toolkit.history import FileHistory

    class CommandHistory(FileHistory):
        def store_string(self, string: str) -> None:
            if "--password" not in string:
                super().store_string(string)

    class TreeCompleter(Completer):
        """The same completions as in bash, zsh and fish; in a thread, so that a slow server holds up no key."""

        def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
            incomplete, items = completions(root, document.text_before_cursor, server)
            for value, help, kind in items:
                if kind == "plain":
                    yield _completion(value, incomplete, help)
                else:
                    paths = PathCompleter(only_directories=kind == "dir", expanduser=True)
                    yield from paths.get_completions(Document(incomplete), complete_event)

    # On Tab only: a completion that runs while one types would swallow a Tab that comes before it is done.
    return PromptSession(
        history=CommandHistory(str(_history_file())),
        completer=ThreadedCompleter(TreeCompleter()),
        complete_while_typing=False,
        reserve_space_for_menu=4,
    )


def _completion(value: str, incomplete: str, help: str) -> Completion:
    from prompt_toolkit.completion import Completion

    return Completion(value, start_position=-len(incomplete), display_meta=help)


def completions(root: click.Command, text: str, server: str | None) -> tuple[str, list[tuple[str, str, str]]]:
    """The word before the cursor, and (value, help, "plain" | "file" | "dir") of what it may become."""
    words = _words_so_far(text)
    incomplete = words.pop() if words and not text[-1:].isspace() else ""
    if words[:1] == ["hecaton"]:
        words = words[1:]
    found = ShellComplete(root, {"obj": Cli(server=server, quiet=True)}, "hecaton", "").get_completions(
        words, incomplete
    )
    items = [(str(item.value), item.help or "", item.type) for item in found]
    if not words:
        items += [(word, "", "plain") for word in WORDS if word.startswith(incomplete)]
    return incomplete, items


def _history_file() -> Path:
    from hecaton.wire.home import home

    path = home() / "client" / "history"
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.touch(mode=0o600)
    return path
