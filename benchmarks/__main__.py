"""`python -m benchmarks [--only NAME ...] [--output FILE]`: measure, print the report, write it."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

from benchmarks import cold_start, idle, latency, report, slot_gap, subject, throughput, workers
from benchmarks.measure import busy_elsewhere, fsync_ms
from benchmarks.plan import FULL_ROUNDS, Measurement, Plan
from benchmarks.versus import Contest

MEASUREMENTS: tuple[Measurement, ...] = (
    latency.MEASUREMENT,
    throughput.MEASUREMENT,
    slot_gap.MEASUREMENT,
    cold_start.MEASUREMENT,
    workers.MEASUREMENT,
    idle.MEASUREMENT,
)
VERSUS = "versus"
DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"


def main() -> None:
    names = [VERSUS, *(measurement.name for measurement in MEASUREMENTS)]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="measure these alone")
    parser.add_argument("--output", type=Path, help="default: docs/benchmarks.md, for a full run of everything")
    options = parser.parse_args()
    plan = Plan(max(1, int(os.environ.get("ITERATIONS", FULL_ROUNDS))))
    folder = Path(tempfile.mkdtemp(prefix="hecaton-bench-"))
    folder.chmod(0o711)  # see versus: a service with a user of its own must get through
    try:
        text = _measure(plan, options.only, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        subject.remove_image()
    sys.stdout.write(text)
    output = options.output or (DOCUMENT if plan.full and options.only == names else None)
    if output:
        output.write_text(text)


def _measure(plan: Plan, chosen: list[str], folder: Path) -> str:
    place = report.Place(fsync_ms(folder), busy_elsewhere())
    contest = Contest(plan, folder)
    measurements = [measurement for measurement in MEASUREMENTS if measurement.name in chosen]
    found: dict[tuple[str, str], list[float]] = {}
    for number in range(plan.rounds):
        plan.say(f"round {number + 1} of {plan.rounds}")
        if VERSUS in chosen:
            contest.round(number)
        for measurement in measurements:
            for key, value in _once(plan, measurement, folder).items():
                found.setdefault((measurement.name, key), []).append(value)
    values = [
        report.Values(row, found.get((measurement.name, key), ()))
        for measurement in measurements
        for key, row in measurement.rows.items()
    ]
    return report.write(plan, place, contest.standings() if VERSUS in chosen else (), values, "")


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
