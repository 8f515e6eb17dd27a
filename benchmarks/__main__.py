"""`python -m benchmarks [--only NAME ...] [--output FILE]`: measure, print the report, write it."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from benchmarks import (
    batch,
    cold_start,
    commands,
    growth,
    hops,
    idle,
    instructions,
    latency,
    payload,
    plot,
    queue,
    report,
    sdk,
    slot_gap,
    subject,
    throughput,
    workers,
)
from benchmarks.measure import busy_elsewhere, fsync_ms, loop_ms, median
from benchmarks.plan import FULL_ROUNDS, Measurement, Plan
from benchmarks.versus import Contest

MEASUREMENTS: tuple[Measurement, ...] = (
    latency.MEASUREMENT,
    sdk.MEASUREMENT,
    hops.MEASUREMENT,
    instructions.MEASUREMENT,
    throughput.MEASUREMENT,
    batch.MEASUREMENT,
    queue.MEASUREMENT,
    slot_gap.MEASUREMENT,
    cold_start.MEASUREMENT,
    workers.MEASUREMENT,
    idle.MEASUREMENT,
    payload.MEASUREMENT,
    commands.MEASUREMENT,
    growth.MEASUREMENT,
)
VERSUS = "versus"

Found = dict[str, dict[str, list[float]]]
"""Measurement, key, the value of each round."""

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"


def main() -> None:
    names = [VERSUS, *(measurement.name for measurement in MEASUREMENTS)]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="measure these alone")
    parser.add_argument("--output", type=Path, help="default: docs/benchmarks.md, for a full run of everything")
    options = parser.parse_args()
    plan = Plan(max(1, int(os.environ.get("ITERATIONS", FULL_ROUNDS))))
    folder = Path(tempfile.mkdtemp(prefix="hecaton-bench-"))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # what runs is stopped on the way out
    folder.chmod(0o711)  # see versus: a service with a user of its own must get through
    place = report.Place(fsync_ms(folder), busy_elsewhere(), loop_ms())
    try:
        contest, found = _measure(plan, options.only, folder)
        text = _report(plan, place, contest, found)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        subject.remove_image()
    sys.stdout.write(text)
    output = options.output or (DOCUMENT if plan.full and options.only == names else None)
    if output:
        output.write_text(text)
        if curves := _curves(found):
            output.with_name("benchmarks.svg").write_text(plot.svg(curves))


def _measure(plan: Plan, chosen: list[str], folder: Path) -> tuple[Contest | None, Found]:
    contest = Contest(plan, folder) if VERSUS in chosen else None
    found: Found = {measurement.name: {} for measurement in MEASUREMENTS if measurement.name in chosen}
    for number in range(plan.rounds):
        plan.say(f"round {number + 1} of {plan.rounds}")
        if contest:
            contest.round(number)
        for measurement in MEASUREMENTS:
            if measurement.name in found:
                for key, value in _once(plan, measurement, folder).items():
                    found[measurement.name].setdefault(key, []).append(value)
    return contest, found


def _report(plan: Plan, place: report.Place, contest: Contest | None, found: Found) -> str:
    values = [
        report.Values(row, found[measurement.name].get(key, ()))
        for measurement in MEASUREMENTS
        if measurement.name in found
        for key, row in measurement.rows.items()
    ]
    return report.write(plan, place, contest.standings() if contest else (), values, plotted=bool(_curves(found)))


def _curves(found: Found) -> dict[str, plot.Points]:
    """The medians of what `growth` measured, by what grew."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for key, values in found.get(growth.MEASUREMENT.name, {}).items():
        curve, _, size = key.partition(":")
        if size:
            curves.setdefault(growth.CURVES[curve], []).append((float(size), median(values)))
    return dict(curves)


def _once(plan: Plan, measurement: Measurement, folder: Path) -> dict[str, float]:
    own = folder / measurement.name
    try:
        values = measurement.run(plan, own)
    finally:
        shutil.rmtree(own, ignore_errors=True)
    plan.say(f"{measurement.name}: " + ", ".join(f"{key} {value:.3g}" for key, value in values.items()))
    return values


if __name__ == "__main__":
    main()
