"""Files that a handler leaves in the folder of outputs are its job's: they are put aside before the next job begins."""

from __future__ import annotations

import os
import time

from hecaton.serverless.protocol import ASIDE_NAME, OUTPUTS_VARIABLE

#: Seconds in which a change of a folder may not show in its time: that of file systems moves in such steps.
_COARSE = 0.05


class Outputs:
    """The folder of outputs, looked at when a job has ended. A job that leaves nothing costs one look at its time."""

    def __init__(self) -> None:
        self._path: str | None = os.environ.get(OUTPUTS_VARIABLE)
        self._settled: int | None = self._time()

    def put_aside(self, job: str, attempt: int) -> bool:
        """Whether the job has left something, which is in a folder of its own now. Never raises: what cannot be moved
        stays where it is."""
        # hot: benchmarks/instructions.py
        if self._path is None:
            return False
        changed = self._time()
        if changed is None or changed == self._settled:
            return False
        try:
            return self._move(self._path, f"{job}.{attempt}")
        except OSError:
            return False
        finally:
            self._settle()

    def _move(self, path: str, name: str) -> bool:
        names = [one for one in os.listdir(path) if one != ASIDE_NAME]
        if not names:
            return False
        target = os.path.join(path, ASIDE_NAME, name)
        os.makedirs(target, exist_ok=True)
        for one in names:
            os.rename(os.path.join(path, one), os.path.join(target, one))
        return True

    def _settle(self) -> None:
        """A change that comes too soon after this one would have the same time: then the next job looks into it."""
        changed = self._time()
        recent = changed is not None and time.time() - changed / 1e9 < _COARSE
        self._settled = None if recent else changed

    def _time(self) -> int | None:
        if self._path is None:
            return None
        try:
            return os.stat(self._path).st_mtime_ns
        except OSError:
            return None
