"""How `hecaton worker show` shows a machine: its cards, what they do, and who works there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from hecaton.cli import output
from hecaton.cli.hecaton.holders import holder_line
from hecaton.cli.terminal import ago, one_line, size

if TYPE_CHECKING:
    from hecaton.wire.api import CardView, MachineView


def machine_lines(view: MachineView, now: float) -> list[str]:
    fields = [
        ("worker", view.name),
        ("status", view.status.value),
        ("note", view.note),
        ("last active", ago(view.last_seen, now)),
        ("runtime", view.runtime),
        ("version", view.version),
        ("warm", ", ".join(sorted({slot.image for slot in view.slots if slot.image})) or None),
    ]
    lines = list(output.field_lines(fields))
    for number, card in enumerate(view.cards):
        lines += ["", *_card_lines(number, card, now)]
    if not view.cards and view.slots:
        lines += ["", f"CPU only, {len(view.slots)} {'slot' if len(view.slots) == 1 else 'slots'}"]
    lines += [f"  {one_line(holder_line(holder, now))}" for holder in view.without_card]
    return lines


def _card_lines(number: int, card: CardView, now: float) -> Iterator[str]:
    yield f"card {number}  {one_line(card.gpu.name)}  {one_line(card.gpu.uuid)}"
    if card.lost is not None:
        yield f"  lost: {one_line(card.lost)}"
    else:
        yield f"  {', '.join(_figures(card))}"
    if card.outside:
        by = one_line(card.holder or "nobody knows whom")
        yield f"  {size(card.outside)} of it is used outside Hecaton, by {by}"
    for job in card.jobs:
        yield f"  {one_line(holder_line(job, now))}"
    if not card.jobs and card.lost is None:
        yield "  no job"


def _figures(card: CardView) -> Iterator[str]:
    yield f"{size(card.used)} of {size(card.gpu.memory)} used"
    if card.use is not None:
        yield f"{card.use} % busy"
    if card.temperature is not None:
        yield f"{card.temperature} °C"
    if card.power is not None:
        yield f"{card.power:.0f} W"


__all__ = ["machine_lines"]
