"""Whom the kernel has killed for memory, as it says in its own log. It names the container and whose limit was reached;
the engine tells neither, and of the machine's memory nothing at all."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable
from pathlib import Path

from hecaton.worker.runtimes.port import Shortage

KERNEL_LOG = Path("/dev/kmsg")

LONGEST_LINE = 8 * 1024
"""Bytes: the kernel gives no line that is longer, and refuses a reader with less room."""

_KILL = re.compile(r"oom-kill:constraint=(\w+),.*?(?:oom_memcg=([^,]*),)?task_memcg=([^,]*),task=(.*),pid=(\d+),uid=")
_OLD_KILL = "emory: Kill process "
_HEAD = re.compile(r"\d+,\d+,(\d+),")
_SIZE = re.compile(r"Killed process (\d+) .*?anon-rss:(\d+)kB, file-rss:(\d+)kB, shmem-rss:(\d+)kB")


def last_kill(lines: Iterable[str], container: str, since: float = 0.0) -> Shortage | None:
    """Of the container with this id of the engine; None: nothing of it was killed for memory. `since`: monotonic
    seconds before which it was another job's."""
    found: Shortage | None = None
    victim = ""
    for line in lines:
        if (kill := _KILL.search(line)) and container in kill[3] and _at(line) >= since:
            machine = container not in (kill[2] or "")
            found, victim = Shortage(machine=machine, process=kill[4]), kill[5]
        elif found is not None and (size := _SIZE.search(line)) and size[1] == victim:
            used = sum(int(part) for part in size.groups()[1:]) << 10
            found = Shortage(machine=found.machine, process=found.process, size=used)
    return found


def _at(line: str) -> float:
    head = _HEAD.match(line)
    return int(head[1]) / 1e6 if head else math.inf


def tells_of_containers(lines: Iterable[str]) -> bool:
    """Kernels before Linux 5 say whom they have killed, and not of which container."""
    return not any(_OLD_KILL in line for line in lines)


def kernel_lines(log: Path = KERNEL_LOG) -> list[str] | None:
    """What the kernel still has in memory, the oldest first; None: this process may not read it. Does not wait."""
    try:
        fd = os.open(log, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    lines = []
    try:
        while record := os.read(fd, LONGEST_LINE):
            lines.append(record.decode("utf-8", "replace"))
    except BlockingIOError:
        pass  # that was the newest
    except BrokenPipeError:
        return None  # it writes faster than this reads
    except OSError:
        return None
    finally:
        os.close(fd)
    return [line for text in lines for line in text.splitlines()]
