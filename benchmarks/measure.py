"""Numbers about processes and this machine, read from /proc. Standard library only: the rivals' programs use it too."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

KIB = 1024
MIB = 1024 * 1024


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` (0 to 1) of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def median(values: Iterable[float]) -> float:
    return statistics.median(values)


def descendants(roots: Iterable[int]) -> set[int]:
    """The processes and all their children's children, as they are now."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (fields := _stat(int(entry))) is not None:
            children.setdefault(int(fields[1]), []).append(int(entry))
    found: set[int] = set()
    pending = list(roots)
    while pending:
        pid = pending.pop()
        if pid not in found:
            found.add(pid)
            pending.extend(children.get(pid, ()))
    return found


def memory(pids: Iterable[int]) -> int:
    """Bytes that the processes take together: PSS, so that pages they share count once."""
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue
        total += sum(int(line.split()[1]) * KIB for line in lines if line.startswith("Pss:"))
    return total


def cpu_seconds(pids: Iterable[int]) -> float:
    """CPU time that the living threads of the processes have used, to the nanosecond (not in ticks of 10 ms)."""
    total = 0
    for pid in pids:
        try:
            for thread in os.listdir(f"/proc/{pid}/task"):
                total += int(Path(f"/proc/{pid}/task/{thread}/schedstat").read_text().split()[0])
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total / 1e9


def peak_memory(pid: int) -> int:
    """Bytes of the most that the process has had resident since `forget_peak`."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * KIB
    return 0


def forget_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def busy_elsewhere(seconds: float = 1.0) -> float:
    """Cores that this machine burns while the benchmark does nothing: above 0.1 the numbers are disturbed."""
    before = _machine_busy()
    time.sleep(seconds)
    return (_machine_busy() - before) / os.sysconf("SC_CLK_TCK") / seconds


def loop_ms(samples: int = 40) -> tuple[float, float]:
    """The least and the most milliseconds that one and the same loop takes: how evenly this machine runs."""
    took = []
    for _ in range(samples):
        start = time.perf_counter()
        for _ in range(1_000_000):
            pass
        took.append((time.perf_counter() - start) * 1e3)
    return min(took), max(took)


def machine() -> str:
    """One line: processor, cores, memory, kernel, Python."""
    model = platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3
    cores = len(os.sched_getaffinity(0))
    return f"{cores} x {model}, {gib:.0f} GiB, Linux {platform.release()}, Python {platform.python_version()}"


def fsync_ms(folder: Path, samples: int = 200) -> float:
    """Median milliseconds of a 4 KiB append and fdatasync in the folder: what a durable write costs here at least."""
    took = []
    path = folder / "fsync"
    with path.open("wb", buffering=0) as file:
        for _ in range(samples):
            start = time.perf_counter()
            file.write(b"\0" * 4096)
            os.fdatasync(file.fileno())
            took.append((time.perf_counter() - start) * 1e3)
    path.unlink()
    return median(took)


def _machine_busy() -> int:
    user, nice, system, _idle, _iowait, irq, softirq, *_ = map(int, Path("/proc/stat").read_text().split()[1:9])
    return user + nice + system + irq + softirq


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat after the command's name; None if the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
