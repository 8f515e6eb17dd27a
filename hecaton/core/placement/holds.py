"""What a place holds of its machine: cards or parts of them, CPUs and memory.

A *place* is where one container runs at a time, with its jobs behind each other; its number travels as `slot`."""

from __future__ import annotations

import msgspec


class Part(msgspec.Struct, frozen=True, array_like=True):
    """`card`: its UUID. `bytes`: of its memory; 0: the whole card, which then is nobody else's."""

    card: str
    bytes: int = 0


class Holds(msgspec.Struct, frozen=True, array_like=True):
    """`cpus` and `memory` (bytes of RAM): 0 where nothing was said of them."""

    cards: tuple[Part, ...] = ()
    cpus: float = 0.0
    memory: int = 0

    @property
    def uuids(self) -> tuple[str, ...]:
        return tuple(part.card for part in self.cards)
