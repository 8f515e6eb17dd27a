"""One rule for JSON: what is accepted reads back as the same value everywhere, and a refusal names the place."""

from __future__ import annotations

import datetime
import json
import sys
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hecaton.serverless.values import MAX_DEPTH, NotJson, bounded, from_json, spelled, to_json


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def circular() -> Any:
    value: dict[str, Any] = {"a": []}
    value["a"].append(value)
    return value


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**4400), 10**4400)
    | st.floats()
    | st.text()
    | st.binary(max_size=3)
    | st.dates(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text(), inner) | st.sets(st.integers()) | st.tuples(inner, inner)
    ),
    max_leaves=20,
)


def as_read_back(value: Any) -> Any:
    """Tuples read back as lists; the rest as it was."""
    if isinstance(value, (list, tuple)):
        return [as_read_back(item) for item in value]
    return {key: as_read_back(item) for key, item in value.items()} if isinstance(value, dict) else value


@settings(deadline=None)
@given(anything)
def test_what_is_accepted_reads_back_the_same_everywhere(value: Any) -> None:
    try:
        encoded = to_json(value)
    except NotJson:
        return
    expected = as_read_back(value)
    assert json.loads(encoded) == from_json(encoded.decode()) == msgspec.json.decode(encoded) == expected


@settings(deadline=None)
@given(anything)
def test_what_is_refused_can_be_spelled_all_the_same(value: Any) -> None:
    spelled(value).decode("utf-8")


def test_what_is_refused_is_spelled_so_that_pythons_json_reads_nan() -> None:
    text = spelled({"acc": 0.9, "val_loss": float("nan"), "seen": {1}})
    assert text == b'{"acc": 0.9, "val_loss": NaN, "seen": "{1}"}'
    assert json.loads(text)["acc"] == 0.9
    assert b"circular" not in spelled(circular())


@settings(deadline=None)
@given(st.recursive(st.none() | st.integers(-(2**63), 2**64 - 1) | st.text("aé\0\U0001f600\\u0"), st.lists))
def test_ordinary_values_are_never_refused(value: Any) -> None:
    assert json.loads(to_json(value)) == value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (float("nan"), "$: NaN is not JSON"),
        ({"a": [0, 1, 2, float("nan")]}, "$.a[3]: NaN is not JSON"),
        ({"a": [-float("inf")]}, "$.a[0]: Infinity is not JSON"),
        ({"x": {1, 2}}, "$.x: set is not JSON: use sorted() or list()"),
        ({"x": b"raw"}, "$.x: bytes is not JSON: return bytes alone, or as base64 text within JSON"),
        ([datetime.date(2024, 1, 2)], "$[0]: date is not JSON: use .isoformat()"),
        ([object()], "$[0]: object is not JSON"),
        ({"a b": [{"c": 1j}]}, "$['a b'][0].c: complex is not JSON"),
        ({(1, 2): 3}, "$: a key of type tuple is not JSON: use str()"),
        ({float("nan"): 3}, "$: in the key nan: NaN is not JSON"),
        (["\ud800"], "$[0]: a lone surrogate (\\ud800) is not Unicode text"),
        ([10**4300], "$[0]: an integer of more than 4300 digits cannot be read back"),
        (circular(), "$.a[0]: a circular reference is not JSON"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isascii() and value.isprintable() else "value",
)
def test_a_refusal_names_the_place_the_reason_and_the_way_out(value: Any, message: str) -> None:
    with pytest.raises(NotJson) as refusal:
        to_json(value)
    assert str(refusal.value) == message


@pytest.mark.parametrize("levels", [MAX_DEPTH + 1, 900, 10_000, 200_000])
def test_too_deep_is_refused(levels: int) -> None:
    with pytest.raises(NotJson, match=f"nested deeper than {MAX_DEPTH} levels"):
        to_json(nested(levels))


def test_as_deep_as_allowed_is_accepted_and_so_is_wide() -> None:
    deepest = nested(MAX_DEPTH)
    assert json.loads(to_json(deepest)) == deepest
    wide = [{"a": [index]} for index in range(5000)]
    assert json.loads(to_json(wide)) == wide


def test_text_that_only_looks_forbidden_is_accepted() -> None:
    for text in ("\\u0000", "\\\\u0000", "[" * 5000, "1" * 5000):
        assert json.loads(to_json([text])) == [text]


def test_long_integers_are_refused_even_where_python_would_write_them() -> None:
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        with pytest.raises(NotJson, match="4300 digits"):
            to_json({"n": [-(10**5000)]})
        assert to_json(10**4300 - 1) == b"9" * 4300
    finally:
        sys.set_int_max_str_digits(limit)


def test_keys_become_strings_as_in_pythons_json() -> None:
    assert json.loads(to_json({7: "a", None: "b", True: "c", 2.5: "d"})) == {
        "7": "a",
        "null": "b",
        "true": "c",
        "2.5": "d",
    }


def test_a_class_that_fails_while_it_is_read_is_refused() -> None:
    class Broken(dict[str, int]):
        def items(self) -> Any:
            raise RuntimeError("not today")

        def __iter__(self) -> Iterator[str]:
            raise RuntimeError("not today")

    with pytest.raises(NotJson, match="not today"):
        to_json({"x": Broken(a=1)})


@settings(deadline=None)
@given(st.text(), st.integers(80, 200))
def test_bounded_text_is_short_and_fit_for_storage(text: str, limit: int) -> None:
    cut = bounded(text * 20, limit)
    assert len(cut) <= limit
    assert "\0" not in cut
    cut.encode("utf-8")
