"""One rule for JSON at the edge: what a handler may return or report, checked where it leaves the handler.

What is accepted reads back as the same value everywhere behind it: Python's json, msgspec. NUL is a character like any
other, in payloads, results and progress alike.
"""

from __future__ import annotations

import json
import re
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterator

#: Lists and objects may be nested this deep; readers give up soon after 900.
MAX_DEPTH = 512
#: Integers may have this many digits: Python itself refuses to read longer ones.
MAX_DIGITS = 4300

_HINTS = {
    "bytes": "return bytes alone, or as base64 text within JSON",
    "datetime": "use .isoformat()",
    "date": "use .isoformat()",
    "Decimal": "use float() or str()",
    "ndarray": "use .tolist()",
    "Tensor": "use .tolist()",
    "set": "use sorted() or list()",
    "frozenset": "use sorted() or list()",
    "UUID": "use str()",
    "generator": "use list()",
}
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_LONG_DIGITS = re.compile(rb"[0-9]{%d}" % (MAX_DIGITS + 1))
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


_decode = json.JSONDecoder(parse_constant=_refuse_constant).decode


class NotJson(Exception):
    """A value that is not JSON; the text names the place and the reason, such as `$.a[3]: NaN is not JSON`."""


def to_json(value: Any, root: str = "$", max_depth: int = MAX_DEPTH) -> bytes:
    """`value` as JSON in UTF-8. Raises NotJson.

    As in Python's json module tuples become lists, and keys that are numbers, booleans or None become strings.
    """
    try:
        encoded = _encode(value).encode("utf-8")
    except MemoryError:
        raise
    except Exception as error:  # also whatever a class of the user's raises while it is walked through
        raise NotJson(_explain(value, root, max_depth) or f"{root}: {error}") from None
    # The encoder lets through what other readers refuse. To look for it in the text is cheap, and nearly always enough.
    suspicious = (
        encoded.count(b"[") + encoded.count(b"{") > max_depth and _is_deeper(value, max_depth)
    ) or _may_hold_long_integer(encoded)
    if suspicious:
        fault = _explain(value, root, max_depth)
        if fault:
            raise NotJson(fault)
    return encoded


def spelled(value: Any) -> bytes:
    """What `to_json` refuses, as text that people can read, and Python's json where only NaN and Infinity are in it."""
    try:
        return json.dumps(value, ensure_ascii=False, default=repr).encode("utf-8", "backslashreplace")
    except MemoryError:
        raise
    except Exception:  # keys that are none, circles, or whatever a class of the user's raises
        return _shown(value).encode("utf-8", "backslashreplace")


def _shown(value: Any) -> str:
    try:
        return repr(value)
    except MemoryError:
        raise
    except Exception as error:
        return f"(a {type(value).__name__} that cannot be shown: {type(error).__name__})"


def from_json(text: str) -> Any:
    """The value of a JSON text. Raises ValueError; NaN and Infinity are not JSON."""
    return _decode(text)


def bounded(text: str, limit: int) -> str:
    """`text` in at most `limit` characters, cut in the middle, without what neither JSON nor a database takes."""
    if len(text) > limit:
        head = limit // 4
        mark = f" [... {len(text) - limit} characters left out ...] "
        text = text[:head] + mark + text[head + len(mark) - limit :]
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\x00")[:limit]


def _may_hold_long_integer(encoded: bytes) -> bool:
    if len(encoded) <= MAX_DIGITS:
        return False
    limit = getattr(sys, "get_int_max_str_digits", int)()
    if 0 < limit <= MAX_DIGITS:
        return False  # the encoder has refused them by itself: the usual case
    return _LONG_DIGITS.search(encoded) is not None


def _is_deeper(value: Any, limit: int) -> bool:
    """Whether lists and objects are nested more than `limit` deep: by levels, as recursion may not reach so far."""
    level = [value]
    for _ in range(limit):
        level = [
            child
            for node in level
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, (dict, list, tuple))
        ]
        if not level:
            return False
    return True


def _explain(value: Any, root: str, max_depth: int) -> str | None:
    """Where and why `value` is not JSON; None if nothing was found."""
    try:
        return _first_fault(value, root, max_depth)
    except Exception as error:
        return f"{root}: cannot be read: {type(error).__name__}: {error}"


def _first_fault(value: Any, root: str, max_depth: int) -> str | None:
    """Depth first, with a stack of its own: what is looked at may be nested deeper than Python can recurse."""
    around: list[tuple[int, Iterator[tuple[str, Any]]]] = []  # the containers around the item: id, what is left of it
    left = iter([(root, value)])
    while True:
        for path, item in left:
            fault = _fault_of(item)
            if fault:
                return f"{path}: {fault}"
            if isinstance(item, (dict, list, tuple)):
                if any(id(item) == outer for outer, _ in around):
                    return f"{path}: a circular reference is not JSON"
                if len(around) == max_depth:
                    return f"{bounded(path, 200)}: nested deeper than {MAX_DEPTH} levels"
                around.append((id(item), left))
                left = _children(path, item)
                break
        else:
            if not around:
                return None
            left = around.pop()[1]


def _children(path: str, item: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(item, dict):
        return ((f"{path}[{index}]", child) for index, child in enumerate(item))
    return ((path + _step(key), child) for key, child in item.items())


def _step(key: Any) -> str:
    if isinstance(key, str) and _PLAIN_KEY.match(key):
        return "." + key
    return f"[{bounded(ascii(key), 80)}]"


def _fault_of(item: Any) -> str | None:
    """What is wrong with `item` itself, not with what it contains."""
    if item is None or isinstance(item, (bool, list, tuple)):
        return None
    if isinstance(item, str):
        return _fault_of_text(item)
    if isinstance(item, int):
        # 3 bits hold less than one digit, so most integers need no look at their digits
        too_long = item.bit_length() > 3 * MAX_DIGITS and abs(item) >= 10**MAX_DIGITS
        return f"an integer of more than {MAX_DIGITS} digits cannot be read back" if too_long else None
    if isinstance(item, float):
        if item != item:
            return "NaN is not JSON"
        return "Infinity is not JSON" if item in (float("inf"), float("-inf")) else None
    if isinstance(item, dict):
        return next((fault for fault in map(_fault_of_key, item) if fault), None)
    name = type(item).__name__
    hint = _HINTS.get(name)
    return f"{name} is not JSON" + (": " + hint if hint else "")


def _fault_of_key(key: Any) -> str | None:
    if key is None or isinstance(key, (str, int, float)):
        fault = _fault_of(key)
        return f"in the key {bounded(ascii(key), 80)}: {fault}" if fault else None
    return f"a key of type {type(key).__name__} is not JSON: use str()"


def _fault_of_text(text: str) -> str | None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return f"a lone surrogate (\\u{ord(text[error.start]):04x}) is not Unicode text"
    return None
