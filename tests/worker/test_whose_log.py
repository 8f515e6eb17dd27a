"""Whose is what was printed: nothing of a job goes into the log of another one, in any order of events."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import struct
import termios
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hecaton.core.model import Reason
from hecaton.serverless.protocol import TURN_NUMBER, TURNS_NAME
from tests.worker.brain import ref
from tests.worker.scripted_server import PATIENCE, ScriptedServer
from tests.worker.test_adoption import Site
from tests.worker.test_ahead import short, warm_up

__all__ = ["short"]

A, B, C = ref("a"), ref("b"), ref("c")

# What a job prints says whose it is. One that is "silent" prints nothing, so its file is used on.
HANDLER = """
    import os, subprocess, time
    from hecaton.serverless import start
    out = os.environ["HECATON_DIR"] + "/out/"

    def handler(data):
        if data.input == "me":
            return None
        while data.input == "late" and not os.path.exists(out + data.job_id + ".speak"):
            time.sleep(0.01)
        if data.input != "silent":
            print("began", data.job_id)
        open(out + data.job_id + ".ran", "w").write("x")
        if data.input == "child":
            line = "while [ ! -e go ]; do sleep 0.02; done; echo left over; touch done"
            subprocess.Popen(["sh", "-c", line], cwd=out)
            return None
        while not os.path.exists(out + data.job_id + ".go"):
            time.sleep(0.01)
        if data.input == "exit":
            os._exit(3)

    start(handler)
"""


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with ScriptedServer() as server:
        site = Site(server, tmp_path / "state", "process", HANDLER)
        yield site
        await site.end()


async def until_ahead(site: Site, jobs: int) -> None:
    """So many have been given ahead, and none of them has begun: their numbers are in the pipe."""
    (turns,) = site.folder.glob(f"c/*/{TURNS_NAME}")
    fd = os.open(turns, os.O_RDONLY | os.O_NONBLOCK)
    try:
        async with asyncio.timeout(PATIENCE):
            while struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, bytes(4)))[0] < jobs * TURN_NUMBER.size:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    finally:
        os.close(fd)


async def test_a_worker_that_looks_late_ships_nothing_of_the_next_job(site: Site) -> None:
    """It looks at the log before it reads that the first job has ended, and the second has printed already."""
    await warm_up(site, to_be_killed=True)
    await site.server.assign(site.job("a", "silent"), site.job("b"), site.job("c", "me"))
    await site.until_file("a.ran")
    await until_ahead(site, 2)
    assert site.process is not None
    site.process.send_signal(signal.SIGSTOP)
    site.let_go("a")
    await site.until_file("b.ran")
    site.process.send_signal(signal.SIGCONT)
    for job, log in ((A, b""), (B, b"began b\n"), (C, b"")):
        site.let_go(job.job)
        outcome = await site.server.outcome(job)
        assert (outcome.reason, outcome.log_size) == (Reason.OK, len(log))
        assert site.server.log(job) == log


async def test_jobs_behind_one_that_talks_are_taken_back_so_that_it_is_heard_at_once(site: Site) -> None:
    await warm_up(site)
    await site.server.assign(site.job("a", "late"), site.job("b"))
    await until_ahead(site, 1)
    (out,) = site.folder.glob("c/*/out")
    (out / "a.speak").touch()
    await site.server.until(lambda: site.server.log(A) == b"began a\n")
    assert site.executions("b") == 0
    for job in (A, B):
        await site.until_file(f"{job.job}.ran")
        site.let_go(job.job)
        assert (await site.server.outcome(job)).reason is Reason.OK
    assert site.server.log(B) == b"began b\n"


async def test_what_a_child_process_prints_after_its_job_is_in_no_other_log(site: Site) -> None:
    await site.comes_back()
    await site.begins(site.job("a", "child"))
    assert (await site.server.outcome(A)).reason is Reason.OK
    await site.begins(site.job("b"))
    (out,) = site.folder.glob("c/*/out")
    (out / "go").touch()
    await site.until_file("done")
    site.let_go("b")
    assert (await site.server.outcome(B)).reason is Reason.OK
    assert [site.server.log(job) for job in (A, B)] == [b"began a\n", b"began b\n"]
    async with asyncio.timeout(PATIENCE):  # until the worker looks at the logs of what is idle
        while not (kept := list(site.folder.glob("leftovers/*.log"))):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert kept[0].read_text() == "[after job a, attempt 1]\nleft over\n"


async def test_a_crash_tells_whose_log_it_is_too(site: Site) -> None:
    await warm_up(site)
    await site.server.assign(site.job("a", "silent"), site.job("b", "exit"))
    await site.until_file("a.ran")
    site.let_go("a")
    await site.until_file("b.ran")
    site.let_go("b")
    assert (await site.server.outcome(B)).reason is Reason.HANDLER_EXIT
    assert (await site.server.outcome(A)).reason is Reason.OK
    assert [site.server.log(job) for job in (A, B)] == [b"", b"began b\n"]


async def test_a_worker_that_was_killed_finds_each_log_in_its_file(site: Site) -> None:
    await warm_up(site, to_be_killed=True)  # after which none prints into the first file
    site.server.accepts = False
    await site.begins(site.job("a"))
    site.let_go("a")
    await site.server.outcome(A)
    await site.begins(site.job("b"))
    await site.is_killed()
    site.server.accepts = True
    await site.comes_back()
    site.let_go("b")
    for job, log in ((A, b"began a\n"), (B, b"began b\n")):
        assert (await site.server.outcome(job)).reason is Reason.OK
        assert site.server.log(job) == log
    await site.begins(site.job("c"))
    site.let_go("c")
    assert (await site.server.outcome(C)).reason is Reason.OK
    assert site.server.log(C) == b"began c\n"


async def test_a_result_whose_log_is_gone_leaves_the_server_what_it_has_of_it(site: Site) -> None:
    """As after a power cut, which takes what was not synced."""
    site.server.accepts = False
    await site.comes()
    await site.begins(site.job("a"))
    site.let_go("a")
    size = (await site.server.outcome(A)).log_size
    await site.begins(site.job("b"))
    await site.is_killed()
    (site.folder / "c").rename(site.folder / "lost")
    site.server.accepts = True
    await site.comes_back()
    outcome = await site.server.outcome(A)
    assert (outcome.log_size, size, site.server.log(A)) == (size, len(b"began a\n"), b"")
