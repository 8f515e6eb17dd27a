"""Until when no-overlap jobs may run, as warden and next process read it from the disk; and the warden itself, with
real processes that it ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from hecaton.worker import no_overlap, warden
from hecaton.worker.no_overlap import Guard, NoOverlapLease, clock
from hecaton.worker.runtimes.port import ProcMark

PATIENCE = 30.0


def kept(folder: Path) -> list[object]:
    value: list[object] = json.loads((folder / warden.LEASE).read_text())
    return value


class TestLease:
    def test_the_next_process_knows_until_when_the_earlier_one_was_assured(self, tmp_path: Path) -> None:
        lease = NoOverlapLease(tmp_path, "monday")
        lease.renew(1000.0, lost_after=60.0)
        lease.renew(1002.5, lost_after=60.0)
        assert NoOverlapLease(tmp_path, "monday").until == lease.until == 1047.5
        assert lease.grace == 7.5
        assert kept(tmp_path) == ["monday", 1047.5, 1055.0]

    def test_after_a_reboot_it_means_nothing_to_anybody(self, tmp_path: Path) -> None:
        NoOverlapLease(tmp_path, "monday").renew(1000.0, lost_after=60.0)
        assert NoOverlapLease(tmp_path, "tuesday").until == 0.0
        assert kept(tmp_path) == ["tuesday", 0.0, 0.0]

    def test_that_of_the_release_before_is_read(self, tmp_path: Path) -> None:
        (tmp_path / warden.LEASE).write_text('["monday",1047.5]'.ljust(100))
        assert NoOverlapLease(tmp_path, "monday").until == 1047.5


class Watch:
    """A worker's end of a warden, and processes with the mark of a container."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lease = NoOverlapLease(folder, "boot")
        self.said: asyncio.Queue[bool] = asyncio.Queue()
        self.guard = Guard(folder, self.lease, self.said.put_nowait)
        self.answered = folder / "answered"
        self._processes: list[subprocess.Popen[bytes]] = []

    async def begins(self) -> None:
        self.guard.start()
        async with asyncio.timeout(PATIENCE):
            assert await self.said.get() is True

    def process(self, container: str, code: str = "import time; time.sleep(600)") -> subprocess.Popen[bytes]:
        environment = {**os.environ, "MARK": f"<{container}>"}
        command = [sys.executable, "-c", code]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, start_new_session=True)
        self._processes.append(process)
        return process

    def watch(self, container: str) -> bool:
        return self.guard.watch(container, ProcMark("environ", f"<{container}>"), self.answered)

    def assure(self, seconds: float) -> None:
        """Of them three quarters are for the job."""
        self.lease.renew(clock(), seconds)

    def warden_after(self, seconds: int) -> subprocess.Popen[bytes]:
        command = ("unshare", "--time", "--boottime", str(seconds), sys.executable, "-P", "-m", warden.__name__)
        return subprocess.Popen((*command, str(self.folder)), stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def end(self) -> None:
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with what it has started, which would hold its output open
            process.communicate()


@pytest.fixture
async def watch(tmp_path: Path) -> AsyncIterator[Watch]:
    watch = Watch(tmp_path)
    yield watch
    watch.guard.forget_all_but(())
    await watch.guard.close()
    watch.end()


async def ended(process: subprocess.Popen[bytes]) -> int:
    async with asyncio.timeout(PATIENCE):
        return await asyncio.to_thread(process.wait)


def warden_of(guard: Guard) -> subprocess.Popen[bytes]:
    assert guard._process is not None
    return guard._process


class TestWarden:
    async def test_ends_what_it_watches_when_the_time_is_over_and_nothing_else(self, watch: Watch) -> None:
        await watch.begins()
        watch.assure(1.0)
        mine, other = watch.process("a"), watch.process("b")
        assert watch.watch("a")
        assert await ended(mine) == -signal.SIGKILL
        assert clock() >= watch.lease.until + watch.lease.grace
        assert watch.guard.has_ended("a")
        assert not watch.guard.has_ended("b")
        assert other.poll() is None

    async def test_a_lease_that_is_renewed_ends_nothing(self, watch: Watch) -> None:
        await watch.begins()
        watch.assure(0.5)
        job = watch.process("a")
        watch.watch("a")
        watch.assure(600.0)
        await asyncio.sleep(0)
        first = watch.process("b")
        watch.guard.watch("b", ProcMark("environ", "<b>"), watch.answered)
        watch.guard.release("a")
        watch.lease.renew(clock() - 600.0, 600.0)  # and only what is still watched ends when it has run out
        assert await ended(first) == -signal.SIGKILL
        assert job.poll() is None

    async def test_processes_that_are_started_meanwhile_end_too(self, watch: Watch) -> None:
        await watch.begins()
        watch.assure(600.0)
        # One write each: two that print at once are mixed where Python's output has no buffer.
        parent = watch.process("a", "import os, time\nos.fork()\nos.write(1, b'%d\\n' % os.getpid())\ntime.sleep(600)")
        assert parent.stdout is not None
        pids = [int(parent.stdout.readline()) for _ in range(2)]
        watch.watch("a")
        watch.lease.renew(clock() - 600.0, 600.0)
        await ended(parent)
        await until(lambda: not any(is_alive(pid) for pid in pids))

    async def test_what_has_only_to_say_its_answer_is_spared(self, watch: Watch) -> None:
        await watch.begins()
        watch.assure(600.0)
        done, other = watch.process("a"), watch.process("b")
        watch.watch("a")
        watch.guard.watch("b", ProcMark("environ", "<b>"), watch.folder / "nothing")
        watch.answered.touch()
        watch.lease.renew(clock() - 600.0, 600.0)
        await ended(other)
        assert done.poll() is None
        assert not watch.guard.has_ended("a")

    async def test_a_suspended_machine_has_not_stopped_the_clock(self, watch: Watch) -> None:
        """A warden for which an hour has gone by on that clock alone."""
        watch.assure(600.0)
        job = watch.process("a")
        watch.watch("a")
        awake = watch.warden_after(3600)
        assert await ended(job) == -signal.SIGKILL
        awake.communicate()

    async def test_nothing_begins_when_the_time_is_over(self, watch: Watch) -> None:
        await watch.begins()
        assert not watch.watch("a")
        assert os.listdir(watch.folder / warden.WATCHED) == []

    async def test_one_that_ends_is_said_and_replaced(self, watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(no_overlap, "RETRY_SECONDS", 0.0)
        await watch.begins()
        watch.assure(600.0)
        job = watch.process("a")
        watch.watch("a")
        warden_of(watch.guard).kill()
        async with asyncio.timeout(PATIENCE):
            assert [await watch.said.get(), await watch.said.get()] == [False, True]
        watch.lease.renew(clock() - 600.0, 600.0)  # the new one knows what there is to end
        assert await ended(job) == -signal.SIGKILL

    async def test_it_is_in_a_session_of_its_own(self, watch: Watch) -> None:
        await watch.begins()
        pid = warden_of(watch.guard).pid
        assert os.getsid(pid) == pid

    async def test_it_goes_with_its_worker_when_nothing_is_left_to_watch(self, watch: Watch) -> None:
        await watch.begins()
        process = warden_of(watch.guard)
        await watch.guard.close()
        assert await ended(process) == 0

    async def test_it_stays_while_there_is_and_ends_it_though_nobody_renews(self, watch: Watch) -> None:
        await watch.begins()
        watch.assure(2.0)
        job = watch.process("a")
        watch.watch("a")
        process = warden_of(watch.guard)
        await watch.guard.close()
        assert await ended(job) == -signal.SIGKILL
        assert await ended(process) == 0

    async def test_it_leaves_the_field_to_that_of_the_next_process(self, watch: Watch) -> None:
        await watch.begins()
        watch.assure(600.0)
        watch.watch("a")
        process = warden_of(watch.guard)
        await watch.guard.close()
        await asyncio.sleep(2 * warden.TICK)  # it has noticed
        assert process.poll() is None
        NoOverlapLease(watch.folder, "boot").renew(clock(), 700.0)
        assert await ended(process) == 0


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
