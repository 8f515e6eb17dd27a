"""Which numbers a job may have: the rule that SDK and server share."""

from __future__ import annotations

from typing import Any

import pytest

from hecaton.core.errors import BadRequest
from hecaton.core.limits import check_limits

NAN, INF = float("nan"), float("inf")
NO_NUMBERS: list[object] = [True, False, "1", "", b"1", [], {}, 1j]
HUGE: list[object] = [NAN, INF, -INF, 1e300, -1e300, 10**30, -(10**30), 10**5000]

SENSELESS: dict[str, list[object]] = {
    "timeout": [0, -1, 0.0, -0.0, 30 * 86400.1, *NO_NUMBERS, *HUGE],
    "queue_ttl": [0, -1, 0.0, -0.0, 30 * 86400.1, *NO_NUMBERS, *HUGE],
    "retries": [-1, 101, 1.5, 1.0, None, *NO_NUMBERS, *HUGE],
    "priority": [-1001, 1001, 0.5, 0.0, None, *NO_NUMBERS, *HUGE],
}
SENSIBLE: dict[str, list[object]] = {
    "timeout": [None, 1e-9, 1, 90.5, 30 * 86400],
    "queue_ttl": [None, 1e-9, 1, 90.5, 30 * 86400],
    "retries": [0, 1, 100],
    "priority": [-1000, 0, 1000],
}
PLAIN: dict[str, Any] = {"timeout": None, "retries": 0, "priority": 0, "queue_ttl": None}


def cases(table: dict[str, list[object]]) -> list[Any]:
    return [
        pytest.param(name, value, id=f"{name}-{position}") for name, values in table.items()
        for position, value in enumerate(values)
    ]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), cases(SENSELESS))
def test_numbers_that_make_no_sense_are_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(BadRequest, match=f"^{name} is .*: expected ") as caught:
        check_limits(**{**PLAIN, name: value})
    assert len(caught.value.message) < 120


@pytest.mark.parametrize(("name", "value"), cases(SENSIBLE))
def test_numbers_within_their_bounds_pass(name: str, value: object) -> None:
    check_limits(**{**PLAIN, name: value})
