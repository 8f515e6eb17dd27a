"""`hecaton worker`: list, show, drain, undrain, remove."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import click

from hecaton.cli import output
from hecaton.cli.hecaton import habits
from hecaton.cli.hecaton.completers import workers
from hecaton.cli.hecaton.context import Cli, pass_cli
from hecaton.cli.hecaton.nouns.machine import machine_lines
from hecaton.cli.hecaton.tree import Group, confirm, yes_option
from hecaton.cli.suggestions import known
from hecaton.cli.terminal import Column, ago, size

if TYPE_CHECKING:
    from hecaton.wire.api import SlotView, WorkerView

COLUMNS = [
    Column("NAME", flexible=True),
    Column("STATUS", state=True),
    Column("LAST ACTIVE"),
    Column("BUSY"),
    Column("GPUS", flexible=True),
    Column("WARM", flexible=True, optional=True),
    Column("RUNTIME", flexible=True, optional=True),
    Column("VERSION", optional=True),
    Column("NOTE", flexible=True, optional=True),
]


@click.group(cls=Group, habits=habits.WORKER)
def worker() -> None:
    """Monitor connected workers."""


@worker.command("list")
@pass_cli
def list_workers(cli: Cli) -> None:
    """List all workers, their status, and last active time."""
    found = cli.client().workers()
    now = cli.client().now()
    cli.show(
        found,
        lambda: output.table_lines(
            COLUMNS,
            [_row(view, now) for view in found],
            "No worker has registered yet. On a machine with a GPU: sudo hecaton-gpu install SERVER",
        ),
    )


def _row(view: WorkerView, now: float) -> list[str]:
    busy = sum(1 for slot in view.slots if slot.jobs)
    return [
        view.name,
        view.status,
        ago(view.last_seen, now),
        f"{busy}/{len(view.slots)}" if view.slots else "",
        _gpus(view.slots),
        ", ".join(sorted({slot.image for slot in view.slots if slot.image})),
        view.runtime or "",
        view.version or "",
        view.note or "",
    ]


def _gpus(slots: tuple[SlotView, ...]) -> str:
    cards: dict[str, int] = {}
    for slot in slots:
        if slot.gpu:
            name = f"{slot.gpu.name} ({size(slot.gpu.memory)})"
            cards[name] = cards.get(name, 0) + 1
    if slots and not cards:
        return "CPU only"
    return ", ".join(f"{count} x {name}" if count > 1 else name for name, count in cards.items())


@worker.command("show")
@click.argument("name", shell_complete=workers)
@pass_cli
def show(cli: Cli, name: str) -> None:
    """Show a worker with its cards: what each does, who works there, and what others hold of it."""
    with _known(cli, name):
        view = cli.client().worker(name)
    now = cli.client().now()
    cli.show(view, lambda: machine_lines(view, now))


@worker.command("drain")
@click.argument("name", shell_complete=workers)
@pass_cli
def drain(cli: Cli, name: str) -> None:
    """Let a worker finish what it runs and give it nothing new, until it is undrained. No job loses an attempt."""
    with _known(cli, name):
        view = cli.client().drain_worker(name)
    busy = sum(len(slot.jobs) for slot in view.slots)
    left = f" It still has {busy} {'job' if busy == 1 else 'jobs'}." if busy else ""
    cli.done(view, f"Worker {name} is draining: it gets nothing new and keeps nothing warm.{left}")


@worker.command("undrain")
@click.argument("name", shell_complete=workers)
@pass_cli
def undrain(cli: Cli, name: str) -> None:
    """Give a worker jobs again, after a drain or a quarantine, and on all slots that it has now: by itself it uses no
    more than when it was here first."""
    with _known(cli, name):
        view = cli.client().undrain_worker(name)
    cli.done(view, f"Worker {name} gets jobs again.")


@worker.command("remove")
@click.argument("name", shell_complete=workers)
@yes_option
@pass_cli
def remove(cli: Cli, name: str, yes: bool) -> None:
    """Remove a worker for good: it stops, and its jobs go to others."""
    confirm(f"Remove the worker {name}?", yes)
    with _known(cli, name):
        cli.client().remove_worker(name)
    cli.done({"worker": name, "removed": True}, f"Worker {name} is removed.")


def _known(cli: Cli, name: str) -> AbstractContextManager[None]:
    return known(name, lambda: (view.name for view in cli.client().workers()))
