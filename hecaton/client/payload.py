"""The payload rule: what parses as JSON is that value, other UTF-8 is text, anything else bytes. For SDK and CLI.

Files are read in pieces or mapped, so that memory stays flat whatever their size.
"""

from __future__ import annotations

import codecs
import contextlib
import hashlib
import json
import mmap
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import msgspec

from hecaton.core.errors import BadRequest
from hecaton.core.model import Kind

PIECE = 256 * 1024

STDIN = "-"
"""Of a file of this name: ./-"""

_BOM = codecs.BOM_UTF8
_syntax = msgspec.json.Decoder(msgspec.Raw)


def kind_of(data: bytes | memoryview) -> Kind:
    """JSON by RFC 8259: UTF-8, no NaN, no lone surrogates. Nothing at all is text."""
    if not _is_utf8(data):
        return Kind.BYTES
    try:
        _syntax.decode(data)  # reads the syntax only, and builds nothing
    except (msgspec.DecodeError, RecursionError):
        return Kind.TEXT
    return Kind.JSON


def _is_utf8(data: bytes | memoryview) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for start in range(0, len(data), PIECE):
            decoder.decode(data[start : start + PIECE])
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def without_bom(data: bytes) -> bytes:
    """Editors on Windows put a byte order mark in front of JSON, which JSON does not allow."""
    rest = data.removeprefix(_BOM)
    return rest if rest != data and kind_of(rest) is Kind.JSON else data


def fault_of_json(path: str | os.PathLike[str]) -> str | None:
    """Why a file is not JSON, with line and column; None: it is, or cannot be read here."""
    try:
        with open_source(path) as source:
            if source.kind() is Kind.JSON:
                return None
            fault = fault_of_text(source.read())
    except BadRequest:
        return None
    return f"line {fault.line}, column {fault.column}: {fault.why}"


class JsonFault(msgspec.Struct, frozen=True):
    """Lines and columns from 1."""

    line: int
    column: int
    why: str


EXTRA = "Extra data"
"""What the parser calls what stands behind a value."""


def fault_of_text(text: bytes) -> JsonFault:
    """Where and why text that is not JSON is none."""
    try:
        json.loads(text.decode(), parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        return JsonFault(error.lineno, error.colno, error.msg)
    except UnicodeDecodeError as error:
        before = text[: error.start]
        line = before.count(b"\n") + 1
        return JsonFault(line, error.start - before.rfind(b"\n"), "it is not UTF-8")
    except (ValueError, RecursionError) as error:
        why = str(error)
    else:
        why = "JSON does not allow what stands in a string here"
    found = re.search(rb"\b(NaN|-?Infinity)\b", text)
    before = text[: found.start()] if found else b""
    return JsonFault(before.count(b"\n") + 1, len(before) - before.rfind(b"\n"), why)


def _refuse_constant(word: str) -> None:
    raise ValueError(f"{word} is no JSON: write null")


def encode(value: Any) -> bytes:
    """A Python value as JSON. BadRequest for what JSON cannot say (NaN, bytes, sets, objects)."""
    try:
        return json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise BadRequest(
            f"the input cannot be sent as JSON: {error}",
            "Send text, numbers without NaN, lists and dicts; bytes go in `payload=`, files in `payload_file=`.",
        ) from error


class Source:
    """An open file to send: its size, and its bytes as often as they are needed. `name` is for messages."""

    def __init__(self, file: IO[bytes], name: str, start: int = 0) -> None:
        self._file = file
        self.name = name
        self._start = start
        self.size = os.fstat(file.fileno()).st_size - start

    def pieces(self) -> Iterator[bytes]:
        """Exactly `size` bytes. BadRequest if the file shrank or cannot be read any more."""
        left = self.size
        try:
            self._file.seek(self._start)
            while left:
                piece = self._file.read(min(PIECE, left))
                if not piece:
                    raise BadRequest(f"{self.name} became shorter while it was read", "Submit it again.")
                left -= len(piece)
                yield piece
        except OSError as error:
            raise _unreadable(self.name, error) from error

    def read(self) -> bytes:
        return b"".join(self.pieces())

    def start(self, size: int) -> bytes:
        """Its first bytes. BadRequest as `pieces`."""
        return next(self.pieces(), b"")[:size]

    def sha256(self) -> str:
        digest = hashlib.sha256()
        for piece in self.pieces():
            digest.update(piece)
        return digest.hexdigest()

    def kind(self) -> Kind:
        """By the payload rule; a byte order mark in front of JSON is left out from then on."""
        if not self.size:
            return Kind.TEXT
        try:
            # A mapped file takes no memory of ours. (One that others truncate right now would end this process with
            # SIGBUS: reading it in pieces instead would need a JSON parser that stops and goes on.)
            with mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as whole:
                if mapped[: len(_BOM)] != _BOM:
                    return kind_of(whole)
                with whole[len(_BOM) :] as rest:
                    kind = kind_of(rest)
                if kind is Kind.JSON:
                    self._start += len(_BOM)
                    self.size -= len(_BOM)
                return kind
        except OSError as error:
            raise _unreadable(self.name, error) from error


@contextlib.contextmanager
def open_source(path: str | os.PathLike[str]) -> Iterator[Source]:
    """A file of the user's; pipes (`<(command)`, /dev/stdin) are copied to a temporary file first, and so is stdin,
    which `-` names.

    BadRequest names the path when there is nothing to read.
    """
    name = os.fspath(path)
    with contextlib.ExitStack() as opened:
        try:
            stdin = name == STDIN
            file: IO[bytes] = opened.enter_context(open(0 if stdin else path, "rb", closefd=not stdin))
            mode = os.fstat(file.fileno()).st_mode
            if stdin or not stat.S_ISREG(mode):
                if not (stdin or stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
                    raise BadRequest(f"cannot read {name}: it is neither a file nor a pipe")
                pipe, file = file, opened.enter_context(tempfile.TemporaryFile())
                shutil.copyfileobj(pipe, file, PIECE)
                file.flush()
        except OSError as error:
            raise _unreadable(name, error) from error
        yield Source(file, name)


@contextlib.contextmanager
def bytes_source(data: bytes) -> Iterator[Source]:
    """Bytes in memory, too many to travel in a message, as a file to send."""
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        yield Source(file, "payload")


def _unreadable(name: str, error: OSError) -> BadRequest:
    return BadRequest(f"cannot read {name}: {error.strerror or error}", f"Check the path: {Path(name).absolute()}")
