"""What is meant by a SIGTERM: stop, or leave what runs to the next process of this worker, or be gone with the machine.

Systemd sends the same signal for all three, and knows which it is.
"""

from __future__ import annotations

import enum
import shutil
import subprocess
from pathlib import Path

import msgspec

BOOTED = Path("/run/systemd/system")
"""Is there where systemd runs the machine."""

ASK_SECONDS = 5.0
"""A systemd that has not answered by then is not asked any further."""

_RESTARTS = ("restart", "try-restart", "reload-or-start")


class Meant(enum.Enum):
    STOP = enum.auto()
    LEAVE = enum.auto()
    POWER_OFF = enum.auto()


class Unit(msgspec.Struct, frozen=True):
    """A service of systemd. `of_user`: of a user's own manager."""

    name: str
    of_user: bool


def unit_of(cgroup: str) -> Unit | None:
    """Of the process whose /proc/PID/cgroup this is; None: it runs in a terminal, or in a container."""
    for line in cgroup.splitlines():
        _, controllers, path = line.split(":", 2)
        name = path.rpartition("/")[2]
        if controllers in ("", "name=systemd") and name.endswith(".service"):
            return Unit(name, of_user="/user@" in path)
    return None


def is_restarted(unit: str, jobs: str) -> bool:
    """`jobs`: what `systemctl list-jobs` says: number, unit, type and state on each line."""
    return any(line.split()[1:2] == [unit] and line.split()[2] in _RESTARTS for line in jobs.splitlines())


def meant_by_sigterm() -> Meant:
    """Where systemd cannot be asked, or knows of nothing, it is a person who wants this process to end. Blocks while it
    asks."""
    if not BOOTED.is_dir() or shutil.which("systemctl") is None:
        return Meant.STOP
    if _systemctl("is-system-running").strip() == "stopping":
        return Meant.POWER_OFF
    unit = unit_of(Path("/proc/self/cgroup").read_text())
    if unit is None:
        return Meant.STOP
    manager = ("--user",) if unit.of_user else ()
    jobs = _systemctl(*manager, "list-jobs", "--no-legend", "--plain", "--full")
    return Meant.LEAVE if is_restarted(unit.name, jobs) else Meant.STOP


def _systemctl(*arguments: str) -> str:
    """What it prints; nothing if it does not answer in time."""
    try:
        asked = subprocess.run(
            ("systemctl", *arguments), stdin=subprocess.DEVNULL, capture_output=True, timeout=ASK_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return asked.stdout.decode("utf-8", "replace")


__all__ = ["Meant", "Unit", "is_restarted", "meant_by_sigterm", "unit_of"]
