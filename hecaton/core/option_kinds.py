"""What an option of a job is: what its values look like, what they change, and who carries it out."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from hecaton.core.errors import BadRequest
from hecaton.core.files import mounts
from hecaton.core.placement.needs import cards_of, size_of, workers_of

LONGEST = 30 * 86400.0

MAX_VARIABLES = 64
MAX_VARIABLE_BYTES = 32 * 1024
"""Of names and values together."""

_PATH = re.compile(r"/[!-~]{0,1023}", re.ASCII)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}", re.ASCII)
_OURS = "HECATON_"


class ValueKind(enum.Enum):
    """What values look like."""

    SECONDS = enum.auto()  # more than 0 and at most `LONGEST`; people write 90, 15m, 2h
    WHOLE = enum.auto()  # from `low` to `high`
    FLAG = enum.auto()
    WORD = enum.auto()  # one of `words`
    VARIABLES = enum.auto()  # of an environment: values by name
    NUMBER = enum.auto()  # more than `low` and at most `high`, with a point if need be
    SIZE = enum.auto()  # bytes as people write them, 24G: `placement.needs.size_of`
    MODELS = enum.auto()  # of cards: `placement.needs.cards_of`
    MOUNTS = enum.auto()  # of the machine that runs it: places by name; people write NAME or NAME:/PLACE
    WHERE = enum.auto()  # on which workers: `placement.needs.workers_of`
    PATH = enum.auto()  # of a URL, from its first slash on


class Changes(enum.Flag):
    """What is another thing for jobs that ask for another value; both may be."""

    NOTHING = 0  # they may share a warm container, one after the other
    PLACEMENT = enum.auto()  # which workers may run them
    CONTAINER = enum.auto()  # how their container is made


class Option(msgspec.Struct, frozen=True):
    """`by_worker`: the worker carries it out, and must say that it can; else the server alone does. `by_image`: an
    image may have a value for those of its jobs that ask for none.

    `label` and `meaning`: how `job show` says it; without a label it is shown elsewhere, or not at all."""

    kind: ValueKind
    help: str
    low: int = 0
    high: int = 0
    words: tuple[str, ...] = ()
    changes: Changes = Changes.NOTHING
    by_worker: bool = False
    by_image: bool = False
    label: str | None = None
    meaning: str | None = None
    name: str = ""
    default: Any = None

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def expected(self) -> str:
        """What a value has to be, for people."""
        if self.kind is ValueKind.SECONDS:
            return f"seconds, more than 0 and at most {LONGEST / 86400:g} days"
        if self.kind is ValueKind.WHOLE:
            return f"a whole number from {self.low} to {self.high}"
        if self.kind is ValueKind.VARIABLES:
            return f"values by name, {MAX_VARIABLES} at most, no name with {_OURS}"
        if self.kind is ValueKind.MOUNTS:
            return mounts.EXPECTED
        if self.kind is ValueKind.NUMBER:
            return f"a number, more than {self.low} and at most {self.high}"
        if self.kind in WRITTEN:
            return WRITTEN[self.kind][0]
        return "True or False" if self.kind is ValueKind.FLAG else f"one of {', '.join(self.words)}"

    def allows(self, value: object) -> bool:
        if value is None:
            return self.default is None
        if self.kind is ValueKind.SECONDS:
            return _is_number(value, float) and 0 < value <= LONGEST  # type: ignore[operator]
        if self.kind is ValueKind.WHOLE:
            return _is_number(value) and self.low <= value <= self.high  # type: ignore[operator]
        if self.kind is ValueKind.VARIABLES:
            return isinstance(value, dict) and _is_environment(value)
        if self.kind is ValueKind.MOUNTS:
            return isinstance(value, dict) and mounts.are_mounts(value)
        if self.kind is ValueKind.NUMBER:
            return _is_number(value, float) and self.low < value <= self.high  # type: ignore[operator]
        if self.kind in WRITTEN:
            return isinstance(value, str) and self.fault(value) is None
        return isinstance(value, bool) if self.kind is ValueKind.FLAG else value in self.words

    def fault(self, value: object) -> BadRequest | None:
        """What the grammar of such a value has against it, with what may be meant."""
        if self.kind in WRITTEN and isinstance(value, str):
            try:
                WRITTEN[self.kind][1](value)
            except BadRequest as error:
                return error
        return None


def _path_of(text: str) -> str:
    """BadRequest for what is none."""
    if not _PATH.fullmatch(text):
        raise BadRequest(f"{text[:80]!r} is no path of a URL", "It begins with a slash and has no spaces.")
    return text


WRITTEN: Mapping[ValueKind, tuple[str, Callable[[str], object]]] = {
    ValueKind.SIZE: ("a size such as 24G or 512M", size_of),
    ValueKind.MODELS: ("models of cards such as a100 or a100,h100", cards_of),
    ValueKind.WHERE: ("workers such as box7 or !box7", workers_of),
    ValueKind.PATH: ("the path of a URL such as /predict", _path_of),
}
"""Texts with a grammar: what one of them is, for people, and who reads it."""


def _is_environment(values: dict[object, object]) -> bool:
    for name, value in values.items():
        if not isinstance(name, str) or not _VARIABLE.fullmatch(name) or name.startswith(_OURS):
            return False
        if not isinstance(value, str) or "\0" in value:
            return False
    size = sum(len(f"{name}={value}") for name, value in values.items())
    return len(values) <= MAX_VARIABLES and size <= MAX_VARIABLE_BYTES


def _is_number(value: object, *more: type) -> bool:
    """True and False are none, though Python counts with them."""
    return isinstance(value, (int, *more)) and not isinstance(value, bool)


def shown(value: object) -> str:
    """Python refuses to write integers of more than 4,300 digits."""
    if isinstance(value, int) and value.bit_length() > 64:
        return f"a number of {value.bit_length()} bits"
    return repr(value)[:40]
