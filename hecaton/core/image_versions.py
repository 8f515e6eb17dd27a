"""Which versions of an image the machines have under one name, for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

SHOWN = 20
"""Machines that are named; of more the number is told."""


class OnMachine(Protocol):
    """`version`: the engine's id of what the name means there; None: nothing, or `warning` says why nobody knows."""

    @property
    def worker(self) -> str: ...
    @property
    def version(self) -> str | None: ...
    @property
    def made_at(self) -> float | None: ...
    @property
    def warning(self) -> str | None: ...


def version_lines(machines: Sequence[OnMachine], now: float) -> list[str]:
    """A line for each version with the machines that have it, the most common one first."""
    having: dict[str | None, list[OnMachine]] = {}
    for machine in machines[:SHOWN]:
        having.setdefault(machine.version, []).append(machine)
    lines = []
    for version, alike in sorted(having.items(), key=lambda item: (item[0] is None, -len(item[1]))):
        names, first = ", ".join(machine.worker for machine in alike), alike[0]
        if version is None:
            lines.append(f"{names}: {first.warning or 'nothing of that name'}")
            continue
        age = "" if first.made_at is None else f", made {_ago(now - first.made_at)}"
        lines.append(f"{names}: {short(version)}{age}{'  <- other code under the same name' if lines else ''}")
    if len(machines) > SHOWN:
        lines.append(f"and {len(machines) - SHOWN} machines more")
    return lines


def short(version: str) -> str:
    """As engines show it."""
    return version.removeprefix("sha256:")[:12]


def _ago(seconds: float) -> str:
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            number = int(seconds // size)
            return f"{number} {unit}{'s' if number > 1 else ''} ago"
    return "a moment ago"
