"""Instructions that one Python process executes meanwhile, counted by valgrind's callgrind.

The count is the same on a slow and on a busy machine, where the clock and CPU times differ by a fifth. Only what stands
between `Counted.during`'s two ends is counted; before and after it, the process runs at a tenth of its speed, and
meanwhile at a fiftieth."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

from benchmarks.services import find

SECONDS = 120.0


class Counted:
    """A process that is started with `command` in front of Python's own command line.

    `folder`: for what callgrind writes; one process at a time."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._written = folder / "counts"
        self._pipe = folder / "pipe"
        self.command = (
            find("valgrind", "valgrind"),
            "--quiet",
            "--tool=callgrind",
            "--instr-atstart=no",
            f"--callgrind-out-file={self._written}",
            f"--vgdb-prefix={self._pipe}",
        )

    def during(self, pid: int, work: Callable[[], object]) -> int:
        """What the process of `pid` executes while `work` runs here."""
        self._tell(pid, "instrumentation", "on")
        self._tell(pid, "zero")
        work()
        self._tell(pid, "dump")
        self._tell(pid, "instrumentation", "off")
        number = max(int(path.suffix[1:]) for path in self._written.parent.glob("counts.*"))
        said = self._written.with_suffix(f".{number}").read_text(errors="replace")
        found = re.search(r"^summary: (\d+)", said, re.MULTILINE)
        if found is None:
            raise RuntimeError(f"callgrind wrote no sum:\n{said[-500:]}")
        return int(found[1])

    def _tell(self, pid: int, *words: str) -> None:
        """Raises CalledProcessError when the process is not there, TimeoutExpired when it does not listen."""
        command = [find("vgdb", "valgrind"), f"--pid={pid}", f"--vgdb-prefix={self._pipe}", *words]
        subprocess.run(command, capture_output=True, timeout=SECONDS, check=True)
