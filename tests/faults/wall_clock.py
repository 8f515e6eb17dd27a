"""The wall clock of single processes, to be moved while they run; the machine's own stays as it is."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

from tests.engine import needs

SOURCE = Path(__file__).with_suffix(".c")


def build(folder: Path) -> Path:
    """The library that processes preload. Raises EngineError where no C compiler is to be had."""
    needs.require("cc")
    library = folder / "wall_clock.so"
    command = ["cc", "-shared", "-fPIC", "-nostdlib", "-fno-builtin", "-Wall", "-o", str(library), str(SOURCE)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return library


class WallClock:
    """Processes that start with its `environment` have this clock, and so have their children."""

    def __init__(self, library: Path, file: Path) -> None:
        self._file = file
        self.environment = {"LD_PRELOAD": str(library), "WALL_CLOCK": str(file)}
        file.write_bytes(struct.pack("q", 0))

    def shift(self, seconds: int) -> None:
        """From the machine's time, at once, in every process that has this clock."""
        with self._file.open("r+b") as file:
            file.write(struct.pack("q", seconds))
