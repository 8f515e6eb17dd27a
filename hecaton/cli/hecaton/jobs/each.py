"""The payloads of `hecaton job new --each`: a file with one JSON value per line, or a glob of files. Checked to the end
before anything is sent, read twice in pieces, so that a million lines take no more memory than one."""

from __future__ import annotations

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
        if sum(1 for _ in _lines(source)) == 0:
            raise BadRequest(f"{pattern} has no lines", "Write one JSON value per line, one for each job.")
        yield (_item(client, line) for line in _lines(source))


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
        try:
            text.decode()  # the parser looks into no string
            _syntax.decode(text)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise BadRequest(
                f"{source.name}, line {number} is not JSON: {error}; nothing was submitted", "One JSON value per line."
            ) from error
        yield text


def _split(source: payload.Source) -> Iterator[bytes]:
    rest = b""
    for piece in source.pieces():
        *lines, rest = (rest + piece).split(b"\n")
        yield from lines
    yield rest
