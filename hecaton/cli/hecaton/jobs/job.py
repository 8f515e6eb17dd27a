"""`hecaton job`: new, list, show, wait, logs, cancel, retry. What they print about one job is in `job_text`."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hecaton.cli import output
from hecaton.cli.duration import Duration
from hecaton.cli.hecaton.completers import images, jobs
from hecaton.cli.hecaton.context import Cli, pass_cli
from hecaton.cli.hecaton.jobs import text as job_text
from hecaton.cli.hecaton.jobs.options import job_options
from hecaton.cli.hecaton.tree import Group
from hecaton.cli.terminal import HarmlessStream, is_terminal
from hecaton.core.errors import NotFound
from hecaton.core.model import JobState

if TYPE_CHECKING:
    from hecaton.client import Client, JobHandle
    from hecaton.wire.api import JobSummary

STATES = [state.value for state in JobState]
output_option = click.option(
    "-o", "--output", "target", type=click.Path(path_type=Path), help="Write the result to this file instead of stdout."
)


@click.group(cls=Group)
def job() -> None:
    """Submit and track jobs. A job is named by its id or by its short number (index)."""


@job.command("new")
@click.argument("file_path", type=click.Path(path_type=Path))
@click.argument("image_name", required=False, shell_complete=images)
@click.argument("args", nargs=-1)
@click.option(
    "--each",
    metavar="FILE",
    help="A batch, without FILE_PATH: a job for each line of FILE (JSON), or each file of a quoted glob.",
)
@click.option("--name", help="Name of the batch (--each).")
@click.option("--wait", is_flag=True, help="Stay: logs and progress on stderr, the result on stdout.")
@click.option("--script", is_flag=True, help="FILE_PATH is a Python or shell file to run; its ARGS follow after --.")
@click.option(
    "--handler", type=click.Path(path_type=Path), help="A local file that calls start(); FILE_PATH is its payload."
)
@job_options
@click.option("--idempotency-key", help="Submitting again with the same key gives the first job.")
@output_option
@pass_cli
def new(
    cli: Cli,
    /,
    file_path: Path,
    image_name: str | None,
    args: tuple[str, ...],
    each: str | None,
    name: str | None,
    wait: bool,
    script: bool,
    handler: Path | None,
    target: Path | None,
    idempotency_key: str | None,
    **options: Any,
) -> int:
    """Submit a new job; prints its id.

    \b
    hecaton job new payload.json my-image:latest
    hecaton job new payload.json my-image:latest --wait -o result.json
    hecaton job new train.py python:3.9-slim --script -- --epochs 3
    hecaton job new payload.json python:3.9-slim --handler handler.py
    hecaton job new --each payloads.jsonl --name pictures my-image:latest
    """
    given = {name: value for name, value in options.items() if value is not None}
    asked = _Submission(script, handler, args, idempotency_key, given)
    if script and handler:
        raise click.UsageError("--script and --handler exclude each other")
    if each is None and name is not None:
        raise click.UsageError("--name is that of a batch: it goes with --each")
    if each is not None:
        if script or image_name is not None:
            raise click.UsageError("--each takes the place of FILE_PATH, and goes with no script")
        return _new_batch(cli, str(file_path), each, name or "", wait, target, asked)
    if image_name is None:
        raise click.UsageError("Missing argument 'IMAGE_NAME'.")
    if args and not script:
        raise click.UsageError(f"{args[0]!r} is too much: arguments go to scripts only (--script)")
    if target and not wait:
        raise click.UsageError("--output needs --wait: there is no result yet")
    with _known_image(image_name):
        handle = _submit(cli.client(), file_path, image_name, asked)
    if wait:
        output.say(f"Job {handle.index} ({handle.id}) is submitted.")
        return _follow(cli, handle.id, None, target)
    cli.show({"id": handle.id, "index": handle.index}, lambda: [handle.id])
    return 0


@dataclass(frozen=True)
class _Submission:
    """How a payload is to be run. `key`: idempotency key. `options`: of the job, by name, without those not given."""

    script: bool
    handler: Path | None
    args: tuple[str, ...]
    key: str | None
    options: dict[str, Any]


def _submit(client: Client, path: Path, image: str, asked: _Submission) -> JobHandle:
    from hecaton.core.doors import WAYS, asked_for

    mode = asked_for(name for name, given in (("script", asked.script), ("handler", asked.handler)) if given)
    if not WAYS[mode].takes_payload:
        return client.submit(image, mode=mode, file=path, args=asked.args, key=asked.key, **asked.options)
    return client.submit(image, payload_file=path, mode=mode, file=asked.handler, key=asked.key, **asked.options)


@contextmanager
def _known_image(name: str) -> Iterator[None]:
    try:
        yield
    except NotFound as error:
        raise NotFound(error.message, f"An admin registers it with: hecaton image new {name}") from error


def _new_batch(cli: Cli, image: str, each: str, name: str, wait: bool, target: Path | None, asked: _Submission) -> int:
    from hecaton.cli.hecaton.jobs import batch
    from hecaton.cli.hecaton.jobs.each import items_of

    if target and not wait:
        raise click.UsageError("--output needs --wait: there is no result yet")
    client = cli.client()
    options = asked.options
    if asked.handler:
        options = {**options, "mode": "handler", "file": asked.handler}
    with items_of(client, each) as items, _known_image(image):
        handle = client.submit_items(image, items, name=name, key=asked.key, **options)
    if wait:
        output.say(f"Batch {handle.index} ({handle.id}) is submitted.")
        return batch.follow(cli, handle, target)
    cli.show({"id": handle.id, "index": handle.index}, lambda: [handle.id])
    return 0


@job.command("list")
@click.option("--state", type=click.Choice(STATES, case_sensitive=False), help="Only jobs in this state.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="The latest so many.")
@click.option("--all", "everything", is_flag=True, help="All of them.")
@pass_cli
def list_jobs(cli: Cli, state: str | None, limit: int, everything: bool) -> None:
    """List recent jobs and their statuses, the latest first."""
    found = _pages(cli.client(), state, None if everything else limit)
    now = time.time()
    rows = [job_text.row(view, now) for view in found]
    cli.show(found, lambda: output.table_lines(job_text.COLUMNS, rows, "There is no such job."))


def _pages(client: Client, state: str | None, limit: int | None) -> list[JobSummary]:
    found: list[JobSummary] = []
    before = None
    while limit is None or len(found) < limit:
        page = client.jobs(
            state=JobState(state) if state else None,
            limit=min(200, limit - len(found)) if limit else 200,
            before=before,
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
    view = cli.client().job(job_id)
    cli.show(view, lambda: job_text.details(view, time.time()))


@job.command("wait")
@click.argument("job_id", shell_complete=jobs)
@click.option("--timeout", type=Duration(), help="Wait no longer than this (90, 15m, 2h); the job goes on.")
@output_option
@pass_cli
def wait(cli: Cli, job_id: str, timeout: float | None, target: Path | None) -> int:
    """Stay with a job until it ends: logs on stderr, the result on stdout."""
    return _follow(cli, job_id, timeout, target)


def _follow(cli: Cli, job_id: str, timeout: float | None, target: Path | None) -> int:
    """Watch until the end, print the result, and return the exit code that tells how it ended."""
    from hecaton.cli.hecaton.jobs import live
    from hecaton.client.jobs import keeps_refused

    client = cli.client()
    try:
        view = live.watch(client, job_id, timeout)
    except KeyboardInterrupt:
        output.say(f"The job goes on. Come back with: hecaton job wait {job_id}{cli.server_flag}")
        return output.INTERRUPTED
    if view.state == "FINISHED":
        if target is not None:
            client.download_result(view.id, target)
            output.say(f"The result is in {target}.")
        elif not cli.json:
            job_text.print_result(client, view)
    elif not cli.json:
        for line in job_text.ending(view):
            click.echo(line, err=True)
    if target is not None and keeps_refused(view):
        client.download_result(view.id, target)
        output.say(f"What was refused is in {target}.")
    if cli.json:
        output.print_json(view if target is not None else job_text.with_result(client, view))
    return output.EXIT_CODE_OF_STATE[view.state]


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
    if follow:
        pieces: Iterator[bytes] = (str(e.value).encode() for e in client.events(job_id) if e.event == "log")
    else:
        pieces = iter([client.logs(job_id, attempt)])
    if cli.json:
        output.print_json({"job": job_id, "log": b"".join(pieces).decode(errors="replace")})
    else:
        _print_log(pieces)


def _print_log(pieces: Iterable[bytes]) -> None:
    """Harmless on a terminal, byte for byte elsewhere."""
    if not is_terminal(sys.stdout):
        for piece in pieces:
            click.echo(piece, nl=False)
        return
    stream = HarmlessStream()
    for piece in pieces:
        click.echo(stream.feed(piece.decode(errors="replace")), nl=False)
    click.echo(stream.end(), nl=False)


@job.command("cancel")
@click.argument("job_id", shell_complete=jobs)
@pass_cli
def cancel(cli: Cli, job_id: str) -> None:
    """Cancel a job, waiting or running."""
    view = cli.client().cancel(job_id)
    ended = f"Job {view.index} is {view.state}."
    cli.done(view, ended if view.state.terminal else f"Job {view.index} is {view.state} and has been told to stop.")


@job.command("retry")
@click.argument("job_id", shell_complete=jobs)
@pass_cli
def retry(cli: Cli, job_id: str) -> None:
    """Submit an ended job again, as a new job; prints the new id."""
    handle = cli.client().retry(job_id)
    cli.show({"id": handle.id, "index": handle.index}, lambda: [handle.id])
