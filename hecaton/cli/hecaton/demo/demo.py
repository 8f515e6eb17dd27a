"""`hecaton demo`: the whole of Hecaton on this machine in half a minute; needs nothing, leaves nothing."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from hecaton.cli.hecaton.context import Cli, pass_cli
from hecaton.cli.hecaton.jobs import text as job_text
from hecaton.cli.hecaton.tree import Command
from hecaton.cli.terminal import Column, duration, table
from hecaton.core.errors import BadRequest

if TYPE_CHECKING:
    from rich.console import Console

    from hecaton.cli.hecaton.demo.cluster import Cluster
    from hecaton.client import Client, JobHandle
    from hecaton.wire.api import JobView

JOBS = 32
LOOK = 0.2
"""Seconds between two looks at the batch, for the display."""


@click.command(cls=Command, talks=False)
@pass_cli
def demo(cli: Cli) -> None:
    """Try everything on this machine: server, worker, 32 jobs, their results. Needs nothing, leaves nothing."""
    if sys.platform != "linux":
        raise BadRequest(
            f"the demo starts a worker, and workers run on Linux: this system is {sys.platform}",
            "The client runs here. Connect it to a server: hecaton server new --ip HOST:8181 --name NAME",
        )
    from rich.console import Console

    from hecaton.cli.hecaton.demo.cluster import started
    from hecaton.cli.hecaton.demo.engine import find_python_image

    console = Console(stderr=cli.json, highlight=False, soft_wrap=True)
    image, why = find_python_image()
    console.print("[bold]Hecaton demo[/]: a server, a worker and a batch of jobs on this machine.\n")
    with started(image) as cluster:
        client = _set_up(console, cluster, why)
        views, took = _batch(console, cluster, client)
        _report(console, views, took)
        failed = _failing_job(console, cluster, client)
    console.print("\nEverything is stopped and removed. Now with your own server, worker and handler: hecaton --help")
    if cli.json:
        cli.show({"jobs": len(views), "seconds": took, "image": cluster.image, "failed": failed}, list)


def _set_up(console: Console, cluster: Cluster, why: str) -> Client:
    began = time.monotonic()
    client = cluster.start_server()
    console.print(f"  server   {cluster.url}, ready after {duration(time.monotonic() - began)}")
    began = time.monotonic()
    cluster.start_worker(client)
    took = duration(time.monotonic() - began)
    runtime = f"Docker engine, image {cluster.image}" if cluster.docker else "process runtime (no isolation)"
    console.print(f"  worker   {runtime}, {cluster.slots} slots, ready after {took}")
    if why:
        console.print(f"           without containers, because {why}")
    return client


def _submit(client: Client, cluster: Cluster, row: object) -> JobHandle:
    from hecaton.core.model import Mode

    if cluster.docker:
        return client.submit(cluster.image, {"row": row}, mode=Mode.HANDLER, file=cluster.handler)
    return client.submit(cluster.image, {"row": row})


def _batch(console: Console, cluster: Cluster, client: Client) -> tuple[list[JobView], float]:
    """Submit all and watch them. Returns them as they ended, and the seconds from first submission to last result."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from hecaton.core.model import JobState

    columns = (
        TextColumn("  jobs    "),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[states]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("jobs", total=JOBS, states="")
        for row in range(JOBS):
            _submit(client, cluster, row)
        while True:
            cluster.check()
            states = [job.state for job in client.jobs(limit=JOBS).jobs]
            ended = sum(1 for state in states if state.terminal)
            waiting, running = states.count(JobState.IN_QUEUE), states.count(JobState.IN_PROGRESS)
            progress.update(task, completed=ended, states=f"{waiting} waiting, {running} running")
            if ended == JOBS:
                break
            time.sleep(LOOK)
    views = [client.job(job.id) for job in client.jobs(limit=JOBS).jobs]
    took = max(view.ended_at or 0 for view in views) - min(view.created_at for view in views)
    return sorted(views, key=lambda view: view.index), took


def _report(console: Console, views: Sequence[JobView], took: float) -> None:
    console.print("\n[bold]Their results, put together[/]\n")
    for view in views:
        if view.state == "FINISHED":
            console.print("  " + json.loads(bytes(view.result))["text"], markup=False)
    finished = sum(1 for view in views if view.state == "FINISHED")
    console.print(f"\n[bold]Where the time went[/]: {finished} of {len(views)} jobs finished in {duration(took)}\n")
    for line in _times(views):
        console.print("  " + line, markup=False)
    console.print(
        "\n  The first job waits for its container and imports; the container then stays warm for the others."
    )


def _times(views: Sequence[JobView]) -> list[str]:
    """Medians over the jobs that ran, the first one apart: it paid for the start."""
    ran = sorted((times for view in views if (times := _phases(view))), key=lambda times: times[0])
    if len(ran) < 2:
        return []
    columns = [
        Column(""),
        *(Column(title, right=True) for title in ("in the queue", "at the worker", "running", "in all")),
    ]
    rows = [["first job (cold)", *map(duration, ran[0][1:])]]
    for name, pick in (("others (warm), median", statistics.median), ("others (warm), longest", max)):
        rows.append([name, *(duration(pick(values)) for values in list(zip(*ran[1:], strict=True))[1:])])
    return table(columns, rows, None)


def _phases(view: JobView) -> tuple[float, float, float, float, float] | None:
    """When it started, and its seconds in the queue, at the worker before the start, running, and in all."""
    if view.assigned_at is None or view.started_at is None or view.ended_at is None:
        return None
    return (
        view.started_at,
        view.assigned_at - view.created_at,
        view.started_at - view.assigned_at,
        view.ended_at - view.started_at,
        view.ended_at - view.created_at,
    )


def _failing_job(console: Console, cluster: Cluster, client: Client) -> str:
    """Submit a job that cannot work, and show what its user is told."""
    console.print('\n[bold]A job that fails says why[/]: its payload is {"row": "twelve"}\n')
    handle = _submit(client, cluster, "twelve")
    view = client.wait(handle.id, timeout=60)
    for line in job_text.ending(view):
        console.print("  " + click.unstyle(line), markup=False)
    return str(view.reason)
