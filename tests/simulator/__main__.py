"""`python -m tests.simulator --worlds 30` runs fresh seeds, `--seed N` one of them again with its whole trace."""

from __future__ import annotations

import argparse
import secrets
import sys
import time
from collections import Counter

from hecaton.server.accounts.auth import Passwords
from tests.simulator.oracle import Broken
from tests.simulator.plan import make_plan
from tests.simulator.world import Report, run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulator", description=__doc__)
    parser.add_argument("--worlds", type=int, default=30, metavar="N", help="run that many fresh seeds")
    parser.add_argument("--seed", type=int, help="run this one, and print its plan and result")
    parser.add_argument("--first", type=int, default=None, help="count up from this seed instead of drawing them")
    parser.add_argument("--seeds", type=int, nargs="+", metavar="N", help="run these, however long it takes")
    options = parser.parse_args()
    passwords = Passwords()
    try:
        if options.seed is not None:
            plan = make_plan(options.seed)
            print(f"{plan.profile}: {plan.workers} workers, {len(plan.jobs)} jobs, faults {plan.faults}")
            print(run(options.seed, passwords))
        else:
            begun = time.monotonic()
            if options.seeds:
                reports = [run(seed, passwords) for seed in options.seeds]
            else:
                reports = run_some(options.worlds, passwords, options.first)
            print(summary(reports, time.monotonic() - begun))
    except Broken as broken:
        print(broken)
        return 1
    finally:
        passwords.close()
    return 0


def run_some(worlds: int, passwords: Passwords, first: int | None = None) -> list[Report]:
    """That many seeds, counted up from `first` or from one drawn. Raises Broken."""
    begin = first if first is not None else secrets.randbelow(2**40)
    reports = []
    for seed in range(begin, begin + worlds):
        try:
            reports.append(run(seed, passwords))
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise
    return reports


def summary(reports: list[Report], seconds: float) -> str:
    hours = sum(report.worker_seconds for report in reports) / 3600
    profiles = ", ".join(f"{count} {name}" for name, count in sorted(Counter(r.profile for r in reports).items()))
    return (
        f"{len(reports)} worlds ({profiles}), {hours:,.0f} worker-hours ({hours / seconds * 60:,.0f} a minute), "
        f"{sum(r.jobs for r in reports):,} jobs, {sum(r.executions for r in reports):,} executions, "
        f"{sum(r.faults for r in reports):,} faults: every rule held"
    )


if __name__ == "__main__":
    sys.exit(main())
