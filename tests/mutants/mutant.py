"""What a mutant is: one text of the source replaced by another, and who has to notice."""

from __future__ import annotations

from pathlib import Path

import msgspec


class Stale(Exception):
    """The text that a mutant changes is not in the source exactly once: source and mutant have grown apart."""


class Worlds(msgspec.Struct, frozen=True):
    """Runs of the simulator, each from its seed."""

    seeds: tuple[int, ...]


class Mutant(msgspec.Struct, frozen=True):
    """`breaks`: what is no longer true with it. `file`: within the package. `caught_by`: ids of tests, or worlds."""

    name: str
    breaks: str
    file: str
    old: str
    new: str
    caught_by: tuple[str, ...] | Worlds

    def applied(self, package: Path) -> str:
        """The source with the mutant in it. Stale if it does not fit."""
        source = (package / self.file).read_text(encoding="utf-8")
        found = source.count(self.old)
        if found != 1:
            raise Stale(
                f"mutant {self.name}: hecaton/{self.file} has {found} times, not once, the text\n{self.old}\n"
                "Give the mutant the text as it is now."
            )
        return source.replace(self.old, self.new)
