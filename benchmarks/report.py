"""The Markdown of a run: where it ran, Hecaton beside its rivals, every row beside its target, the plots."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

from benchmarks import subject
from benchmarks.contest import EXECUTORS
from benchmarks.measure import MIB, machine, median
from benchmarks.plan import Plan, Row
from benchmarks.versus import CALLS, JOBS, Standing

PLOT = """\
## Cost per job as things grow

CPU of the server for one job, submitted, run and read by 64 clients, or by one where it says so; workers are the
worker's own link and protocol with an echo in the place of containers.

![Cost per job against queue length, finished jobs and workers](benchmarks.svg)"""


class Place(NamedTuple):
    """What the machine does by itself: a durable write's milliseconds, cores that others burn, the least and the most
    milliseconds of one loop."""

    fsync_ms: float
    busy: float
    loop_ms: tuple[float, float]


class Values(NamedTuple):
    """A row and its value of every round."""

    row: Row
    rounds: Sequence[float]


def write(plan: Plan, place: Place, standings: Sequence[Standing], values: Sequence[Values], *, plotted: bool) -> str:
    parts = [_head(plan, place), _versus(standings, plan), _targets(values), PLOT if plotted else ""]
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(plan: Plan, place: Place) -> str:
    size = f"the median of {plan.rounds} rounds" if plan.full else "one small round: read the form, not the numbers"
    return f"""\
# Benchmarks

Written by `make bench` on {time.strftime("%Y-%m-%d")}; every number is {size}, taken in turn (A B A B). Everything
that takes part in a measurement, client, server, worker and container, shares this machine:

- {machine()}
- 4 KiB append and fdatasync: {place.fsync_ms:.2f} ms; other programs burnt {place.busy:.2f} cores before the start
- a million turns of an empty loop in Python: {place.loop_ms[0]:.0f} to {place.loop_ms[1]:.0f} ms at the start
  (what else its host does changes the speed of a virtual machine)
- jobs of Hecaton ran in: {subject.runtime()}
- authentication, durability, leases and logs are on, as they always are"""


def _versus(standings: Sequence[Standing], plan: Plan) -> str:
    if not standings:
        return ""
    base = next((standing.numbers for standing in standings if standing.numbers), {})
    lines = [
        "## Hecaton and what people would use instead",
        "",
        f"A no-op echo. Latency: {plan.size(CALLS, 20)} warm round trips of one client. Throughput: "
        f"{plan.size(JOBS, 100)} jobs, from the first submit to the last result, {EXECUTORS} executors. "
        "Ratios: how many times the first line is faster. Rivals run jobs in plain processes, not in containers.",
        "",
        "| | survives kill -9 | p50 ms | p99 ms | ratio | jobs/s | ratio | submitted/s | memory MiB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for standing in standings:
        name, survives, numbers = standing.entrant.name, standing.entrant.survives, standing.numbers
        if not numbers:
            lines.append(f"| {name} | {survives} | not run: {standing.missing} | | | | | | |")
            continue
        memory = " + ".join(f"{size / MIB:.0f} ({role})" for role, size in standing.memory.items())
        lines.append(
            f"| {name} | {survives} | {numbers['p50_ms']:.2f} | {numbers['p99_ms']:.2f} "
            f"| {numbers['p50_ms'] / base['p50_ms']:.1f} | {numbers['jobs_per_s']:,.0f} "
            f"| {base['jobs_per_s'] / numbers['jobs_per_s']:.1f} | {numbers['submitted_per_s']:,.0f} | {memory} |"
        )
    lines += ["", *(f"- {standing.entrant.name}: {standing.version}" for standing in standings)]
    return "\n".join(lines)


def _targets(values: Sequence[Values]) -> str:
    if not values:
        return ""
    lines = ["## Every row beside its target", "", "| what | target | measured | rounds | |", "|---|---|---|---|---|"]
    for row, rounds in values:
        if not rounds:
            lines.append(f"| {row.what} | {row.target} | not measured | | |")
            continue
        reached = row.reached(median(rounds))
        mark = "" if reached is None else "reached" if reached else "**missed**"
        spread = ", ".join(_number(value) for value in rounds)
        lines.append(f"| {row.what} | {row.target} | {_number(median(rounds))} {row.unit} | {spread} | {mark} |")
    return "\n".join(lines)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
