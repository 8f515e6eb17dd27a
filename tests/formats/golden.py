"""One example of every message and record, as bytes, kept for good. `python -m tests.formats.golden` adds the files of
a new version; what a release has spoken is never written again.

A line: name of the type, and the bytes in hex."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import msgspec
from msgspec import inspect

from hecaton.core.options import Options
from hecaton.serverless import protocol
from hecaton.wire import channel
from hecaton.worker.memory import journal, records

FOLDER = Path(__file__).with_name("golden")
VERSIONS = {
    "channel": (channel.OLDEST, channel.PROTOCOL),
    "journal": (journal.VERSION - 1, journal.VERSION),
    "container": (protocol.OLDEST_VERSION, protocol.PROTOCOL_VERSION),
}
"""Of each format, the oldest and the newest that this release speaks."""

FIRST = {"channel": 2, "journal": 2, "container": 1}
"""Versions before are from before there were releases: nobody speaks them."""

REF = {"job": "j", "attempt": 1}
CONTAINER: Mapping[str, tuple[dict[str, Any], bytes]] = {
    "hello": (
        {"protocol": 1, "nonce": "ab", "sdk": "2.0.0", "python": "3.9.18", "pid": 7, "pending": [REF], "running": REF,
         "ahead": True, "log": "log.1"},
        b"",
    ),
    "refused": ({"pid": 7}, b""),
    "welcome": ({"protocol": 1, "max_result": 1048576}, b""),
    "job": ({**REF, "key": "k", "kind": "json", "turn": 3}, b"[1]"),
    "ack": (REF, b""),
    "result": ({**REF, "status": "ok", "kind": "json", "log_end": 7, "next_log": "log.2"}, b"[2]"),
    "progress": ({**REF, "value": 0.5, "yielded": 0}, b""),
    "skipped": ({**REF, "turn": 3}, b""),
}  # fmt: skip


OPTIONS = {"timeout": 1.5, "no_overlap": True}
"""Options travel by name, and `Hello` says which a worker knows: a new one raises no version."""


def examples(format: str) -> dict[str, bytes]:
    """By the name of the type, as this release writes them."""
    if format == "container":
        return {name: protocol.encode({"type": name, **header}, body) for name, (header, body) in CONTAINER.items()}
    kinds = (
        get_args(records.Record) if format == "journal" else get_args(channel.ToWorker) + get_args(channel.FromWorker)
    )
    return {kind.__name__: msgspec.msgpack.encode(example(kind)) for kind in kinds}


def example(kind: Any) -> Any:
    """With every field set, none at its default."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(_value(inspect.type_info(kind))), type=kind)


def _value(kind: inspect.Type) -> Any:
    match kind:
        case inspect.StructType(array_like=True):
            tag = [kind.tag] if kind.tag is not None else []
            return tag + [_value(field.type) for field in kind.fields]
        case inspect.StructType(cls=cls) if cls is Options:
            return OPTIONS
        case inspect.Metadata():
            return _value(kind.type)
        case inspect.StructType():
            return {field.encode_name: _value(field.type) for field in kind.fields}
        case inspect.UnionType():
            return _value(next(one for one in kind.types if not isinstance(one, inspect.NoneType)))
        case inspect.VarTupleType() | inspect.ListType():
            return [_value(kind.item_type)]
        case inspect.DictType():
            return {_value(kind.key_type): _value(kind.value_type)}
        case inspect.EnumType():
            return list(kind.cls)[-1].value
        case inspect.CustomType() | inspect.StrType():
            return "text"
        case inspect.IntType():
            return 7
        case inspect.FloatType():
            return 1.5
        case inspect.BoolType():
            return True
        case inspect.BytesType():
            return b"\x00\xff"
        case inspect.RawType():
            return {"any": [1, None]}
    raise TypeError(f"no example of {kind}")


def path_of(format: str, version: int) -> Path:
    return FOLDER / f"{format}-{version}.txt"


def kept(format: str, version: int) -> dict[str, bytes]:
    lines = path_of(format, version).read_text(encoding="ascii").splitlines()
    return {name: bytes.fromhex(text) for name, text in (line.split(" ") for line in lines)}


def main() -> int:
    FOLDER.mkdir(exist_ok=True)
    for format, (_, newest) in VERSIONS.items():
        path = path_of(format, newest)
        if path.exists():
            print(f"{path.name} is there: raise the version to write another")
            continue
        path.write_text("".join(f"{name} {data.hex()}\n" for name, data in examples(format).items()), encoding="ascii")
        print(f"{path.name} written")
    return 0


if __name__ == "__main__":
    sys.exit(main())


__all__ = ["FIRST", "VERSIONS", "example", "examples", "kept", "path_of"]
