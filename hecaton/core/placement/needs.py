"""What a job needs of a machine, as people write it: cards, models, sizes, workers.

Sizes of cards are nominal, as printed on the box: a 4090 reports 23.99 GiB and an L4 22.5, and both are cards of 24 GB.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

import msgspec

from hecaton.core.errors import BadRequest

GIB = 1 << 30

MAX_CARDS = 64
"""Of one job."""

MAX_NEED = 512
"""Characters of one need, as it is written."""

MAX_SIZE = 1 << 60
"""Bytes that may be asked for."""

_UNITS = {"k": 1 << 10, "m": 1 << 20, "g": GIB, "t": 1 << 40}
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,9})?) ?([kmgt])(?:i?b)?", re.IGNORECASE | re.ASCII)
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}", re.ASCII)
_WORKER = re.compile(r"!?[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_COUNT = re.compile(r"\d{1,9}", re.ASCII)

_SOLD = (1, 2, 3, 4, 5, 6, 8, 10, 11, 12, 16, 20, 24, 32, 40, 48, 64, 80, 94, 96, 128, 141, 144, 180, 192, 256, 288)
"""GB, as printed on boxes and in the names of MIG instances."""

_KEPT_BACK = 0.92
"""At least so much of what is printed on the box is there: the driver and ECC take the rest (a T4 of 16 GB: 14.75)."""


class Cards(msgspec.Struct, frozen=True):
    """`models`: parts of names, any of which will do. `low` and `high`: nominal bytes of each card; 0: any."""

    models: tuple[str, ...] = ()
    low: int = 0
    high: int = 0
    count: int | None = None


class Needs(msgspec.Struct, frozen=True, cache_hash=True):
    """`count`: whole cards, each as `cards` says; None: one where the machine has cards, else none. `part`: instead,
    bytes of one card that others may share. `on` and `off`: names of workers."""

    count: int | None = None
    cards: Cards = Cards()
    part: int = 0
    on: tuple[str, ...] = ()
    off: tuple[str, ...] = ()
    cpus: float = 0.0
    memory: int = 0

    def __str__(self) -> str:
        """As what a job waits for: '2 cards with 24 GB'."""
        kind = "" if not self.cards.models else f" {' or '.join(self.cards.models)}"
        more = []
        if self.part:
            more.append(f"{shown(self.part)} of a{kind} card" + _range(self.cards))
        elif self.count:
            more.append(f"{self.count}{kind} card{'s' * (self.count != 1)}" + _range(self.cards))
        if self.cpus:
            more.append(f"{self.cpus:g} CPUs")
        if self.memory:
            more.append(f"{shown(self.memory)} of memory")
        return " and ".join(more) or ("a place without a card" if self.count == 0 else "a place")


def _range(cards: Cards) -> str:
    if cards.high and cards.low:
        return f" with {shown(cards.low)} to {shown(cards.high)}"
    if cards.high:
        return f" with at most {shown(cards.high)}"
    return f" with {shown(cards.low)}" if cards.low else ""


def shown(size: int) -> str:
    """'24 GB', '1.5 GB', '512 MB'."""
    unit, name = (GIB, "GB") if size >= GIB else (1 << 20, "MB")
    return f"{size / unit:.4g} {name}"


def size_of(text: str) -> int:
    """Bytes; K, M, G and T are powers of 1024 with and without iB, as cards and RAM are sold. BadRequest."""
    found = _SIZE.fullmatch(text.strip()) if len(text) <= MAX_NEED else None
    size = int(float(found[1]) * _UNITS[found[2].lower()]) if found is not None else 0
    if not 0 < size <= MAX_SIZE:
        raise BadRequest(f"{text[:40]!r} is no size", _nearest_size(text))
    return size


def _nearest_size(text: str) -> str:
    number = re.match(r"\s*(\d{1,6}(?:\.\d{1,3})?)", text, re.ASCII)
    return f"Did you mean {number[1]}G?" if number and float(number[1]) else "Write 24G, or 512M."


@lru_cache(1024)
def cards_of(text: str) -> Cards:
    """`a100,h100`, `24GB..48GB:2`, `A100:40GB..:2`: models, sizes and count in any order, each once. BadRequest."""
    if not 0 < len(text) <= MAX_NEED:
        raise BadRequest("the model of a card is empty or too long", "Write a100, or a100,h100.")
    models: tuple[str, ...] = ()
    sizes, count = (0, 0), None
    seen: set[str] = set()
    for word in (one.strip() for one in text.split(":")):
        if _COUNT.fullmatch(word):
            what, count = "count", int(word)
            if not 1 <= count <= MAX_CARDS:
                raise BadRequest(f"{word} cards of one job: expected 1 to {MAX_CARDS}", "Write a100:2, or --gpus 2.")
        elif ".." in word or _SIZE.fullmatch(word):
            what, sizes = "size", _sizes(word)
        else:
            what, models = "model", tuple(one.strip() for one in word.split(","))
            if not all(_MODEL.fullmatch(one) for one in models):
                raise BadRequest(
                    f"{word[:40]!r} is no model of a card", "Write a100, or a100,h100, or a100:40G..80G:2."
                )
        if what in seen:
            raise BadRequest(f"{text[:40]!r} says twice which {what}", "Write a100:40G..80G:2.")
        seen.add(what)
    return Cards(models, *sizes, count)


def _sizes(word: str) -> tuple[int, int]:
    low, between, high = word.partition("..")
    least = size_of(low) if low.strip() else 0
    most = size_of(high) if high.strip() else 0
    if not least and not most:
        raise BadRequest(f"{word[:40]!r} is no range of sizes", "Write 24G..48G, 24G.. or ..48G.")
    if between and most and least > most:
        raise BadRequest(f"{word[:40]!r} begins above its end", f"Did you mean {high.strip()}..{low.strip()}?")
    return least, most


@lru_cache(1024)
def workers_of(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Those on one of which it may run (none: all), and those on which it may not. BadRequest."""
    names = [one.strip() for one in text.split(",")]
    if len(text) > MAX_NEED or not all(_WORKER.fullmatch(one) for one in names):
        raise BadRequest(f"{text[:40]!r} names no workers", "Write box7, or box7,ada, or !box7: not on that one.")
    on = tuple(sorted({one for one in names if not one.startswith("!")}))
    return on, tuple(sorted({one[1:] for one in names if one.startswith("!")}))


