"""The payloads of `hecaton job new --each`: a file with one JSON value per line, or a glob of files. Checked to the end
before anything is sent, read twice in pieces, so that a million lines take no more memory than one."""

from __future__ import annotations

import codecs
import glob
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from hecaton.client import payload
from hecaton.core.errors import BadRequest
from hecaton.core.model import INLINE_LIMIT
from hecaton.wire.api import BatchItem

if TYPE_CHECKING:
    from hecaton.client import Client

ARRAY_LIMIT = 256 * 1024 * 1024
"""Bytes of a file that is read whole, because it is an array and not lines."""

_syntax = msgspec.json.Decoder(msgspec.Raw)


@contextmanager
def items_of(client: Client, pattern: str) -> Iterator[Iterator[BatchItem]]:
    """The items in order. BadRequest names the line or file that makes no sense, before the first one is given."""
    if not Path(pattern).exists() and glob.has_magic(pattern):
        files = sorted(path for path in glob.glob(pattern, recursive=True) if not Path(path).is_dir())
        if not files:
            raise BadRequest(f"no file matches {pattern}", "Quote the pattern, so that the shell leaves it as it is.")
        for file in files:
            with payload.open_source(file):
                pass
        yield (client.item(file) for file in files)
        return
    with payload.open_source(pattern) as source:
        values = _array(source)
        if values is not None:
            yield (_item(client, bytes(value)) for value in values)
            return
        if sum(1 for _ in _lines(source)) == 0:
            raise BadRequest(f"{pattern} has no lines", "Write one JSON value per line, one for each job.")
        yield (_item(client, line) for line in _lines(source))


def _array(source: payload.Source) -> list[msgspec.Raw] | None:
    """The values of a file that is one JSON array over several lines, as programs write it; None: it is not so.

    A line that is an array by itself is one value."""
    first = next(_split(source), b"").strip()
    if source.size > ARRAY_LIMIT or not first.startswith(b"[") or _fault(first) is None:
        return None
    text = source.read().removeprefix(codecs.BOM_UTF8)
    if _fault(text) is not None:
        if text.rstrip().endswith(b"]"):
            raise _no_json(source.name, text, "an array over several lines has to be JSON as a whole")
        return None
    return msgspec.json.decode(text, type=list[msgspec.Raw])


def _item(client: Client, line: bytes) -> BatchItem:
    if len(line) > INLINE_LIMIT:
        return client.item_of_bytes(line)
    return BatchItem(input=msgspec.Raw(line))


def _lines(source: payload.Source) -> Iterator[bytes]:
    """Every line, each valid JSON; empty ones are allowed at the end only."""
    empty = 0
    for number, line in enumerate(_split(source), 1):
        text = line.strip()
        if not text:
            empty = empty or number
            continue
        if empty:
            raise BadRequest(f"{source.name}, line {empty} is empty: nothing was submitted", "One JSON value per line.")
        if _fault(text) is not None:
            raise _no_json(source.name, text, "One JSON value per line.", number)
        yield text


def _fault(text: bytes) -> Exception | None:
    try:
        text.decode()  # the parser looks into no string
        _syntax.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        return error
    return None


def _no_json(name: str, text: bytes, hint: str, number: int = 1) -> BadRequest:
    """Where and why. `number`: of the line in the file where the text begins."""
    fault = payload.fault_of_text(text)
    if fault.why == payload.EXTRA and text.rstrip().endswith(b","):
        hint = f"No comma ends a line. {hint}"
    where = f"{name}, line {number + fault.line - 1}, column {fault.column}"
    return BadRequest(f"{where} is not JSON: {fault.why}; nothing was submitted", hint)


def _split(source: payload.Source) -> Iterator[bytes]:
    """A byte order mark, which editors on Windows write, is none of the first line."""
    rest = b""
    first = True
    for piece in source.pieces():
        rest += piece.removeprefix(codecs.BOM_UTF8) if first else piece
        first = False
        *lines, rest = rest.split(b"\n")
        yield from lines
    yield rest
