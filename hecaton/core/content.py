"""Whether bytes are what they are said to be, by one rule at every size, and where the first fault is.

Pure functions of bytes; what is large is looked at in pieces, so that other threads have their turn."""

from __future__ import annotations

import re

import msgspec

from hecaton.core.model import Kind

NAMES = {Kind.JSON: "JSON", Kind.TEXT: "UTF-8 text", Kind.BYTES: "bytes"}

_PIECE = 1 << 20
_SMALL = 1 << 16
"""Up to this many bytes JSON is decoded, which is cheapest; beyond, only its syntax is read, which builds nothing."""

_JSON = Kind.JSON
_syntax = msgspec.json.Decoder(msgspec.Raw).decode
_decode = msgspec.json.Decoder().decode
_AT_BYTE = re.compile(r"^(?:JSON is malformed: )?(.*) \(byte (\d+)\)$")
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*+"|[][{},]')
_CONSTANT = re.compile(rb"NaN|-?Infinity")
_LARGE_NUMBER = re.compile(rb"[0-9]{309}|[eE]\+?[0-9]{3}")
"""Part of each number that is too large to be read: the largest that floating point holds has 309 digits."""
_FLAT = bytes.maketrans(b"123456789E", b"000000000e")
"""`in` finds what it looks for a hundred times as fast as an expression does, if all digits are alike."""
_NUMBER = re.compile(rb"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_LONGEST_NUMBER = 5000
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LONGEST_STEP, _LONGEST_PATH = 80, 400
_NAMED_WITHIN = 8 << 20
"""Bytes: to follow lists and objects takes a second for so many. A fault behind is named by what stands before it."""


def fault_of(kind: Kind, data: bytes | memoryview) -> str | None:
    """None if `data` is of this kind. Otherwise what is wrong, and in JSON where: `$.val_loss: NaN`."""
    # hot: benchmarks/throughput.py - nearly all results are small JSON
    if kind is not _JSON:
        return _fault_of_utf8(data) if kind is Kind.TEXT else None
    try:
        if len(data) <= _SMALL:
            _decode(data)
            return None
        fault = _fault_of_utf8(data)
        if fault is None:
            _syntax(data)
            fault = _fault_of_numbers(data)
        return fault
    except UnicodeDecodeError:
        return _fault_of_utf8(data)
    except msgspec.ValidationError:
        return _fault_of_numbers(data) or "a number that is too large to be read"
    except RecursionError:
        return "it is nested too deep"
    except msgspec.DecodeError as error:
        return _located(str(error), data)


def advice_on(fault: str) -> str | None:
    """How to mend it, or to have it all the same."""
    if "NaN" not in fault and "Infinity" not in fault:
        return None
    return (
        "JSON has no NaN and no Infinity. Give null in its place; or allow it, by handing the whole over as text: "
        "json.dumps(result)."
    )


def kind_of_rest(data: bytes | memoryview) -> Kind:
    """Of what is not the kind that it was said to be: text where it can be read."""
    return Kind.BYTES if _fault_of_utf8(data) else Kind.TEXT


def _fault_of_utf8(data: bytes | memoryview) -> str | None:
    start = 0
    while start < len(data):
        end = min(start + _PIECE, len(data))
        while end < len(data) and end < start + _PIECE + 3 and data[end] & 0xC0 == 0x80:  # in the midst of a character
            end += 1
        try:
            str(data[start:end], "utf-8")
        except UnicodeDecodeError as error:
            return f"no UTF-8 from byte {start + error.start} on"
        start = end
    return None


def _fault_of_numbers(data: bytes | memoryview) -> str | None:
    """Of JSON whose syntax is right."""
    for start in range(0, len(data), _PIECE):
        piece = bytes(data[start : start + _PIECE + 309])
        flat = piece.translate(_FLAT, b"+")
        if b"e000" not in flat and b"0" * 309 not in flat:
            continue
        for found in _LARGE_NUMBER.finditer(piece):
            at = start + found.start()
            # The candidate may be the end of a number, and may stand in a text.
            around = bytes(data[max(0, at - _LONGEST_NUMBER) : at + 2 * _LONGEST_NUMBER])
            number = next(n for n in _NUMBER.finditer(around) if n.end() > min(at, _LONGEST_NUMBER))
            try:
                _decode(number[0])
            except msgspec.DecodeError:
                path = _path_to(data, at)
                if path is not None:
                    return f"{path}: a number that is too large to be read"
    return None


def _located(error: str, data: bytes | memoryview) -> str:
    found = _AT_BYTE.match(error)
    if found is None:
        return error[:1].lower() + error[1:]
    what, at = found[1], int(found[2])
    constant = _CONSTANT.match(bytes(data[at : at + 9])) or _CONSTANT.match(bytes(data[max(0, at - 1) : at + 9]))
    path = _path_to(data, at) or "$"
    return f"{path}: {constant[0].decode()}" if constant else f"{path}: {what} (byte {at})"


def _path_to(data: bytes | memoryview, end: int) -> str | None:
    """The place in JSON that is right up to byte `end`; None within a text."""
    if end > _NAMED_WITHIN:
        return f"byte {end}, after {ascii(bytes(data[end - 40 : end]))[2:-1]}"
    # Of each container: the position in a list; in an object the key, where it is known.
    around: list[int | str | None] = []
    last = 0
    for token in _TOKEN.finditer(data):
        if token.start() >= end:
            break
        last = token.end()
        text = token[0]
        if text == b"[":
            around.append(0)
        elif text == b"{":
            around.append(None)
        elif text in b"]}":
            around.pop()
        elif text == b",":
            around[-1] = around[-1] + 1 if isinstance(around[-1], int) else None
        elif around and around[-1] is None:
            around[-1] = _decode(text)
    if last > end:
        return None
    path = "$" + "".join(map(_step, around))
    return path if len(path) <= _LONGEST_PATH else f"{path[: _LONGEST_PATH // 2]}...{path[-_LONGEST_PATH // 2 :]}"


def _step(key: int | str | None) -> str:
    if key is None:
        return ""
    if isinstance(key, int):
        return f"[{key}]"
    return f".{key}" if _PLAIN_KEY.fullmatch(key) else f"[{key[:_LONGEST_STEP]!a}]"
