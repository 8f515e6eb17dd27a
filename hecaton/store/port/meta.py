"""The part of the port about the database as a whole: facts by name, and what it has to do as a copy."""

from __future__ import annotations

from typing import Protocol


class Meta(Protocol):
    def meta(self, key: str) -> str | None: ...
    def set_meta(self, key: str, value: str) -> None: ...
    def adopt_copy(self, now: float, last_known: float | None = None) -> float | None:
        """Called at every start. If this is a copy made by `backup`, or another one, as is known of it up to
        `last_known`: its age in seconds, about; whatever was running in it waits again, no number of an attempt or a
        user is given out here that the original may have given out since, and no token of before holds. Else None."""
