"""`hecaton batch`: list, show, wait, results, retry, cancel, resume. Batches are made by `hecaton job new --each`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hecaton.cli import output
from hecaton.cli.hecaton import habits
from hecaton.cli.hecaton.completers import batches
from hecaton.cli.hecaton.context import Cli, pass_cli
from hecaton.cli.hecaton.jobs.follow import interrupted, output_option
from hecaton.cli.hecaton.jobs.text import number_of
from hecaton.cli.hecaton.tree import Group
from hecaton.cli.terminal import Column, ago, duration, one_line
from hecaton.core.model import JobState

if TYPE_CHECKING:
    from hecaton.client import BatchHandle, Client
    from hecaton.core.batches import FailureGroup
    from hecaton.wire.api import BatchView

COLUMNS = [
    Column("#", right=True),
    Column("NAME", flexible=True),
    Column("STATUS", state=True),
    Column("DONE", right=True),
    Column("FAILED", right=True),
    Column("IMAGE", flexible=True),
    Column("SUBMITTED"),
    Column("OWNER", flexible=True, optional=True),
    Column("ID", optional=True),
]


@click.group(cls=Group, habits=habits.BATCH)
def batch() -> None:
    """Look after batches: many jobs submitted as one, by `hecaton job new --each`."""


@batch.command("list")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="The latest so many.")
@pass_cli
def list_batches(cli: Cli, limit: int) -> None:
    """List recent batches, the latest first."""
    found = cli.client().batches(limit)
    now = cli.client().now()
    rows = [
        [
            str(v.index), v.name, status(v), f"{v.finished}/{v.size}", str(v.failed), v.image, ago(v.created_at, now),
            v.owner, v.id,
        ]
        for v in found
    ]  # fmt: skip
    cli.show(found, lambda: output.table_lines(COLUMNS, rows, "There is no batch. hecaton job new --each makes one."))


@batch.command("show")
@click.argument("batch_id", shell_complete=batches)
@pass_cli
def show(cli: Cli, batch_id: str) -> None:
    """Counts per state, the time left, and failures grouped by cause."""
    view = cli.client().batch(batch_id).view()
    cli.show(view, lambda: _all(cli.client(), view))


@batch.command("wait")
@click.argument("batch_id", shell_complete=batches)
@output_option
@pass_cli
def wait(cli: Cli, batch_id: str, target: Path | None) -> int:
    """Stay with a batch until all its jobs have ended."""
    from hecaton.cli.hecaton.jobs.batch_results import require_fit

    if target is not None:
        require_fit(target)
    return follow(cli, cli.client().batch(batch_id), target)


@batch.command("results")
@click.argument("batch_id", shell_complete=batches)
@output_option
@pass_cli
def results(cli: Cli, batch_id: str, target: Path | None) -> int:
    """Results in input order as JSON lines, up to the first job that has not ended. Exit code 8: there is one.

    With -o the file is checked and continued: run it again to fetch what has come since.
    """
    return 0 if fetch(cli.client().batch(batch_id), target) else output.GOES_ON


@batch.command("retry")
@click.argument("batch_id", shell_complete=batches)
@click.option("--failed", is_flag=True, help="Those that failed: it is always those.")
@click.option(
    "--handler", type=click.Path(path_type=Path), help="With this handler file in the place of the one that they had."
)
@pass_cli
def retry(cli: Cli, batch_id: str, failed: bool, handler: Path | None) -> None:
    """Submit the failed jobs again, as a new batch; prints the new id, and says which handler file runs."""
    old = cli.client().batch(batch_id)
    made = old.retry_failed(handler)
    view = made.view()
    if view.file_name is not None and not cli.json:
        which = "which is new" if handler else "as it was when they were submitted (--handler FILE: another one)"
        output.say(
            f"Batch {view.index}: {view.size} failed jobs of batch {old.index} again, with {view.file_name}, {which}."
        )
    cli.submitted("batch", made.index, made.id)


@batch.command("cancel")
@click.argument("batch_id", shell_complete=batches)
@pass_cli
def cancel(cli: Cli, batch_id: str) -> None:
    """Cancel all jobs of a batch that have not ended."""
    view = cli.client().batch(batch_id).cancel()
    too_late = view.complete and not view.cancelled
    what = "had ended: nothing is cancelled." if too_late else "is cancelled; what runs has been told to stop."
    cli.done(view, f"Batch {view.index} {what}")


@batch.command("resume")
@click.argument("batch_id", shell_complete=batches)
@pass_cli
def resume(cli: Cli, batch_id: str) -> None:
    """Go on with a batch that has paused because its first jobs all failed alike."""
    view = cli.client().batch(batch_id).resume()
    cli.done(view, f"Batch {view.index} goes on: {view.waiting} jobs wait.")


def status(view: BatchView) -> str:
    if view.complete:
        return "cancelled" if view.cancelled and view.cancel_requested else "complete"
    if view.cancel_requested:
        return "stopping"
    if view.paused is not None:
        return "PAUSED"
    return "running" if view.running else "waiting" if view.closed else "open"


def _all(client: Client, view: BatchView) -> list[str]:
    return details(view, client.now(), number_of(client.batch, view.retry_of))


def details(view: BatchView, now: float, retry_of: str | None) -> list[str]:
    """`retry_of`: what it repeats, as people call that."""
    left = duration(view.seconds_left) if view.seconds_left is not None and not view.complete else None
    lines = output.field_lines(
        [
            ("id", view.id),
            ("index", view.index),
            ("name", view.name or None),
            ("status", status(view)),
            ("image", view.image),
            ("owner", view.owner),
            ("submitted", ago(view.created_at, now)),
            ("jobs", str(view.size) + ("" if view.closed else ", more may come")),
            ("waiting", view.waiting),
            ("at workers", view.running),
            ("finished", view.finished),
            ("failed", view.failed),
            ("cancelled", view.cancelled),
            ("pace", f"{view.rate:.3g} jobs/s" if view.rate and not view.complete else None),
            ("time left", f"about {left}" if left else None),
            ("retry of", retry_of),
        ]
    )
    if view.paused is not None:
        lines += output.block_lines("paused", f"{view.paused}\nTo go on: hecaton batch resume {view.index}")
    if view.failures:
        lines += output.block_lines("failures by cause", "\n".join(map(_cause, view.failures)))
    return lines


def _cause(group: FailureGroup) -> str:
    message = f": {one_line(group.message)}" if group.message else ""
    return f"{group.count} x {group.reason}{message}   e.g. hecaton job show {group.example_index or group.example}"


def fetch(handle: BatchHandle, target: Path | None) -> bool:
    """Results so far into the file, or on stdout; on stderr what is still missing. Whether those are all."""
    from hecaton.cli.hecaton.jobs import batch_results

    count = batch_results.write(handle, target)
    view = handle.view()
    where = f" in {target}" if target else ""
    if count < view.size or not view.closed:
        output.say(f"{count} of {view.size} results are{where}; the next job has not ended.")
        output.say(f"Run it again later, or wait: hecaton batch wait {view.index}")
        return False
    if target:
        output.say(f"All {count} results are{where}.")
    return True


def follow(cli: Cli, handle: BatchHandle, target: Path | None, since: float | None = None) -> int:
    """Show how a batch goes on until its end; the exit code tells whether all jobs finished. `since`: of its
    submission, by `time.monotonic`, where that was just now."""
    from hecaton.cli.hecaton.jobs.live import Screen

    screen = Screen()
    view = handle.view()
    try:
        for view in handle.events():
            screen.status(_progress(view))
    except KeyboardInterrupt:
        screen.close()

        def cancel() -> JobState:
            handle.cancel()
            return JobState.CANCELLED

        return interrupted(f"Batch {handle.index}", f"batch wait {handle.index}", cli, cancel)
    finally:
        screen.close()
    if target is not None:
        fetch(handle, target)
    if cli.json:
        output.print_json(view)
    else:
        for line in _ending(cli, view, since, target):
            click.echo(line, err=True)
    if not view.complete or view.failed:
        return output.EXIT_CODE_OF_STATE["FAILED"]
    return output.CANCELLED if view.cancelled else 0


def _ending(cli: Cli, view: BatchView, since: float | None, target: Path | None) -> list[str]:
    """What it was, and where the results are; all about one in which not all is well."""
    lines = [] if view.complete and not view.failed and not view.cancelled else _all(cli.client(), view)
    if view.complete:
        lines += [""] if lines else []
        name = f" ({one_line(view.name)})" if view.name else ""
        took = f" in {duration(time.monotonic() - since)}" if since is not None else ""
        where = "" if target else f" Results: hecaton batch results {view.index} -o FILE"
        lines.append(f"Batch {view.index}{name}: {view.finished} of {view.size} finished{took}.{where}")
    return lines


def _progress(view: BatchView) -> str:
    ended = view.finished + view.failed + view.cancelled
    text = f"{ended} of {view.size}"
    text += f", {view.failed} failed" if view.failed else ""
    text += f", {view.running} at workers" if view.running else ""
    return text + (f", about {duration(view.seconds_left)} left" if view.seconds_left else "")
