"""`hecaton completion SHELL`, and the answers to the scripts that it prints. The names: `completers`."""

from __future__ import annotations

import os
from typing import Any

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    add_completion_class,
    get_completion_class,
    shell_complete,
    split_arg_string,
)

from hecaton.cli.hecaton.context import Cli
from hecaton.cli.hecaton.tree import Command

VARIABLE = "_HECATON_COMPLETE"

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


def answer(root: click.Command, instruction: str) -> int:
    """What the scripts below ask for: `bash_complete` and the like. The exit code."""
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
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script for bash, zsh or fish."""
    add_completion_class(ColonBashComplete)
    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(ctx.find_root().command, {}, "hecaton", VARIABLE).source()
    ctx.ensure_object(Cli).show({"shell": shell, "script": script}, lambda: [script.rstrip("\n")])
