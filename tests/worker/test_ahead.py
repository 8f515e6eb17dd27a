"""A whole worker and real containers that have short jobs ahead: none begins twice, none waits behind a long one."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import struct
import termios

import pytest

from hecaton.core.model import AttemptRef, Reason
from hecaton.serverless.protocol import TURN_NUMBER, TURNS_NAME
from hecaton.wire.channel import Cancel, Released, Revoke
from hecaton.worker.brain import slots, steps
from tests.worker import killable
from tests.worker.brain import ref
from tests.worker.scripted_server import PATIENCE
from tests.worker.test_adoption import Site, containers, phases, processes, site

__all__ = ["containers", "processes", "site"]

A, B, C = ref("a"), ref("b"), ref("c")

SLOW_TO_LOOK = """
import os, time
from hecaton.serverless import turns
look = turns.Turns.take
def wait_and_look(self, turn):
    while os.path.exists(os.environ["HECATON_DIR"] + "/out/hold"):
        time.sleep(0.01)
    return look(self, turn)
turns.Turns.take = wait_and_look
"""


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs of some seconds count as short: a busy machine must not take the test's for long ones."""
    for module in (slots, steps):
        monkeypatch.setattr(module, "AHEAD_SECONDS", 10.0)


@pytest.fixture
def looks_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that looks at the log takes back what is ahead of a job that talks: the one to be killed does not."""
    monkeypatch.setattr(killable, "LOG_INTERVAL", PATIENCE)


async def warm_up(site: Site, *, to_be_killed: bool = False) -> None:
    """The worker learns that the container's jobs are short."""
    await (site.comes() if to_be_killed else site.comes_back())
    names = [f"quick{number}" for number in range(3)]
    await site.server.assign(*(site.job(name, "me") for name in names))
    for name in names:
        assert (await site.server.outcome(ref(name))).reason is Reason.OK


async def give(site: Site, *names: str) -> None:
    """The first one runs, and waits to be let go; the others are ahead."""
    await site.server.assign(*(site.job(name) for name in names))
    await site.until_file(f"{names[0]}.ran")


async def until_ahead(site: Site, count: int) -> None:
    """The worker writes down what it gives ahead before it gives it: who kills it may be between the two."""
    (pipe,) = site.folder.glob(f"c/*/{TURNS_NAME}")
    turns = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        async with asyncio.timeout(PATIENCE):
            while _readable(turns) < count * TURN_NUMBER.size:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    finally:
        os.close(turns)


def _readable(fd: int) -> int:
    return struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, bytes(4)))[0]  # type: ignore[no-any-return]


async def released(site: Site) -> set[AttemptRef]:
    await site.server.message(Released)
    return {ref for message in site.server.all(Released) for ref in message.refs}


async def test_jobs_run_in_order_each_with_its_own_log(site: Site) -> None:
    await warm_up(site)
    await give(site, "a", "b", "c")
    for name in "abc":
        assert site.executions(name) == 1
        site.let_go(name)
        outcome = await site.server.outcome(ref(name))
        assert (outcome.reason, outcome.log_size) == (Reason.OK, len(b"began\nended\n"))
        if name != "c":
            await site.until_file(f"{chr(ord(name) + 1)}.ran")
    assert [site.server.log(ref(name)) for name in "abc"] == [b"began\nended\n"] * 3


async def test_jobs_behind_a_long_one_are_handed_back_at_once(site: Site) -> None:
    await warm_up(site)
    await give(site, "a", "b", "c")
    await site.server.say(Revoke((B, C)))
    assert await released(site) == {B, C}
    site.let_go("a")
    assert (await site.server.outcome(A)).reason is Reason.OK
    assert site.executions("b") == site.executions("c") == 0
    await site.begins(site.job("b"))  # and it may come again
    site.let_go("b")
    assert (await site.server.outcome(B)).reason is Reason.OK


