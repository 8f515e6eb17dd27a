"""The worker's journal: what survives kill -9, a torn end and a full disk."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from hecaton.core.model import AttemptRef, Body, Kind, Reason
from hecaton.wire.channel import Outcome
from hecaton.worker import journal as module
from hecaton.worker.journal import Ended, Given, Journal
from tests.worker.brain import ref

A, B = ref("a"), ref("b")
Open = Callable[[], Journal]


def ended(job: AttemptRef, data: bytes = b"1") -> Ended:
    return Ended(Outcome(job, Reason.OK, Body.inline(Kind.JSON, data), ran=1.0), 5.0, 0, "c-1", 3, 9)


@pytest.fixture
def safe() -> list[AttemptRef]:
    return []


@pytest.fixture
async def journal(tmp_path: Path, safe: list[AttemptRef]) -> AsyncIterator[Open]:
    opened: list[Journal] = []

    def reopen() -> Journal:
        made = Journal(tmp_path / "journal", safe.extend)
        opened.append(made)
        return made

    yield reopen
    for made in opened:
        await made.close()


async def test_results_and_what_runs_where_are_read_back(journal: Open, safe: list[AttemptRef]) -> None:
    first = journal()
    first.give(A, "c-1")
    first.end(ended(A))
    first.give(B, "c-2")
    await first.flush()
    assert safe == [A]
    again = journal()
    assert again.ended == {A: ended(A)}
    assert again.given == {B: Given(B, "c-2")}


async def test_what_the_server_accepted_is_gone(journal: Open) -> None:
    first = journal()
    first.end(ended(A))
    await first.flush()
    first.forget(A)
    await first.flush()
    assert journal().ended == {}


async def test_what_the_server_accepts_at_once_never_reaches_the_disk(
    journal: Open, safe: list[AttemptRef], tmp_path: Path
) -> None:
    first = journal()
    for _ in range(100):
        first.give(A, "c-1")
        first.end(ended(A))
        first.forget(A)
    await first.flush()
    assert (tmp_path / "journal").stat().st_size == 0
    assert safe == []


async def test_a_result_accepted_while_it_is_being_written_does_not_come_back(journal: Open) -> None:
    first = journal()
    first.end(ended(A))
    writing = asyncio.create_task(first.flush())
    await asyncio.sleep(0)  # the write has begun
    first.forget(A)
    await writing
    await first.flush()
    assert journal().ended == {}


@pytest.mark.parametrize("cut", [1, 5, 20])
async def test_a_torn_end_costs_only_the_last_record(journal: Open, tmp_path: Path, cut: int) -> None:
    first = journal()
    first.end(ended(A))
    await first.flush()
    first.end(ended(B))
    await first.flush()
    path = tmp_path / "journal"
    os.truncate(path, path.stat().st_size - cut)
    again = journal()
    assert set(again.ended) == {A}
    again.end(ended(B))
    await again.flush()
    assert set(journal().ended) == {A, B}


async def test_junk_at_the_end_is_cut_off(journal: Open, tmp_path: Path) -> None:
    first = journal()
    first.end(ended(A))
    await first.flush()
    with (tmp_path / "journal").open("ab") as file:
        file.write(os.urandom(500))
    assert set(journal().ended) == {A}


async def test_it_does_not_grow_without_bound(journal: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COMPACT_SIZE", 100_000)
    first = journal()
    first.end(ended(B))
    for _ in range(40):
        first.end(ended(A, b'"' + b"x" * 10_000 + b'"'))
        await first.flush()
        first.forget(A)
    await first.flush()
    assert (tmp_path / "journal").stat().st_size < 120_000
    assert set(journal().ended) == {B}


async def test_a_full_disk_delays_and_loses_nothing(
    journal: Open, safe: list[AttemptRef], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "RETRY", 0.05)
    first = journal()
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, old[1]))  # what a full disk is to a writer
    try:
        with capture_logs() as said:  # what is printed would meet the limit too
            first.end(ended(A))
            await first.flush()
        assert safe == []
        assert "Cannot write" in said[0]["event"]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
    async with asyncio.timeout(10):
        while not safe:  # noqa: ASYNC110 - it tries by itself
            await asyncio.sleep(0.01)
    assert set(journal().ended) == {A}


KILLED = """
import asyncio, os, sys
sys.path.insert(0, "")
from pathlib import Path
from tests.worker.test_journal import Journal, ended, ref

async def main():
    def say(refs):
        for item in refs:
            os.write(1, (item.job + "\\n").encode())
    journal = Journal(Path(sys.argv[1]), say)
    for number in range(100000):
        journal.end(ended(ref(str(number))))
        await asyncio.sleep(0.001)

asyncio.run(main())
"""


def test_what_it_called_safe_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = [process.stdout.readline().strip() for _ in range(20)]
        process.kill()
        said += process.stdout.read().split()

    async def read() -> set[str]:
        journal = Journal(path, lambda refs: None)
        await journal.close()
        return {item.job for item in journal.ended}

    assert set(said) <= asyncio.run(read())
