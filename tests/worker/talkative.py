"""A handler file that says to its worker everything that the protocol has words for, at its edges and beyond. The
payload, `{"type": ..., "field": ...}`, says of which frame, and which field of it (empty: each) goes astray.

Made from the table in `hecaton.serverless.protocol`, so a new field is tried as soon as it stands there.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import struct
from collections.abc import Iterator
from typing import Any

from hecaton.serverless import ServerLessInput, loop, protocol, start

FROM_CONTAINERS = ("hello", "result", "progress", "skipped")

_ROOM = (1 << 20) - 2048
"""Bytes of a header that a value may have."""

ASTRAY: dict[str, str] = {
    **{
        f"{name} {sign}": f"{'-' if sign == 'below' else ''}{number}"
        for name, number in (
            ("zero", 0), ("one", 1), ("31 bits", 2**31 - 1), ("32 bits", 2**31), ("63 bits", 2**63 - 1),
            ("64 bits", 2**63), ("65 bits", 2**64), ("4,300 digits", 10**4299), ("5,000 digits", "9" * 5000),
            ("largest", 1.7e308), ("too large", "1e999"), ("small", "5e-324"), ("fraction", 0.5),
        )
        for sign in ("above", "below")
    },
    "no number": "NaN", "infinite": "Infinity", "true": "true", "null": "null", "no text": '""', "NUL": r'"\u0000"',
    "half a character": r'"\ud800"', "a path": '"../../journal"', "escapes": r'"\u001b]52;c;eA==\u0007"',
    "1 MiB of text": '"' + "x" * _ROOM + '"', "no list": "[]", "no object": "{}",
    "refs": '[{"job": "a", "attempt": 1}]',
    "many numbers": "[" + "0," * (_ROOM // 2 - 1) + "0]", "many lists": "[" + "[]," * (_ROOM // 3 - 1) + "[]]",
    "many refs": "[" + '{"job":"a","attempt":1},' * (_ROOM // 24 - 1) + '{"job":"a","attempt":1}]',
    "deep": "[" * 500 + "]" * 500, "too deep": "[" * 100_000 + "]" * 100_000, "many names": "{" + ",".join(
        f'"{number}":0' for number in range(80_000)) + "}",
    "no JSON": "[1,", "no value": "",
}  # fmt: skip
"""As JSON spells it, or does not."""


def fields(kind: str) -> tuple[str, ...]:
    """Of a frame that containers send, by the table."""
    assert protocol.__doc__ is not None
    rows = re.findall(r"^    (\w+) +([\w|]+(?: \w+)?) +(.+)$", protocol.__doc__, re.MULTILINE)
    found = tuple(name for name, _, rest in rows if _is_in(kind, rest))
    ref = ("job", "attempt") if kind in ("result", "progress") else ()
    return tuple(dict.fromkeys((*found, *ref)))


def _is_in(kind: str, rest: str) -> bool:
    place = re.split(r"  +", rest)[0]
    return kind in re.split(r"[, ]+", place) or place == "every frame"


def frames(kind: str, field: str, valid: dict[str, Any]) -> Iterator[bytes]:
    for name in (field,) if field else fields(kind):
        for value in ASTRAY.values():
            rest = ",".join(f"{json.dumps(key)}:{json.dumps(said)}" for key, said in valid.items() if key != name)
            yield _frame(f"{{{rest},{json.dumps(name)}:{value}}}".encode())
    for head, body in ((2**32 - 1, 0), (0, 2**32 - 1), (2, 0), (0, 0)):
        yield struct.pack("!II", head, body) + b"{}"


def _frame(head: bytes, body: bytes = b"1") -> bytes:
    return struct.pack("!II", len(head), len(body)) + head + body


def handler(data: ServerLessInput) -> object:
    kind, field = data.input["type"], data.input["field"]
    if kind == "good":
        return "good"
    ref = {"job": data.job_id, "attempt": data.attempt}
    link: Any = loop._link
    hello = {"type": "hello", "protocol": 2, "nonce": link._nonce, "pid": os.getpid(), "pending": [], "running": ref}
    valid: dict[str, Any] = {
        "hello": hello, "progress": {"type": "progress", **ref, "value": 1}, "skipped": {"type": "skipped", "turn": 1},
        "result": {"type": "result", **ref, "status": "handler_error", "kind": "json", "log_end": 0,
                   "error": {"type": "E", "message": "m", "traceback": "t"}},
    }[kind]  # fmt: skip
    for frame in frames(kind, field, valid):
        before = b"" if kind == "hello" else _frame(json.dumps(hello).encode(), b"")
        with contextlib.suppress(OSError), dial() as connection:
            connection.sendall(before + frame)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(1 << 16):  # until the worker has heard it, and has closed
                pass
    return "said it all"


def dial() -> socket.socket:
    folder = os.environ["HECATON_DIR"]
    opened = os.open(folder, os.O_RDONLY)
    made = socket.socket(socket.AF_UNIX)
    made.settimeout(20)
    made.connect(protocol.socket_address(folder, opened))
    os.close(opened)
    return made


if __name__ == "__main__":
    start(handler)
