"""Completion: names from the live server for shells and for the interactive shell, and `hecaton completion SHELL`.

The functions named after nouns are what the commands give click as `shell_complete`. They answer within a second and
say nothing when something is wrong: a prompt is no place for errors.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    add_completion_class,
    get_completion_class,
    shell_complete,
    split_arg_string,
)

from hecaton.cli.context import Cli, pass_cli
from hecaton.cli.terminal import one_line
from hecaton.cli.tree import Command

if TYPE_CHECKING:
    from hecaton.client import Client

VARIABLE = "_HECATON_COMPLETE"

PATIENCE = 1.0
"""Seconds that a completion waits for the server."""

FRESH = 5.0
"""Seconds for which the interactive shell believes an answer."""

Names = list[tuple[str, str]]  # a value, and what it is
Fetch = Callable[["Client"], Iterable[tuple[str, str]]]

_known: dict[tuple[str, str | None], tuple[float, Names]] = {}


def servers(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    from hecaton.client import profiles

    try:
        return _items([(profile.name, profile.address) for profile in profiles.all_servers()], incomplete)
    except Exception:
        return []


def images(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    return _live(ctx, "images", lambda client: ((i.name, i.description) for i in client.images()), incomplete)


def jobs(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Both names of the latest jobs: the short number, and the id once its first character is typed."""

    def fetch(client: Client) -> Iterable[tuple[str, str]]:
        for job in client.jobs(limit=50).jobs:
            yield str(job.index), f"{job.state} {job.image}"
            yield job.id, f"{job.state} {job.image}"

    found = _live(ctx, "jobs", fetch, incomplete)
    return found if incomplete else [item for item in found if "-" not in item.value]


def workers(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    return _live(ctx, "workers", lambda client: ((w.name, w.status) for w in client.workers()), incomplete)


def users(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    return _live(ctx, "users", lambda client: ((u.username, u.role) for u in client.users()), incomplete)


def _items(names: Iterable[tuple[str, str]], incomplete: str) -> list[CompletionItem[str]]:
    # Names that hold control characters or blanks are no words of a command line: left out, not repaired.
    return [
        CompletionItem(value, help=one_line(text) or None)
        for value, text in names
        if value.startswith(incomplete) and one_line(value) == value and " " not in value
    ]


def _live(ctx: click.Context, kind: str, fetch: Fetch, incomplete: str) -> list[CompletionItem[str]]:
    cli = ctx.ensure_object(Cli)
    key = (kind, cli.server)
    kept = _known.get(key)
    if kept is None or time.monotonic() - kept[0] > FRESH:
        names = _within_patience(cli, fetch)
        if names is None:
            return []
        kept = _known[key] = (time.monotonic(), names)
    return _items(kept[1], incomplete)


def _within_patience(cli: Cli, fetch: Fetch) -> Names | None:
    answer: list[Names] = []

    def ask() -> None:
        try:
            answer.append(list(fetch(Cli(server=cli.server, quiet=True).client(timeout=PATIENCE))))
        except Exception:
            return

    thread = threading.Thread(target=ask, name="completion", daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return answer[0] if answer else None


# -- the shells ------------------------------------------------------------------------------------

_BASH = """\
%(complete_func)s() {
    local IFS=$'\\n' response completion type value
    response=$(env COMP_LINE="${COMP_LINE:0:$COMP_POINT}" COMP_WORDBREAKS="$COMP_WORDBREAKS" \
%(complete_var)s=bash_complete "$1" 2>/dev/null)
    COMPREPLY=()
    for completion in $response; do
        IFS=',' read -r type value <<< "$completion"
        case $type in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain) COMPREPLY+=("$value") ;;
        esac
    done
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""


class ColonBashComplete(BashComplete):
    """bash takes `:` for the end of a word and would complete `python:3.9-slim` as three words. This one reads the
    line itself and answers with what bash puts after the last colon."""

    source_template = _BASH

    def get_completion_args(self) -> tuple[list[str], str]:
        line = os.environ["COMP_LINE"]
        words = split_arg_string(line)
        self._incomplete = "" if line[-1:].isspace() else words.pop()
        return words[1:], self._incomplete

    def format_completion(self, item: CompletionItem[Any]) -> str:
        value = str(item.value)
        if ":" in os.environ.get("COMP_WORDBREAKS", ":"):
            value = value[self._incomplete.rfind(":") + 1 :] if value.startswith(self._incomplete) else value
        return f"{item.type},{value}"


def answer(instruction: str) -> int:
    """What the scripts below ask for: `bash_complete` and the like. The exit code."""
    from hecaton.cli.main import root

    add_completion_class(ColonBashComplete)
    return shell_complete(root, {}, "hecaton", VARIABLE, instruction)


_HOW = {
    "bash": 'eval "$(hecaton completion bash)"   in ~/.bashrc',
    "zsh": 'eval "$(hecaton completion zsh)"   in ~/.zshrc, after compinit',
    "fish": "hecaton completion fish > ~/.config/fish/completions/hecaton.fish   once",
}


@click.command(
    cls=Command, talks=False, epilog="\b\nTo switch it on:\n" + "\n".join(f"  {line}" for line in _HOW.values())
)
@click.argument("shell", type=click.Choice(list(_HOW)))
@pass_cli
def completion(cli: Cli, shell: str) -> None:
    """Print the completion script for bash, zsh or fish."""
    from hecaton.cli.main import root

    add_completion_class(ColonBashComplete)
    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(root, {}, "hecaton", VARIABLE).source()
    cli.show({"shell": shell, "script": script}, lambda: [script.rstrip("\n")])
