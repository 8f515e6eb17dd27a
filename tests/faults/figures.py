"""How much the fault tests do: little in `make test`, the full figures of the promise with FULL=1 (`make
reliability`)."""

from __future__ import annotations

import os
from typing import TypeVar

Number = TypeVar("Number", int, float)

FULL = os.environ.get("FULL") == "1"


def figure(small: Number, full: Number) -> Number:
    return full if FULL else small
