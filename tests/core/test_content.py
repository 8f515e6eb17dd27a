"""One rule for what a result says it is, at every size, and the place of the first fault."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hecaton.core.content import NAMES, advice_on, fault_of, kind_of_rest
from hecaton.core.model import Kind

FAULTS = [
    (b'{"acc": 0.9, "val_loss": NaN}', "$.val_loss: NaN"),
    (b"[1, -Infinity]", "$[1]: Infinity"),
    (b'{"a b": [[], {}, {"c": NaN}]}', "$['a b'][2].c: NaN"),
    (b'{"a": "],[{", "b": Infinity}', "$.b: Infinity"),
    (b'["a" "b"]', "$[0]: expected ',' or ']'"),
    (b"[1, 2,]", "$[2]: trailing comma"),
    (b'{"a": [1, 2', "input data was truncated"),
    (b'{"a": 1e999}', "$.a: a number that is too large to be read"),
    (b"[0, " + b"9" * 5000 + b"]", "$[1]: a number that is too large to be read"),
    (b"[" * 5000 + b"]" * 5000, "nested too deep"),
    (b'"\xff"', "no UTF-8 from byte"),
    (b'"a\\ud800"', ""),
]
RIGHT = [
    b"null",
    b"null\n",
    b'["1e999", "e999"]',
    b"9" * 400,
    b"[1." + b"3" * 400 + b"]",
    b'"\\u0000"',
    b'{"a": 1e308}',
]
PADS = [b"", b" " * 100_000]
"""White space in front takes a text over all limits, and changes nothing that it says."""


@pytest.mark.parametrize("pad", PADS, ids=["small", "large"])
@pytest.mark.parametrize(("text", "fault"), FAULTS)
def test_a_fault_is_found_at_every_size_and_named_with_its_place(text: bytes, fault: str, pad: bytes) -> None:
    found = fault_of(Kind.JSON, memoryview(pad + text))
    assert found is not None
    assert fault in found


@pytest.mark.parametrize("pad", PADS, ids=["small", "large"])
@pytest.mark.parametrize("text", RIGHT)
def test_what_is_json_is_so_at_every_size(text: bytes, pad: bytes) -> None:
    assert fault_of(Kind.JSON, pad + text) is None


@pytest.mark.parametrize("size", [10, 3_000_000])
def test_text_is_utf_8_at_every_size(size: int) -> None:
    assert fault_of(Kind.TEXT, b"\0" * size) is None
    assert fault_of(Kind.TEXT, b"x" * size + b"\xff") == f"no UTF-8 from byte {size} on"
    assert fault_of(Kind.TEXT, "é".encode() * size + b"\xc3") is not None, "half a character"
    assert fault_of(Kind.BYTES, b"\xff" * size) is None


def test_a_fault_far_behind_is_named_by_what_stands_before_it() -> None:
    fault = fault_of(Kind.JSON, b"[" + b"1234567, " * 1_000_000 + b'{"loss": NaN}]')
    assert "NaN" in str(fault)
    assert '"loss": ' in str(fault)


def test_what_is_refused_is_text_where_it_can_be_read() -> None:
    assert kind_of_rest(b'{"a": NaN}') is Kind.TEXT
    assert kind_of_rest(b"\xff") is Kind.BYTES


def test_who_has_nan_is_told_how_to_allow_it() -> None:
    assert "json.dumps" in str(advice_on("$.val_loss: NaN"))
    assert advice_on("$.a: expected ','") is None
    assert set(NAMES) == set(Kind)


values = st.recursive(
    st.none() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def _place_of_nan(value: Any, path: str = "$") -> str | None:
    """Where Python's json writes NaN or Infinity first."""
    if isinstance(value, float):
        return None if math.isfinite(value) else path
    if isinstance(value, list):
        return next(filter(None, (_place_of_nan(item, f"{path}[{n}]") for n, item in enumerate(value))), None)
    if isinstance(value, dict):
        plain = (_place_of_nan(item, f"{path}.{key}" if key.isidentifier() and key.isascii() else f"{path}[{key!a}]")
                 for key, item in value.items())  # fmt: skip
        return next(filter(None, plain), None)
    return None


@settings(deadline=None)
@example(value={'"': [float("nan")]})
@given(values)
def test_the_place_is_that_of_the_first_nan(value: Any) -> None:
    text = json.dumps(value).encode()
    place = _place_of_nan(value)
    found = [fault_of(Kind.JSON, pad + text) for pad in PADS]
    if place is None:
        assert found == [None, None]
    else:
        assert all(fault is not None and fault.startswith(f"{place}: ") for fault in found)
