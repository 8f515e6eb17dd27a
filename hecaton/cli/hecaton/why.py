"""`hecaton why`: why a job waits, what it does, or why it failed: one answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hecaton.cli.hecaton.completers import jobs
from hecaton.cli.hecaton.context import Cli, pass_cli
from hecaton.cli.hecaton.jobs import text as job_text
from hecaton.cli.hecaton.tree import Command
from hecaton.cli.terminal import duration, one_line
from hecaton.core.errors import NotFound
from hecaton.core.model import Reason

if TYPE_CHECKING:
    from hecaton.wire.api import JobView

LONGER = 2
"""Times the time limit that was too short."""


@click.command("why", cls=Command)
@click.argument("job_id", required=False, shell_complete=jobs)
@pass_cli
def why(cli: Cli, job_id: str | None) -> None:
    """Tell why a job waits, where its time goes, or why it failed. Without JOB_ID: your last one."""
    client = cli.client()
    view = client.job(job_id if job_id is not None else _last(cli))
    cli.show(view, lambda: explanation(view, client.now()))


def _last(cli: Cli) -> str:
    page = cli.client().jobs(limit=1, whose="mine")
    if not page.jobs:
        raise NotFound("you have no job yet", "Submit one: hecaton run train.py")
    return page.jobs[0].id


def explanation(view: JobView, now: float) -> list[str]:
    """What is so, why, and what to type."""
    if view.state == "IN_QUEUE":
        lines = [f"Job {view.index} waits, for {duration(now - view.created_at)} now."]
        lines += [f"  {line}" for line in [*job_text.waiting_lines(view, now), *job_text.before_it(view)]]
        return [*lines, f"Stop: hecaton cancel {view.index}"]
    if not view.state.terminal:
        return _at_work(view, now)
    if view.state == "FAILED":
        return [*job_text.ending(view), _times(view, now), f"Its log: hecaton logs {view.index}", _again(view)]
    index = view.index
    back = f"Its result: hecaton wait {index}" if view.state == "FINISHED" else f"Again: hecaton retry {index}"
    return [f"Job {index} is {view.state}.", _times(view, now), back]


def _at_work(view: JobView, now: float) -> list[str]:
    does = "runs" if view.state == "IN_PROGRESS" else "is being started"
    attempt = f", attempt {view.attempt}" if view.attempt > 1 else ""
    lines = [f"Job {view.index} {does} on {view.worker}{attempt}."]
    said = view.note, job_text.progress(view.progress) if view.progress is not None else None
    lines += [f"  {one_line(text)}" for text in said if text]
    lines += [f"  {line}" for line in (job_text.waiting_lines(view) if view.waiting else [])]
    told = " It is told to stop." if view.cancel_requested else ""
    return [
        *lines,
        _times(view, now) + told,
        f"Its log: hecaton logs -f {view.index}    Stop: hecaton cancel {view.index}",
    ]


def _times(view: JobView, now: float) -> str:
    queued, starting, running = map(duration, job_text.spent(view, now))
    tries = f", in {view.attempt} attempts" if view.attempt > 1 else ""
    return f"In the queue {queued}, starting {starting}, running {running}{tries}."


def _again(view: JobView) -> str:
    if view.reason is Reason.TIMEOUT and view.timeout:
        return f"With more time: hecaton retry {view.index} --timeout {view.timeout * LONGER:.0f}"
    return f"Again: hecaton retry {view.index}"
