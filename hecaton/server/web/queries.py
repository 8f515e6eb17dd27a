"""What may stand behind the question mark of an address: declared with its route, read by it, described by it."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from hecaton.core.errors import BadRequest
from hecaton.core.model import JobState
from hecaton.server.jobs.requests import MAX_NAME, MAX_TAG_KEY, MAX_TAG_VALUE, MAX_TAGS
from hecaton.wire.api import MAX_TOLD, Whose

SHORT_QUERY = 128
"""Bytes. Query strings up to this length are remembered; longer ones would fill the memory."""

MAX_WAIT = 3600
MAX_PAGE = 1000
_MOST = 2**53  # JSON's largest whole number
_WHOLE = re.compile(r"-?[0-9]{1,20}", re.ASCII)
_NUMBER = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?", re.ASCII)


class Parameter(msgspec.Struct, frozen=True):
    """One of `words`, a text of up to `longest` characters, or else a number from `low` to `high`. `default`: what it
    means to leave it out. `most`: it may be said so often, and is a tuple; 0: once."""

    name: str
    summary: str
    default: float | str | None = None
    low: float = 0
    high: float = _MOST
    whole: bool = True
    words: tuple[str, ...] = ()
    longest: int = 0
    most: int = 0

    def read(self, text: str) -> float | str:
        """BadRequest if it is no value of this."""
        if self.words:
            if text not in self.words:
                raise BadRequest(f"{self.name}={text[:40]!r}: expected one of {', '.join(self.words)}")
            return text
        if self.longest:
            if len(text) > self.longest:
                raise BadRequest(f"{self.name}={text[:40]!r}...: expected at most {self.longest} characters")
            return text
        pattern, kind = (_WHOLE, int) if self.whole else (_NUMBER, float)
        value = kind(text) if pattern.fullmatch(text) else math.nan
        if not self.low <= value <= self.high:
            expected = "a whole number" if self.whole else "a number"
            raise BadRequest(f"{self.name}={text[:40]!r}: expected {expected} from {self.low:,g} to {self.high:,}")
        return value

    @property
    def schema(self) -> dict[str, Any]:
        """As JSON Schema."""
        if self.words:
            described: dict[str, Any] = {"type": "string", "enum": list(self.words)}
        elif self.longest:
            described = {"type": "string", "maxLength": self.longest}
        else:
            described = {"type": "integer" if self.whole else "number", "minimum": self.low, "maximum": self.high}
        if self.most:
            return {"type": "array", "items": described, "maxItems": self.most}
        return described if self.default is None else {**described, "default": self.default}


class Query:
    """The parameters of one route. Nearly always the same text comes again, such as `wait=60`."""

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        self.defaults: Mapping[str, Any] = MappingProxyType(
            {one.name: () if one.most else one.default for one in parameters}
        )
        self._parameters = {one.name: one for one in parameters}
        self._known = lru_cache(maxsize=64)(self._read)

    def read(self, text: bytes) -> Mapping[str, Any]:
        """Every parameter's value by its name. BadRequest names what is unknown, out of bounds or said twice."""
        # hot: benchmarks/latency.py
        return self._known(text) if len(text) <= SHORT_QUERY else self._read(text)

    def _read(self, text: bytes) -> Mapping[str, Any]:
        said: dict[str, list[float | str]] = {}
        for name, value in parse_qsl(text.decode("latin-1"), keep_blank_values=True):
            if name not in self._parameters:
                raise self._unknown(name)
            parameter, before = self._parameters[name], said.setdefault(name, [])
            if len(before) >= max(1, parameter.most):
                often = f"{parameter.most} times" if parameter.most else "once"
                raise BadRequest(f"{name!r} stands behind the '?' more than {often}")
            before.append(parameter.read(value))
        values = {name: tuple(its) if self._parameters[name].most else its[0] for name, its in said.items()}
        return MappingProxyType({**self.defaults, **values})

    def _unknown(self, name: str) -> BadRequest:
        known = list(self._parameters)
        near = difflib.get_close_matches(name[:40], known, 1)
        hint = f"Did you mean {near[0]!r}?" if near else f"Known here: {', '.join(known)}." if known else None
        return BadRequest(f"{name[:40]!r} is not known here, behind the '?'", hint or "Nothing is known there.")


WAIT = Parameter(
    "wait", "Answer when the job has ended, after so many seconds at the latest (50 in one request: ask again).",
    high=MAX_WAIT, whole=False,
)  # fmt: skip
FOLLOW = Parameter(
    "wait", "Say how it is after so many seconds at the latest, ended or not (50 in one request: wait for it then).",
    default=50, high=MAX_WAIT, whole=False,
)  # fmt: skip
WHOSE = Parameter(
    "whose", "Only one's own jobs, or everybody's, which are an admin's to see; left out: all that one may see.",
    words=tuple(Whose),
)  # fmt: skip
STATE = Parameter("state", "Only jobs in this state.", words=tuple(JobState))
LIMIT = Parameter("limit", "At most so many.", default=50, low=1, high=MAX_PAGE)
BEFORE = Parameter("before", "Only what is older: the index of the oldest on the page before.")
NAME = Parameter("name", "Only jobs that are called so.", longest=MAX_NAME)
TAG = Parameter(
    "tag", "Only jobs with this tag, key=value; with all of them where several are asked for.",
    longest=MAX_TAG_KEY + 1 + MAX_TAG_VALUE, most=MAX_TAGS,
)  # fmt: skip
ATTEMPT = Parameter("attempt", "Of this attempt, from 1; the newest one by default.", low=1, high=2**31 - 1)
OFFSET = Parameter("offset", "From this byte of the log on.", default=0)
FROM_NUMBER = Parameter("after", "Only files from this number on: `next` of the page before.", default=0)
FILES = Parameter("limit", "At most so many.", default=MAX_TOLD, low=1, high=MAX_TOLD)
FROM_BYTE = Parameter("offset", "From this byte of the file on.", default=0)
ORDER = Parameter("order", "As jobs have ended, or as the items were given.", default="ended", words=("ended", "input"))
AFTER = Parameter(
    "after", "Only those behind it: `ended_as` of the last line, or `index` + 1 with order=input.", default=0
)
STREAM = Parameter(
    "wait", "Go on with what comes, for so many seconds at the most.", default=0, high=MAX_WAIT, whole=False
)
