"""docs/operations.md#limits has every bound, with the number that holds."""

from __future__ import annotations

from tests import limits


def test_the_page_has_every_row_with_the_numbers_that_hold() -> None:
    assert limits.on_the_page() == [limits.rendered(row) for row in limits.ROWS]


def test_no_number_of_a_row_is_written_by_hand() -> None:
    assert {row.what: numbers for row in limits.ROWS if (numbers := limits.numbers_by_hand(row))} == {}


def test_every_constant_that_is_named_like_a_bound_has_a_row_or_a_reason() -> None:
    named = limits.named_in(limits.ROWS)
    assert limits.bounds() - named - set(limits.EXEMPT) == set(), "write a row in tests/limits.py"
    assert set(limits.EXEMPT) - limits.bounds() == set(), "gone"
    assert set(limits.EXEMPT) & named == set(), "has a row"


def test_numbers_are_shown_in_their_largest_whole_unit() -> None:
    shown = limits._UNITS
    assert [shown["size"](size) for size in (100, 1 << 16, 3 << 20, 1 << 30, 1088 << 10)] == [
        "100 bytes", "64 KiB", "3 MiB", "1 GiB", "1,088 KiB",
    ]  # fmt: skip
    assert [shown["time"](seconds) for seconds in (0.5, 60, 75, 120, 600, 3600, 5400, 30 * 86400)] == [
        "0.5 s", "60 s", "75 s", "2 min", "10 min", "1 h", "90 min", "30 days",
    ]  # fmt: skip
    assert shown["count"](100_000) == "100,000"
