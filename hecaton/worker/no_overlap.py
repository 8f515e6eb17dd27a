"""No-overlap jobs (`--no-overlap`) on this machine: until when they may run, since soon after the server may give them
to another worker; and the `warden` that ends them then, whatever becomes of this process.

Counted from words of this worker that the server has answered, by a clock that goes on while the machine is suspended.
On the loop; what is written is not synced: the kernel shows it to the warden and to the worker's next process.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Collection
from pathlib import Path

import msgspec
import structlog

from hecaton.worker import warden
from hecaton.worker.runtimes.port import ProcMark

SHARE = 0.75
"""Part of `lost_after` that a no-overlap job may run unheard of. The rest is for its end: at most half of that passes
between SIGTERM and SIGKILL."""

KILL_SHARE = (1 + SHARE) / 2
"""Part of `lost_after` after which the warden ends what still runs."""

RETRY_SECONDS = 1.0
"""Until a warden that ended, or could not be started, is started again."""

_log = structlog.get_logger("hecaton.worker.no_overlap")


def clock() -> float:
    """Seconds since the start of the machine, those in which it was suspended included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class _Kept(msgspec.Struct, array_like=True):
    """`kill_at`: the release before had none, and counted by a clock that stands still in suspended machines."""

    boot: str
    until: float
    kill_at: float = 0.0


class NoOverlapLease:
    """`until`: by `clock`; 0 where nothing is known, such as after a reboot. `grace`: seconds between SIGTERM and
    SIGKILL after that. It never says more than the server grants. Raises OSError."""

    def __init__(self, folder: Path, boot: str) -> None:
        self.until = self.grace = 0.0
        self._boot = boot
        self._fd = os.open(folder / warden.LEASE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with contextlib.suppress(msgspec.DecodeError):
            kept = msgspec.json.decode(os.pread(self._fd, 200, 0), type=_Kept)
            if boot and kept.boot == boot:
                self.until = kept.until
                return
        self._write(0.0)

    def left(self) -> float:
        """Seconds; less than 0: it has run out."""
        return self.until - clock()

    def renew(self, at: float, lost_after: float) -> None:
        """The server heard this worker not before `at`. On a full disk the others know of an earlier time."""
        self.until = at + SHARE * lost_after
        self.grace = (KILL_SHARE - SHARE) * lost_after
        self._write(at + KILL_SHARE * lost_after)

    def _write(self, kill_at: float) -> None:
        with contextlib.suppress(OSError):
            os.pwrite(self._fd, msgspec.json.encode(_Kept(self._boot, self.until, kill_at)).ljust(120), 0)

    def close(self) -> None:
        os.close(self._fd)


class Guard:
    """This process's end of the warden: starts it, again if it ends, and writes down what it has to end.

    `guarded` hears whether there is one that watches."""

    def __init__(self, folder: Path, lease: NoOverlapLease, guarded: Callable[[bool], None]) -> None:
        """Raises OSError."""
        self._folder = folder
        self._lease = lease
        self._guarded = guarded
        self._watched = folder / warden.WATCHED
        self._watched.mkdir(mode=0o700, exist_ok=True)
        self._names = {name.removesuffix(warden.ENDED) for name in os.listdir(self._watched)}
        self._loop = asyncio.get_running_loop()
        self._process: subprocess.Popen[bytes] | None = None
        self._retry: asyncio.TimerHandle | None = None

    def start(self) -> None:
        command = (sys.executable, "-P", "-m", warden.__name__, str(self._folder))
        try:
            self._process = subprocess.Popen(  # a session of its own: what stops this process's does not stop it
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
            )
        except OSError as error:
            _log.error("Cannot start the warden: no-overlap jobs wait", error=str(error))
            self._retry = self._loop.call_later(RETRY_SECONDS, self.start)
            return
        assert self._process.stdout is not None
        self._loop.add_reader(self._process.stdout, self._hear, self._process)

    def _hear(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        if os.read(process.stdout.fileno(), 1):
            self._guarded(True)
            return
        _log.error("The warden has ended: starting it again", code=process.poll())
        self._let_go(process)
        process.wait()
        self._guarded(False)
        self._retry = self._loop.call_later(RETRY_SECONDS, self.start)

    def _let_go(self, process: subprocess.Popen[bytes]) -> None:
        """Its pipe ends: it goes as soon as nothing is left to watch."""
        self._process = None
        assert process.stdin is not None
        assert process.stdout is not None
        self._loop.remove_reader(process.stdout)
        process.stdin.close()
        process.stdout.close()

    def watch(self, container: str, mark: ProcMark, answered: Path) -> bool:
        """Before its job begins. `answered`: is there when the job has ended and only its answer is still to be heard.
        False: it may not begin, since its time is over. Raises OSError: it is not watched, and must not begin."""
        if self._lease.left() <= 0:
            return False
        made = self._folder / f"{warden.WATCHED}.new"
        made.write_bytes(msgspec.json.encode({"file": mark.file, "mark": mark.text, "answered": str(answered)}))
        os.rename(made, self._watched / container)
        self._names.add(container)
        return True

    def release(self, container: str) -> None:
        """It has no such job any more. Cheap for what is not watched."""
        # hot: benchmarks/throughput.py
        if container in self._names:
            self._forget(container)

    def has_ended(self, container: str) -> bool:
        """Whether the warden has, because its time was over."""
        return (self._watched / f"{container}{warden.ENDED}").exists()

    def forget_all_but(self, containers: Collection[str]) -> None:
        """What else an earlier process had written down is no more."""
        for name in self._names - set(containers):
            self._forget(name)

    def _forget(self, container: str) -> None:
        self._names.discard(container)
        for name in (container, container + warden.ENDED):
            (self._watched / name).unlink(missing_ok=True)

    async def close(self) -> None:
        """A warden that still has to watch what this process leaves to the next one stays."""
        if self._retry is not None:
            self._retry.cancel()
        process = self._process
        if process is not None:
            self._let_go(process)
            if not self._names:
                await asyncio.to_thread(process.wait)
