"""Messages as they are printed in Python: what they hold, and nothing that says nothing."""

from __future__ import annotations

import enum
from collections.abc import Iterator

import msgspec

LONGEST = 200
"""Characters of one text or JSON value; a result may have a MiB."""

_SIZED = (str, tuple, list, dict)


def shown(value: object) -> str:
    """Short and whole: what is null, empty, false or as by default says nothing."""
    if isinstance(value, msgspec.Struct):
        return f"{type(value).__name__}({', '.join(f'{name}={shown(one)}' for name, one in _said(value))})"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {shown(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(shown, value)) + "]"
    if isinstance(value, msgspec.Raw):
        text = bytes(value).decode(errors="replace")
    elif isinstance(value, enum.Enum):
        text = str(value.value)
    else:
        text = repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def _said(value: msgspec.Struct) -> Iterator[tuple[str, object]]:
    for field in msgspec.structs.fields(value):
        one = getattr(value, field.name)
        empty = one is None or one is False or one is msgspec.UNSET or (isinstance(one, _SIZED) and not one)
        null = isinstance(one, msgspec.Raw) and bytes(one) == b"null"
        if not empty and not null and (field.required or one != field.default):
            yield field.name, one
