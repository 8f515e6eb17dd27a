"""Files that a handler leaves in the folder of outputs are its job's: they are put aside before the next job begins.
What it returns may name files: these are kept there, too."""

from __future__ import annotations

import os
import sys
import time

from hecaton.serverless.protocol import ASIDE_NAME, OUTPUTS_VARIABLE
from hecaton.serverless.values import NotJson

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

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
        path = self._path
        if path is None:
            return False
        try:
            if os.stat(path).st_mtime_ns == self._settled:
                return False
        except OSError:
            return False
        try:
            return self._move(path, f"{job}.{attempt}")
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


def with_files(value: Any) -> Any:
    """The value with the name of a kept file in place of each `pathlib.Path` in it. A file, or a folder, that is not in
    the folder of outputs is copied there. None: there is no path in it, or no such folder.

    Raises NotJson for a path that cannot be kept, OSError where the disk is full."""
    # A Path can only be returned by who has imported pathlib: do not import it to look.
    pathlib, outputs = sys.modules.get("pathlib"), os.environ.get(OUTPUTS_VARIABLE)
    if pathlib is None or outputs is None:
        return None
    found = []

    def named(one: Any) -> Any:
        if isinstance(one, pathlib.Path):
            found.append(one)
            return _keep(os.path.abspath(one), os.path.abspath(outputs))
        if isinstance(one, dict):
            return {key: named(inner) for key, inner in one.items()}
        if isinstance(one, (list, tuple)):
            return [named(inner) for inner in one]
        return one

    try:
        replaced = named(value)
    except RecursionError:
        return None
    return replaced if found else None


def _keep(path: str, outputs: str) -> str:
    """Its name in the folder of outputs."""
    if not os.path.exists(path):
        raise NotJson(f"the handler returned the path {path}, which is not there")
    if path == outputs or path.startswith(outputs + os.sep):
        return os.path.relpath(path, outputs)
    import shutil

    base, extension = os.path.splitext(os.path.basename(path))
    name, number = base + extension, 1
    while not base or os.path.lexists(os.path.join(outputs, name)):
        number += 1
        name, base = "{}-{}{}".format(base or "file", number, extension), base or "file"
    target = os.path.join(outputs, name)
    if os.path.isdir(path):
        shutil.copytree(path, target, symlinks=True)
    elif os.path.isfile(path):
        shutil.copyfile(path, target)
        shutil.copymode(path, target)
    else:
        raise NotJson(f"the handler returned the path {path}, which is neither a file nor a folder")
    return name
