"""The click classes of the command tree: nouns load when they are used; every command takes --json and --server."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

import click

from hecaton.cli.hecaton.completers import servers
from hecaton.cli.hecaton.context import Cli
from hecaton.cli.suggestions import SuggestingGroup


class Command(click.Command):
    """A command with the options that all have. `talks`: it speaks to a server, so `--server` makes sense."""

    def __init__(self, *args: Any, talks: bool = True, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(common_option("--json", is_flag=True, help="Answer in JSON."))
        if talks:
            self.params.append(server_option())

    def invoke(self, ctx: click.Context) -> Any:
        ctx.ensure_object(Cli).parsed = True
        return super().invoke(ctx)


class Group(SuggestingGroup):
    """`hecaton NOUN`: its commands are of the class above."""

    command_class = Command


class LazyGroup(SuggestingGroup):
    """`hecaton` itself: `nouns` says where each command lives (`module:attribute`)."""

    command_class = Command

    def __init__(self, *args: Any, nouns: dict[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._nouns = nouns

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._nouns)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._nouns:
            return None
        module, attribute = self._nouns[cmd_name].split(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command


def common_option(*names: str, **settings: Any) -> click.Option:
    """An option that goes into the `Cli` instead of the function's arguments. The last one given holds."""

    def remember(ctx: click.Context, param: click.Parameter, value: Any) -> None:
        if value and param.name:
            setattr(ctx.ensure_object(Cli), param.name, value)

    return click.Option(list(names), expose_value=False, is_eager=True, callback=remember, **settings)


def server_option(**settings: Any) -> click.Option:
    return common_option(
        "--server",
        metavar="NAME",
        help="Another server than the active one: its name here, or its address.",
        shell_complete=servers,
        **settings,
    )


class PromptedOption(click.Option):
    """PromptedOption for on a terminal when it is missing; elsewhere an error that says how to give it."""

    def prompt_for_value(self, ctx: click.Context) -> Any:
        if not sys.stdin.isatty():
            text = f"{self.opts[0]} is missing"
            hint = f" or in the environment as {self.envvar}" if isinstance(self.envvar, str) else ""
            raise click.UsageError(f"{text}: give it as an option{hint} (there is no terminal to ask on)", ctx)
        return click.prompt(
            str(self.prompt),
            hide_input=self.hide_input,
            confirmation_prompt=self.confirmation_prompt,
            type=self.type,
            value_proc=lambda value: self.process_value(ctx, value),
            err=True,
        )


def asked(
    name: str, help: str, *, secret: bool = False, new: bool = False, envvar: str | None = None
) -> Callable[..., Any]:
    """`new`: a secret that is being set, typed twice."""
    return click.option(
        name,
        cls=PromptedOption,
        prompt=name.lstrip("-").replace("-", " ").capitalize(),
        prompt_required=True,
        hide_input=secret,
        confirmation_prompt=new,
        envvar=envvar,
        show_envvar=envvar is not None,
        help=help,
    )


def confirm(question: str, yes: bool) -> None:
    """Ask before something is destroyed: `--yes` answers it, and without a terminal it has to."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"{question} Add --yes to do it (there is no terminal to ask on).")
    click.confirm(question, abort=True, err=True)


yes_option = click.option("--yes", is_flag=True, help="Do not ask.")
