"""The flags by which options of a job are asked for, made from `core.options`, and its tags."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import click

from hecaton.cli.duration import Duration
from hecaton.core.doors import OF_SOME_WAYS
from hecaton.core.files import mounts
from hecaton.core.option_kinds import WRITTEN, Option, ValueKind
from hecaton.core.options import OPTIONS

OF_SCRIPTS = tuple(o for o in OPTIONS.values() if o.name != "protocol" and o.name not in OF_SOME_WAYS)
"""Without those that say how an image is spoken to: a script brings its own program."""

F = TypeVar("F", bound=Callable[..., Any])


def tags_option(help: str) -> Callable[[F], F]:
    return click.option("--tag", "tags", metavar="KEY=VALUE", multiple=True, callback=_tags, help=help)


def _tags(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for one in value:
        key, separator, content = one.partition("=")
        if not key or not separator:
            raise click.BadParameter(f"{one!r} is no tag: write key=value", ctx, param)
        found[key] = content
    return found


def _variables(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> dict[str, str] | None:
    """None where there are none."""
    found = {}
    for one in value:
        name, separator, content = one.partition("=")
        if not separator and name not in os.environ:
            raise click.BadParameter(f"{name} is not set here: write {name}=VALUE", ctx, param)
        found[name] = content if separator else os.environ[name]
    return found or None


def _written(option: Option) -> Callable[[click.Context, click.Parameter, str | None], str | None]:
    def read(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
        fault = option.fault(value)
        if fault is not None:
            raise click.BadParameter(f"{fault.message}. {fault.hint}", ctx, param)
        return value

    return read


def _mounts(option: Option) -> Callable[[click.Context, click.Parameter, tuple[str, ...]], dict[str, str] | None]:
    def read(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> dict[str, str] | None:
        """None where there are none."""
        found = mounts.asked(value)
        if len(found) < len(value) or not option.allows(found):
            raise click.BadParameter(f"{' '.join(value)}: expected {option.expected}", ctx, param)
        return found or None

    return read


def job_options(command: F) -> F:
    """Adds a flag for each; a parameter is None where it was not given."""
    return _flags(command, OPTIONS.values())


def script_options(command: F) -> F:
    return _flags(command, OF_SCRIPTS)


def _flags(command: F, options: Iterable[Option]) -> F:
    for option in reversed([*options]):
        command = _flag(option)(command)
    return command


def _flag(option: Option) -> Callable[[F], F]:
    text = option.help
    if option.kind is ValueKind.VARIABLES:
        return click.option(
            f"-{option.name[0]}", option.flag, metavar="KEY=VALUE", multiple=True, callback=_variables,
            help=f"{text} KEY alone: as it is set here.",
        )  # fmt: skip
    if option.kind is ValueKind.MOUNTS:
        return click.option(option.flag, metavar="NAME[:/PLACE]", multiple=True, callback=_mounts(option), help=text)
    if option.kind is not ValueKind.FLAG and "default" not in text:
        text = f"{text.removesuffix('.')}; by default {'none' if option.default is None else option.default}."
    if option.kind is ValueKind.FLAG:
        return click.option(option.flag, is_flag=True, default=None, help=text)
    if option.kind is ValueKind.SECONDS:
        return click.option(option.flag, type=Duration(), help=f"{text.removesuffix('.')} (90, 15m, 2h).")
    if option.kind is ValueKind.WORD:
        return click.option(option.flag, type=click.Choice(option.words), help=text)
    if option.kind in WRITTEN:
        return click.option(option.flag, metavar=option.kind.name, callback=_written(option), help=text)
    if option.kind is ValueKind.NUMBER:
        return click.option(option.flag, type=click.FloatRange(option.low, option.high, min_open=True), help=text)
    return click.option(option.flag, type=click.IntRange(min=0) if option.low == 0 else int, help=text)
