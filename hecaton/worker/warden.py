"""The warden of a worker: a second, tiny process in a session of its own, which ends the containers of no-overlap jobs
when their lease has run out, also while the worker's own process is dead or stopped. It asks no engine.

`python -m hecaton.worker.warden FOLDER`, with a pipe from its worker as stdin: it says a byte when it watches, and goes
when the pipe has ended and nothing is left to end. What it has to end stands in `FOLDER/watched`, a file for each
container, written before the job begins; until when it may run stands in `FOLDER/lease`. So nothing passes between the
two that could be lost, and a warden that was killed is replaced by one that knows the same.

Times are of CLOCK_BOOTTIME, which goes on while the machine is suspended. Not promised: a virtual machine that is
paused from outside, and both processes killed at once. Of the standard library only, and little of it.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

TICK = 0.25
"""Seconds between two looks at the clock: that long a job goes on after a suspended machine has woken up."""

WATCHED = "watched"
LEASE = "lease"
ENDED = ".ended"
"""Suffix of the file of a container that the warden has begun to end."""

READY = b"\n"

_ROUNDS = 20
_ROUND_SECONDS = 0.01


class LeaseFile:
    """`FOLDER/lease`: boot, until when no-overlap jobs may run, when what still runs of them is killed."""

    def __init__(self, path: str) -> None:
        self.until = self.kill_at = 0.0
        self._path = path

    def read(self) -> None:
        """One that is being written is read at the next look."""
        try:
            with open(self._path, encoding="utf-8") as file:
                _, self.until, self.kill_at = json.load(file)
        except (OSError, ValueError, TypeError):
            pass


def is_of(pid: str, file: str, mark: bytes) -> bool:
    """Whether a process has the mark of a container: `file` is the one in /proc/PID to look at. One that is no more, or
    may not be looked at, has none."""
    try:
        with open(f"/proc/{pid}/{file}", "rb") as seen:
            return mark in seen.read()
    except OSError:
        return False


def processes_of(file: str, mark: bytes) -> Iterator[str]:
    """Ids of all processes that have it. What processes see of the file system is looked at once for all that share
    it."""
    known: dict[str, bool] = {}
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        shared = ""
        if file == "mountinfo":
            try:
                shared = os.readlink(f"/proc/{pid}/ns/mnt")
            except OSError:
                continue
        if shared not in known or not shared:
            known[shared] = is_of(pid, file, mark)
        if known[shared]:
            yield pid


def kill(file: str, mark: bytes) -> None:
    """All processes with the mark, and those that they start meanwhile."""
    for _ in range(_ROUNDS):
        found = list(processes_of(file, mark))
        if not found:
            return
        for pid in found:
            try:
                pidfd = os.pidfd_open(int(pid))
            except OSError:
                continue
            try:
                if is_of(pid, file, mark):  # by now the number may be another's
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            except OSError as error:
                print(f"the warden cannot end process {pid}: {error}", file=sys.stderr, flush=True)
            finally:
                os.close(pidfd)
        time.sleep(_ROUND_SECONDS)


def end_watched(folder: str) -> bool:
    """End what may run no longer, but for what has ended its job: that only waits to say so. Whether anything is left
    for a later look."""
    left = False
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        try:
            with open(path, encoding="utf-8") as file:
                about = json.load(file)
        except (OSError, ValueError):
            continue
        file_name, mark = about["file"], about["mark"].encode()
        if os.path.lexists(about["answered"]) or next(processes_of(file_name, mark), None) is None:
            continue
        if not name.endswith(ENDED):
            try:
                os.rename(path, path + ENDED)  # first: whoever sees the end of the container finds the reason
            except FileNotFoundError:
                continue  # its worker has seen to it
        kill(file_name, mark)
        left = True
    return left


def main(folder: str) -> None:
    watched, lease = os.path.join(folder, WATCHED), LeaseFile(os.path.join(folder, LEASE))
    poll = select.poll()
    poll.register(sys.stdin.fileno(), select.POLLIN)
    with contextlib.suppress(BrokenPipeError):  # its worker has ended already
        os.write(sys.stdout.fileno(), READY)
    orphaned_at: float | None = None  # the lease as it was when the worker's process ended
    while True:
        if orphaned_at is None and poll.poll(TICK * 1000):
            lease.read()
            orphaned_at = lease.until
        elif orphaned_at is not None:
            time.sleep(TICK)
        lease.read()
        left = bool(os.listdir(watched))
        if time.clock_gettime(time.CLOCK_BOOTTIME) >= lease.kill_at:
            left = end_watched(watched)
        if orphaned_at is not None and (not left or lease.until > orphaned_at):
            return  # a next process of the worker has a warden of its own


if __name__ == "__main__":
    main(sys.argv[1])
