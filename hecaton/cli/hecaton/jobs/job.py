"""`hecaton job`: list, show, wait, logs, cancel, retry; `new` has a module of its own. What they print about one job is
in `job_text`. What people do daily they type without the noun, and with `ps` they see what they have."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hecaton.cli import output
from hecaton.cli.duration import Duration
from hecaton.cli.hecaton import habits
from hecaton.cli.hecaton.completers import jobs
from hecaton.cli.hecaton.context import Cli, pass_cli
from hecaton.cli.hecaton.jobs import text as job_text
from hecaton.cli.hecaton.jobs.follow import follow, follow_all, output_option
from hecaton.cli.hecaton.jobs.new import new
from hecaton.cli.hecaton.jobs.options import job_options, tags_option
from hecaton.cli.hecaton.tree import Command, Group
from hecaton.cli.terminal import HarmlessStream, is_terminal
from hecaton.core.errors import HecatonError, Unauthenticated, Unreachable
from hecaton.core.model import JobState

if TYPE_CHECKING:
    from hecaton.client import Client
    from hecaton.wire.api import JobSummary

STATES = [state.value for state in JobState]


@click.group(cls=Group, habits=habits.JOB)
def job() -> None:
    """Submit and track jobs. A job is named by its id or by its short number (index)."""


job.add_command(new)


@job.command("list")
@click.option("--state", type=click.Choice(STATES, case_sensitive=False), help="Only jobs in this state.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="The latest so many.")
@click.option("--all", "everything", is_flag=True, help="All of them.")
@click.option("--name", help="Only those that are called so.")
@tags_option("Only those with this tag.")
@pass_cli
def list_jobs(
    cli: Cli, state: str | None, limit: int, everything: bool, name: str | None, tags: dict[str, str]
) -> None:
    """List recent jobs and their statuses, the latest first."""
    found = _pages(cli.client(), state, None if everything else limit, name, tags)
    now = cli.client().now()
    cli.show(found, lambda: job_text.rows(found, now, _nothing(state, name or job_text.tagged(tags))))


@click.command("ps", cls=Command)
@click.option("-a", "--all", "ended", is_flag=True, help="Also those that have ended: the latest 20.")
@click.option("--all-users", is_flag=True, help="Those of everybody (admins).")
@tags_option("Only those with this tag.")
@pass_cli
def ps(cli: Cli, ended: bool, all_users: bool, tags: dict[str, str]) -> None:
    """List your jobs that wait or run, the latest first."""
    client = cli.client()
    whose = "all" if all_users else "mine"
    found = _pages(client, None, 20, tags=tags, whose=whose) if ended else _alive(client, tags, whose)
    label = f" with the tag {job_text.tagged(tags)}" if tags else ""
    nothing = f"No job{label}." if ended else f"No job{label} waits or runs. Those that have ended: hecaton ps -a"
    now = client.now()
    cli.show(found, lambda: job_text.rows(found, now, nothing))


def _alive(client: Client, tags: dict[str, str], whose: str) -> list[JobSummary]:
    """Those that have not ended, the latest first. One may move from state to state meanwhile."""
    states = (state for state in STATES if not JobState(state).terminal)
    found = {one.index: one for state in states for one in _pages(client, state, None, tags=tags, whose=whose)}
    return [found[index] for index in sorted(found, reverse=True)]


def _nothing(state: str | None, label: str | None) -> str:
    if label:
        return f"No job{f' that is {state}' if state else ''} is called or tagged {label}."
    return f"No job is {state}." if state else "No jobs yet. Submit one: hecaton job new FILE IMAGE"


def _pages(
    client: Client,
    state: str | None,
    limit: int | None,
    name: str | None = None,
    tags: dict[str, str] | None = None,
    whose: str | None = None,
) -> list[JobSummary]:
    found: list[JobSummary] = []
    before = None
    while limit is None or len(found) < limit:
        page = client.jobs(
            state=JobState(state) if state else None,
            limit=min(200, limit - len(found)) if limit else 200,
            before=before,
            name=name,
            tags=tags,
            whose=whose,
        )
        found.extend(page.jobs)
        before = page.next
        if before is None:
            break
    return found


@job.command("show")
@click.argument("job_id", shell_complete=jobs)
@pass_cli
def show(cli: Cli, job_id: str) -> None:
    """View full details of a job: ID, status, payload, index, and why it waits or failed."""
    client = cli.client()
    view = client.job(job_id)
    cli.show(view, lambda: job_text.details(view, client.now(), job_text.number_of(client.job, view.retry_of)))


@job.command("wait")
@click.argument("job_ids", nargs=-1, required=True, metavar="JOB_ID...", shell_complete=jobs)
@click.option("--timeout", type=Duration(), help="Wait no longer than this (90, 15m, 2h); the job goes on.")
@output_option
@pass_cli
def wait(cli: Cli, job_ids: tuple[str, ...], timeout: float | None, target: Path | None) -> int:
    """Stay with a job until it ends: logs on stderr, the result on stdout.

    Of several a line for each that has ended; the exit code is that of the worst: FAILED, CANCELLED, FINISHED.
    """
    if len(job_ids) == 1:
        return follow(cli, job_ids[0], timeout, target)
    if target is not None:
        raise click.UsageError("--output takes the result of one job")
    return follow_all(cli, job_ids, timeout)


@job.command("logs")
@click.argument("job_id", shell_complete=jobs)
@click.option("-f", "--follow", is_flag=True, help="Go on until the job ends.")
@click.option("--attempt", type=click.IntRange(min=1), help="Of this attempt; without it: of the last.")
@pass_cli
def logs(cli: Cli, job_id: str, follow: bool, attempt: int | None) -> None:
    """Print what a job printed."""
    client = cli.client()
    if follow and attempt is not None:
        raise click.UsageError("--follow shows the running attempt: --attempt does not go with it")
    pieces = _live(client, job_id) if follow else iter([(client.download_log(job_id, attempt), "")])
    if cli.json:
        output.print_json({"job": job_id, "log": b"".join(log for log, _ in pieces).decode(errors="replace")})
    else:
        _print_log(pieces)


def _live(client: Client, job_id: str) -> Iterator[tuple[bytes, str]]:
    """Pieces of its log, and the bar that its handler has reported last."""
    drawn = ""
    for event in client.events(job_id):
        if event.event == "state":
            drawn = ""
        elif event.event == "progress":
            drawn = job_text.progress_bar(event.value)
        if event.event in ("log", "progress"):
            yield (str(event.value).encode() if event.event == "log" else b""), drawn


def _print_log(pieces: Iterable[tuple[bytes, str]]) -> None:
    """Harmless on a terminal, above the bar that belongs to it; byte for byte elsewhere."""
    from hecaton.cli.hecaton.jobs.live import Screen

    if not is_terminal(sys.stdout):
        for piece, _ in pieces:
            click.echo(piece, nl=False)
        return
    screen = Screen(sys.stdout)
    stream = HarmlessStream(returns=True)  # the terminal itself writes progress bars over
    shown = "\n"
    try:
        for piece, drawn in pieces:
            text = stream.feed(piece.decode(errors="replace"))
            screen.erase()
            click.echo(text, nl=False)
            shown = text or shown
            if shown.endswith("\n"):  # within a line there is no place for it
                screen.status(drawn)
    finally:
        screen.erase()
    rest = stream.end()
    click.echo(rest, nl=not (rest or shown).endswith("\n"))


@job.command("cancel")
@click.argument("job_ids", nargs=-1, metavar="[JOB_ID]...", shell_complete=jobs)
@tags_option("All of yours with this tag that have not ended.")
@pass_cli
def cancel(cli: Cli, job_ids: tuple[str, ...], tags: dict[str, str]) -> int:
    """Cancel jobs, waiting or running. Each is tried; the exit code is that of the first that could not be."""
    if tags:
        tagged = [str(one.index) for one in _alive(cli.client(), tags, "mine")]
        if not tagged:
            output.say(f"No job with the tag {job_text.tagged(tags)} waits or runs.")
        job_ids = (*job_ids, *tagged)
    elif not job_ids:
        raise click.UsageError("say which: JOB_ID..., or --tag KEY=VALUE")
    views, code = [], 0
    for job_id in job_ids:
        try:
            view = cli.client().cancel(job_id)
        except (Unreachable, Unauthenticated):
            raise
        except HecatonError as error:
            output.show_error(error, cli.json)
            code = code or output.exit_code(error)
            continue
        views.append(view)
        if not cli.json:
            output.say(f"Job {view.index} is {view.state}" + ("." if view.state.terminal else ", and told to stop."))
    if cli.json and views:
        output.print_json(views[0] if len(job_ids) == 1 and not tags else views)
    return code


@job.command("retry")
@click.argument("job_id", shell_complete=jobs)
@job_options
@pass_cli
def retry(cli: Cli, /, job_id: str, **options: Any) -> None:
    """Submit an ended job again, as a new job; prints the new id. Options that are given change, all else stays.

    hecaton job retry 412 --timeout 2h
    """
    handle = cli.client().retry(job_id, **{name: value for name, value in options.items() if value is not None})
    cli.submitted("job", handle.index, handle.id)
