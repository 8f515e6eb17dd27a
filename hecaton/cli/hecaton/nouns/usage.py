"""`hecaton usage`: what one has stored and waiting, and may have; for admins, what everybody has. Makes room."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hecaton.cli import output
from hecaton.cli.duration import Duration
from hecaton.cli.hecaton.completers import users
from hecaton.cli.hecaton.context import Cli, pass_cli
from hecaton.cli.hecaton.tree import Command, confirm, yes_option
from hecaton.cli.terminal import Column, duration, size

if TYPE_CHECKING:
    from hecaton.wire.api import Usage

COLUMNS = [
    Column("USERNAME", flexible=True),
    Column("STORED"),
    Column("PAYLOADS"),
    Column("RESULTS"),
    Column("LOGS"),
    Column("FILES"),
    Column("WAITING"),
    Column("RUNNING"),
]


@click.command("usage", cls=Command)
@click.option("--by", type=click.Choice(["user"]), help="What everybody has (admins only).")
@click.option(
    "--clear", type=Duration(), metavar="AGE", help="Remove jobs that ended longer ago than that, with all of theirs."
)
@click.option("--user", metavar="USERNAME", shell_complete=users, help="With --clear: whose (admins only).")
@yes_option
@pass_cli
def usage(cli: Cli, by: str | None, clear: float | None, user: str | None, yes: bool) -> None:
    """Show what you have stored, waiting and running on the server, and how much you may have.

    \b
    Example:
      hecaton usage
      hecaton usage --clear 7d
    """
    if clear is not None:
        _clear(cli, clear, user, yes)
        return
    if user is not None:
        raise click.UsageError("--user goes with --clear. What everybody has: hecaton usage --by user")
    if by is not None:
        found = cli.client().usage_by_user()
        cli.show(found, lambda: output.table_lines(COLUMNS, [_row(one) for one in found], "There is no user."))
        return
    mine = cli.client().usage()
    cli.show(mine, lambda: output.field_lines(_fields(mine)))


def _clear(cli: Cli, age: float, user: str | None, yes: bool) -> None:
    whose = "your jobs" if user is None else f"the jobs of {user}"
    confirm(f"Remove {whose} that ended more than {duration(age)} ago, with payloads, results and logs?", yes)
    cleared = cli.client().clear(age, user)
    left = cleared.usage
    jobs = "job is" if cleared.jobs == 1 else "jobs are"
    cli.done(cleared, f"{cleared.jobs} {jobs} removed. Still stored: {size(left.total)} of {size(left.max_bytes)}.")


def _row(one: Usage) -> list[str]:
    sizes = (one.total, one.payloads, one.results, one.logs, one.files)
    return [one.username, *map(size, sizes), f"{one.waiting}", f"{one.running}"]


def _fields(mine: Usage) -> list[tuple[str, object]]:
    places = f"{mine.running}" if mine.max_running is None else f"{mine.running} of {mine.max_running}"
    return [
        ("stored", f"{size(mine.total)} of {size(mine.max_bytes)}"),
        ("  payloads", size(mine.payloads)),
        ("  results", size(mine.results)),
        ("  logs", size(mine.logs)),
        ("  files", size(mine.files)),
        ("waiting jobs", f"{mine.waiting} of {mine.max_waiting}"),
        ("  kinds", f"{mine.kinds} of {mine.max_kinds}"),
        ("places", places),
    ]
