"""The options that an image has for those of its jobs that ask for nothing else: flags made from `core.options`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from hecaton.cli.duration import Duration
from hecaton.cli.terminal import duration
from hecaton.core.option_kinds import WRITTEN, ValueKind
from hecaton.core.options import OF_IMAGES, Options, given

FLAGS = ", ".join(option.flag for option in OF_IMAGES.values())

_TAKEN_BACK = "none"

F = TypeVar("F", bound=Callable[..., Any])


class _OrNone(click.ParamType[Any]):
    def __init__(self, values: click.ParamType[Any]) -> None:
        self._values = values
        self.name = values.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if value == _TAKEN_BACK else self._values.convert(value, param, ctx)


_TYPES: Mapping[ValueKind, click.ParamType[Any]] = {
    ValueKind.SECONDS: Duration(),
    ValueKind.WHOLE: click.INT,
    ValueKind.NUMBER: click.FLOAT,
    **dict.fromkeys(WRITTEN, click.STRING),
}


def image_options(command: F) -> F:
    """Adds a flag for each; a parameter is None where it was not given."""
    for option in reversed(list(OF_IMAGES.values())):
        type = _TYPES.get(option.kind) or click.Choice([*option.words, _TAKEN_BACK])
        written = " (90, 15m, 2h)" if option.kind is ValueKind.SECONDS else ""
        said = option.help.partition(";")[0].removesuffix(".")
        text = f"{said}, for jobs that do not say it{written}; none takes it back."
        command = click.option(option.flag, type=_OrNone(type), help=text)(command)
    return command


def asked_for(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Those that were given; None: taken back."""
    return {name: None if value == _TAKEN_BACK else value for name, value in flags.items() if value is not None}


def shown(defaults: Options) -> list[tuple[str, object]]:
    return [
        (option.label or option.name, duration(value) if option.kind is ValueKind.SECONDS else value)
        for option, value in given(defaults)
    ]
