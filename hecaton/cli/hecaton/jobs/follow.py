"""Stay with a job until it ends, hand over its result, and leave with the exit code that tells how it ended."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hecaton.cli import output
from hecaton.cli.hecaton.context import Cli
from hecaton.cli.hecaton.jobs import text as job_text
from hecaton.cli.terminal import is_terminal
from hecaton.core.model import JobState

if TYPE_CHECKING:
    from hecaton.wire.api import JobView

AGAIN = 3.0
"""Seconds after a Ctrl-C in which a second one stops what is waited for."""


def _writable(ctx: click.Context, param: click.Parameter, value: Path | None) -> Path | None:
    """Found out now, not when the result is there. `-` is stdout, as without the option."""
    if value is None or str(value) == "-":
        return None
    folder = value if value.is_dir() else value.parent
    if value.is_dir():
        why = "it is a folder"
    elif not folder.is_dir():
        why = f"there is no folder {folder}" if not folder.exists() else f"{folder} is no folder"
    elif not os.access(value if value.exists() else folder, os.W_OK):
        why = "you may not write there"
    else:
        return value
    raise click.BadParameter(f"cannot write {value}: {why}. Name another file.", ctx, param)


output_option = click.option(
    "-o", "--output", "target",
    type=click.Path(path_type=Path), callback=_writable,
    help="Write the result to this file instead of stdout (-).",
)  # fmt: skip


def follow(
    cli: Cli,
    job_id: str,
    timeout: float | None,
    target: Path | None,
    name: str | None = None,
    code_of: Callable[[JobView], int] | None = None,
) -> int:
    """Watch until the end, print the result, and return the exit code that tells how it ended. `name`: what people call
    it, its number where that is known. `code_of`: for what is as if it ran here: its log is on stdout, its exit code is
    this one, and who has interrupted it has done that."""
    from hecaton.cli.hecaton.jobs import live
    from hecaton.client.jobs import keeps_refused

    client = cli.client()
    try:
        as_here = code_of is not None and not cli.json
        view, shown = live.watch(client, job_id, timeout, name or job_id, live.Screen(log_on_stdout=as_here))
    except KeyboardInterrupt:
        name = name or job_id
        code = interrupted(f"Job {name}", f"job wait {name}", cli, lambda: cli.new_client().cancel(job_id).state)
        return code if code_of is None or code == 0 else output.INTERRUPTED
    if view.state == "FINISHED":
        if target is not None:
            client.download_result(view.id, target)
            output.say(f"The result is in {target}.")
        elif not cli.json:
            job_text.print_result(client, view)
    elif not cli.json:
        for line in job_text.ending(view, shown):
            click.echo(line, err=True)
    if target is not None and keeps_refused(view):
        client.download_result(view.id, target)
        output.say(f"What was refused is in {target}.")
    if cli.json:
        output.print_json(view if target is not None else job_text.with_result(client, view))
    return output.EXIT_CODE_OF_STATE[view.state] if code_of is None else code_of(view)


def follow_all(cli: Cli, job_ids: Sequence[str], timeout: float | None) -> int:
    """Until the last of them ends: a line for each, and in the end the exit code of the worst. NotFound at once if
    there is no such job."""
    client = cli.client()
    deadline = None if timeout is None else time.monotonic() + timeout
    numbers = {view.id: view.index for view in map(client.job, job_ids)}
    views: list[JobView] = []
    try:
        for job_id in numbers:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            views.append(client.wait(job_id, left))
            if not cli.json:
                output.say("\n".join(job_text.ending(views[-1])))
    except KeyboardInterrupt:
        client.close()
        open_ones = [job_id for job_id in numbers if job_id not in {view.id for view in views}]
        typed = " ".join(str(numbers[job_id]) for job_id in open_ones)

        def cancel() -> JobState:
            again = cli.new_client()
            return max((again.cancel(job_id).state for job_id in open_ones), key=_badness)

        what = f"Job {typed}" if len(open_ones) == 1 else f"Each of the jobs {typed}"
        return interrupted(what, f"job wait {typed}", cli, cancel)
    if cli.json:
        output.print_json(views)
    return output.EXIT_CODE_OF_STATE[max((view.state for view in views), key=_badness)]


def _badness(state: JobState) -> int:
    """Of a state in which a job may be found at its end, or when it has been told to stop."""
    return (JobState.FINISHED, JobState.CANCELLED, JobState.FAILED).index(state) if state.terminal else 3


def interrupted(what: str, back: str, cli: Cli, cancel: Callable[[], JobState]) -> int:
    """After Ctrl-C: it goes on, unless another one comes soon. `back`: the command that comes back to it. `cancel`:
    gives what it is then, for it may have ended by itself meanwhile."""
    asks = is_terminal(sys.stdin)
    again = f" Ctrl-C again within {AGAIN:g} s cancels it." if asks else ""
    try:
        output.say(f"{what} goes on.{again} Come back with: hecaton {back}{cli.server_flag}")
        if asks:
            time.sleep(AGAIN)
    except KeyboardInterrupt:
        if not asks:
            raise
        state = cancel()
        output.say(f"{what} is {state}" + ("." if state.terminal else ", and told to stop."))
        return output.EXIT_CODE_OF_STATE[state] if state.terminal else output.CANCELLED
    return output.INTERRUPTED
