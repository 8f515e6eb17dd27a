"""`make mutants`: put each fault into a copy of Hecaton and see whether the suite notices. Exit code 1 if one
survives."""

from __future__ import annotations

import argparse
import os
import random
import secrets
import sys
import time
from collections.abc import Sequence

from tests.mutants.catalogue import MUTANTS
from tests.mutants.laboratory import Verdict, examine
from tests.mutants.mutant import Mutant


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these")
    parser.add_argument("--some", type=int, metavar="N", help="only N of them, drawn by the seed")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**40))
    parser.add_argument("--lanes", type=int, default=os.cpu_count() or 1, help="how many at once")
    options = parser.parse_args()
    unknown = set(options.names) - {mutant.name for mutant in MUTANTS}
    if unknown:
        parser.error(f"no such mutant: {', '.join(sorted(unknown))}")
    chosen: Sequence[Mutant] = [mutant for mutant in MUTANTS if not options.names or mutant.name in options.names]
    if options.some:
        print(f"seed {options.seed}")
        chosen = draw(chosen, options.some, options.seed)
    begun = time.monotonic()
    verdicts = examine(chosen, options.lanes, lambda verdict: print(line(verdict), flush=True))
    survivors = [verdict for verdict in verdicts if verdict.caught_by is None]
    print(f"{len(verdicts)} mutants, {len(verdicts) - len(survivors)} caught, {time.monotonic() - begun:.0f} s")
    for survivor in survivors:
        print(f"\nSURVIVED: {survivor.mutant.name}: {survivor.mutant.breaks}\n{survivor.output[-2000:]}")
    return 1 if survivors else 0


def draw(mutants: Sequence[Mutant], count: int, seed: int) -> list[Mutant]:
    return random.Random(seed).sample(list(mutants), min(count, len(mutants)))


def line(verdict: Verdict) -> str:
    mutant = verdict.mutant
    by = "SURVIVED" if verdict.caught_by is None else verdict.caught_by.removeprefix("tests/")
    return f"{verdict.seconds:5.1f} s  {mutant.name:<32} {mutant.breaks:<78} {by}"


if __name__ == "__main__":
    sys.exit(main())
