"""What the calls about every noun have in common: the transport, paths, and words that are one of a few."""

from __future__ import annotations

from typing import TypeVar

from hecaton.client.heads import quoted
from hecaton.client.http import Transport
from hecaton.core.errors import BadRequest
from hecaton.core.model import JobState, KeyScope, Mode, Role
from hecaton.wire.api import API, Whose

Choice = TypeVar("Choice", Role, KeyScope, Mode, JobState, Whose)


class Calls:
    """A part of `Client`, which makes the transport."""

    _transport: Transport


def path_in(noun: str, name: str) -> str:
    """Names of images hold slashes and colons: they travel percent-encoded."""
    if name in ("", ".", ".."):
        raise BadRequest(f"{name!r} names nothing in {noun}")
    return f"{API}/{noun}/{quoted(name)}"


def member(kind: type[Choice], value: Choice | str) -> Choice:
    try:
        return kind(value)
    except ValueError:
        raise BadRequest(f"{value!r} is no {kind.__name__.lower()}", f"One of: {', '.join(kind)}") from None