@lru_cache(256)
def nominal(reported: int) -> int:
    """Bytes as printed on the box of a card whose driver reports so many."""
    sold = next((gb for gb in _SOLD if gb * GIB >= reported), None)
    if sold is not None and reported >= _KEPT_BACK * sold * GIB:
        return sold * GIB
    return max(1, round(reported / GIB)) * GIB if reported >= GIB else reported


@lru_cache(4096)
def is_model(name: str, asked: str) -> bool:
    """By a part of its name that begins where a word does, whatever stands between words; what ends in a digit does not
    end in the middle of a number: a10 is an A10G, and no A100."""
    words = re.findall(r"[a-z0-9]+", name.lower())
    wanted = "".join(re.findall(r"[a-z0-9]+", asked.lower()))
    for start in range(len(words)):
        rest = "".join(words[start:])
        if rest.startswith(wanted):
            at_end = len(rest) == len(wanted) or not (wanted[-1].isdigit() and rest[len(wanted)].isdigit())
            # '4090' beside '24gb' is another word, and not a longer number
            if at_end or len(wanted) in _ends(words[start:]):
                return True
    return False


def _ends(words: Sequence[str]) -> set[int]:
    ends, length = set[int](), 0
    for word in words:
        length += len(word)
        ends.add(length)
    return ends


def suits(cards: Cards, name: str, memory: int) -> bool:
    """Is a card of this name, whose driver reports so many bytes, one of these?"""
    size = nominal(memory)
    if size < cards.low or (cards.high and size > cards.high):
        return False
    return not cards.models or any(is_model(name, asked) for asked in cards.models)


def needs_of(asked: Mapping[str, object]) -> Needs | None:
    """From the values of the options of these names, those alone that are not at their default; None: nothing is
    needed that a place does not have anyway. BadRequest for what contradicts itself."""
    gpus, text, vram, where = asked.get("gpus"), asked.get("gpu"), asked.get("vram"), asked.get("on")
    cpus, memory = asked.get("cpus"), asked.get("memory")
    if gpus is None and text is None and vram is None and where is None and cpus is None and memory is None:
        return None
    cards = Cards() if text is None else cards_of(str(text))
    size = 0 if vram is None else size_of(str(vram))
    count = cards.count if gpus is None else int(str(gpus))
    if gpus is not None and cards.count not in (None, count):
        raise BadRequest(f"gpus is {gpus}, and gpu asks for {cards.count}", "Say it once.")
    if count == 0 and (text is not None or size):
        raise BadRequest("gpus is 0, and a card is asked for all the same", "Leave out --gpus 0, or --gpu and --vram.")
    if size and cards.low:
        raise BadRequest("vram and gpu both say a size", "Write --vram, or the size within --gpu.")
    shared = size > 0 and count is None
    wanted = Cards(cards.models, 0 if shared else max(size, cards.low), cards.high)
    on, off = ((), ()) if where is None else workers_of(str(where))
    return Needs(
        count if count is not None else 1 if wanted != Cards() and not shared else None,
        wanted,
        size if shared else 0,
        on,
        off,
        0.0 if cpus is None else float(str(cpus)),
        0 if memory is None else size_of(str(memory)),
    )
