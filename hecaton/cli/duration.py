"""Durations as people write them on a command line: `90`, `15m`, `2h`, `1d`."""

from __future__ import annotations

from typing import Any

import click

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Duration(click.ParamType[float]):
    """Seconds, or a number with s, m, h or d."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        text = str(value).strip().lower()
        factor = UNITS.get(text[-1:], 1)
        try:
            seconds = float(text[:-1] if text[-1:] in UNITS else text) * factor
        except ValueError:
            seconds = 0.0
        if not 0 < seconds < float("inf"):
            self.fail(f"{value!r} is no duration: write seconds, or 90s, 15m, 2h, 1d", param, ctx)
        return seconds
