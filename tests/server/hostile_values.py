"""Values that no honest side sends, generated from the types of messages: at the edge of what a field may be and beyond
it, of another type, endless, and nested without end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec
from msgspec import inspect

MIB = 1024 * 1024
MANY = 1_000_000
DEPTH = 100_000
TERMINAL = "\x1b]52;c;aGVsbG8=\x07\0"


class Format(NamedTuple):
    """`many`: a list of so many of this; `deep`: lists in lists."""

    encode: Callable[[Any], bytes]
    many: Callable[[bytes], msgspec.Raw]
    deep: msgspec.Raw
    odd_numbers: tuple[Any, ...]


MESSAGEPACK = Format(
    msgspec.msgpack.encode,
    lambda one: msgspec.Raw(b"\xdd" + MANY.to_bytes(4, "big") + one * MANY),
    msgspec.Raw(b"\x91" * DEPTH + b"\xc0"),
    (float("nan"), float("inf"), -(2**63), 2**63, 2**64 - 1),
)
JSON = Format(
    msgspec.json.encode,
    lambda one: msgspec.Raw(b"[" + (one + b",") * (MANY - 1) + one + b"]"),
    msgspec.Raw(b"[" * DEPTH + b"]" * DEPTH),
    (msgspec.Raw(b"NaN"), msgspec.Raw(b"1e999"), msgspec.Raw(b"-" + b"9" * 5000), -(2**63), 2**63, 2**64),
)

Known = Mapping[Any, Any]
"""Honest values, by the name of a field or by the class of a struct."""


def honest(kind: inspect.Type, known: Known) -> Any:
    """What a field of this type may well be."""
    match kind:
        case inspect.StructType(cls=cls) if cls in known:
            return known[cls]
        case inspect.StructType(array_like=True):
            tag = [kind.tag] if kind.tag is not None else []
            return tag + [known.get(field.name, honest(field.type, known)) for field in kind.fields]
        case inspect.StructType():
            wanted = [field for field in kind.fields if field.required or field.name in known]
            return {field.encode_name: known.get(field.name, honest(field.type, known)) for field in wanted}
        case inspect.Metadata():
            return honest(kind.type, known)
        case inspect.UnionType():
            return honest(kind.types[0], known)
        case inspect.VarTupleType() | inspect.ListType():
            return [honest(kind.item_type, known)]
        case inspect.DictType():
            return {"name": honest(kind.value_type, known)}
        case inspect.EnumType():
            return next(iter(kind.cls)).value
        case inspect.IntType():
            return max(1, int(kind.ge or 0))
        case inspect.FloatType():
            return 1.0
        case inspect.BoolType():
            return False
        case inspect.BytesType():
            return b"bytes"
    return "text" if isinstance(kind, inspect.StrType) else 1


def hostile(kind: inspect.Type, known: Known, form: Format) -> Iterator[tuple[str, Any]]:
    """Each with the way to it in the message."""
    yield from _anywhere(form)
    match kind:
        case inspect.Metadata():
            yield from hostile(kind.type, known, form)
        case inspect.UnionType():
            for one in kind.types:
                if not isinstance(one, inspect.NoneType):
                    yield from hostile(one, known, form)
        case inspect.StructType(array_like=True):
            whole = honest(kind, known) if kind.cls not in known else known[kind.cls]
            start = len(whole) - len(kind.fields)
            yield "cut off", whole[:-1]
            yield "longer", [*whole, *range(DEPTH)]
            for position, field in enumerate(kind.fields, start):
                for way, value in hostile(field.type, known, form):
                    yield f".{field.name}{way}", [*whole[:position], value, *whole[position + 1 :]]
        case inspect.StructType():
            whole = honest(kind, known)
            yield ".unknown", whole | {"unknown": 1}
            for field in kind.fields:
                for way, value in hostile(field.type, known, form):
                    yield f".{field.encode_name}{way}", whole | {field.encode_name: value}
        case inspect.VarTupleType() | inspect.ListType():
            yield "[many]", form.many(form.encode(honest(kind.item_type, known)))
            for way, value in hostile(kind.item_type, known, form):
                yield f"[]{way}", [value]
        case inspect.DictType():
            yield "{many}", {f"k{number}": "" for number in range(DEPTH)}
            for way, value in hostile(kind.value_type, known, form):
                yield f"{{}}{way}", {"name": value}
        case _:
            yield from ((" of its own type", value) for value in _of_a_plain_type(kind, form))


def _anywhere(form: Format) -> Iterator[tuple[str, Any]]:
    """Wherever a value stands."""
    for value in (None, "", "x" * MIB, TERMINAL, True, 0, -1, [], {}, {"": {}}, *form.odd_numbers):
        yield f" = {_brief(value)}", value
    yield " = nested lists", form.deep
    yield " = many", form.many(form.encode(0))
    yield " = many lists", form.many(form.encode([]))


def _of_a_plain_type(kind: inspect.Type, form: Format) -> Iterator[Any]:
    match kind:
        case inspect.IntType():
            for bound in (kind.ge, kind.le, kind.lt):
                if bound is not None:
                    yield from (number for number in (bound - 1, bound, bound + 1) if -(2**63) <= number < 2**64)
        case inspect.FloatType():
            yield from (-1.0, 1e308)
        case inspect.StrType():
            longest = kind.max_length or MIB
            yield from ("ä" * longest, "ä" * (longest + 1))
        case inspect.BytesType():
            yield from (b"", bytes(MIB), bytes(MIB + 1), bytes(3 * MIB))
        case inspect.RawType() | inspect.AnyType():
            yield from ({"x": [1.5] * 1000}, {"x": {"y": "z" * 70_000}})


def _brief(value: Any) -> str:
    return repr(value if not isinstance(value, msgspec.Raw) else bytes(value))[:30]