async def test_cancelling_one_of_them_leaves_the_container_to_the_others(site: Site) -> None:
    await warm_up(site)
    await give(site, "a", "b", "c")
    await site.server.say(Cancel((B,)))
    assert (await site.server.outcome(B)).reason is Reason.CANCELLED
    site.let_go("a")
    await site.until_file("c.ran")
    site.let_go("c")
    assert (await site.server.outcome(C)).reason is Reason.OK
    assert site.executions("b") == 0


async def test_a_crash_costs_the_job_that_ran_and_none_behind_it(processes: Site) -> None:
    await warm_up(processes)
    jobs = [processes.job("a", "exit"), processes.job("b"), processes.job("c", "me")]
    await processes.server.assign(*jobs)
    await processes.until_file("a.ran")
    processes.let_go("a")
    assert (await processes.server.outcome(A)).reason is Reason.HANDLER_EXIT
    await processes.until_file("b.ran")
    assert processes.executions("b") == 1
    processes.let_go("b")
    assert (await processes.server.outcome(C)).reason is Reason.OK


async def test_one_whose_turn_has_come_and_that_has_not_begun_is_given_again(processes: Site) -> None:
    """The worker hears of an answer a moment before the container looks for its next job."""
    processes.handler.write_text(SLOW_TO_LOOK + processes.handler.read_text())
    await warm_up(processes)
    (hold,) = (out / "hold" for out in processes.folder.glob("c/*/out"))
    await give(processes, "a", "b", "c")
    hold.touch()
    processes.let_go("a")
    assert (await processes.server.outcome(A)).reason is Reason.OK
    await processes.server.say(Revoke((C,)))
    assert await released(processes) == {C}
    hold.unlink()
    await processes.until_file("b.ran")
    processes.let_go("b")
    outcome = await processes.server.outcome(B)
    assert (outcome.reason, processes.executions("b")) == (Reason.OK, 1)
    assert processes.server.log(B) == b"began\nended\n"


async def test_large_results_keep_the_order_of_those_behind_them(processes: Site) -> None:
    await warm_up(processes)
    await processes.server.assign(
        processes.job("a", "large"), processes.job("b", "large"), processes.job("c", "me"), processes.job("d", "me")
    )
    for name in "ab":
        await processes.until_file(f"{name}.ran")
        processes.let_go(name)
    for name in "abcd":
        assert (await processes.server.outcome(ref(name))).reason is Reason.OK


@pytest.mark.usefixtures("looks_late")
async def test_a_killed_worker_hands_back_what_had_not_begun(site: Site) -> None:
    await warm_up(site, to_be_killed=True)
    await give(site, "a", "b", "c")
    await until_ahead(site, 2)
    await site.is_killed()
    assert phases(await site.comes_back())[A] == "running"
    for name in "bc":
        assert (await site.server.outcome(ref(name))).reason is Reason.RELEASED
    site.let_go("a")
    assert (await site.server.outcome(A)).reason is Reason.OK
    assert [site.executions(name) for name in "abc"] == [1, 0, 0]


@pytest.mark.usefixtures("looks_late")
async def test_a_killed_worker_goes_on_with_one_that_had_begun_unseen(site: Site) -> None:
    await warm_up(site, to_be_killed=True)
    await give(site, "a", "b", "c")
    await until_ahead(site, 2)
    assert site.process is not None
    site.process.send_signal(signal.SIGSTOP)
    site.let_go("a")
    await site.until_file("b.ran")
    await site.is_killed()
    hello = await site.comes_back()
    assert phases(hello)[A] == "running"
    assert phases(hello)[B] == "queued"
    assert (await site.server.outcome(C)).reason is Reason.RELEASED
    site.let_go("b")
    for job in (A, B):
        assert (await site.server.outcome(job)).reason is Reason.OK
        assert site.server.log(job) == b"began\nended\n"
    assert [site.executions(name) for name in "abc"] == [1, 1, 0]
