"""What the numbers of a job may be. One rule for the SDK, which asks before it sends, and for the server."""

from __future__ import annotations

from hecaton.core.errors import BadRequest

LONGEST = 30 * 86400.0
MOST_RETRIES = 100
HIGHEST_PRIORITY = 1000


def check_limits(*, timeout: object, retries: object, priority: object, queue_ttl: object) -> None:
    """BadRequest, with name, value and what was expected, for whatever is no number or out of its bounds."""
    for name, value in (("timeout", timeout), ("queue_ttl", queue_ttl)):
        if value is not None and not (_is_number(value, float) and 0 < value <= LONGEST):  # type: ignore[operator]
            raise BadRequest(f"{name} is {_shown(value)}: expected seconds, more than 0 and at most 30 days")
    bounds = (("retries", retries, 0, MOST_RETRIES), ("priority", priority, -HIGHEST_PRIORITY, HIGHEST_PRIORITY))
    for name, value, low, high in bounds:
        if not (_is_number(value) and low <= value <= high):  # type: ignore[operator]
            raise BadRequest(f"{name} is {_shown(value)}: expected a whole number from {low} to {high}")


def _is_number(value: object, *more: type) -> bool:
    """True and False are none, though Python counts with them."""
    return isinstance(value, (int, *more)) and not isinstance(value, bool)


def _shown(value: object) -> str:
    """Python refuses to write integers of more than 4,300 digits."""
    if isinstance(value, int) and value.bit_length() > 64:
        return f"a number of {value.bit_length()} bits"
    return repr(value)[:40]
