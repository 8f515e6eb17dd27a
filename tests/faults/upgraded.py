"""In front of the command line of a worker: it starts as the release after today's (`tests.worker.releases`)."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.worker import releases

REPOSITORY = Path(__file__).resolve().parents[2]
COMMAND = (
    sys.executable,
    "-c",
    f"import sys; sys.path.insert(0, {str(REPOSITORY)!r}); from tests.faults.upgraded import main; main()",
)


def main() -> None:
    """sys.argv: "-c", then the interpreter, "-c", its code and its arguments."""
    _, _, _, code, *arguments = sys.argv
    releases.become("after")
    sys.argv = ["-c", *arguments]
    exec(code, {"__name__": "__main__"})
