"""The worker's journal: what survives kill -9, a torn end and a full disk."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import signal
import subprocess
import sys
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from hecaton.core.errors import Conflict
from hecaton.core.model import AttemptRef, Body, Kind, Reason
from hecaton.core.options import Options
from hecaton.wire.channel import Outcome
from hecaton.worker.memory import journal as module
from hecaton.worker.memory import tail
from hecaton.worker.memory.journal import Journal
from hecaton.worker.memory.records import Ended, Given, Placed
from tests.worker.brain import assignment, ref

A, B = ref("a"), ref("b")
Open = Callable[[], Journal]


def ended(job: AttemptRef, data: bytes = b"1") -> Ended:
    return Ended(Outcome(job, Reason.OK, Body.inline(Kind.JSON, data), ran=1.0), 5.0, 0, "c-1", 3, 9)


def given(job: AttemptRef, container: str) -> Given:
    return Given(job, container, f"key-{job.job}", 123.5, 7, Options(timeout=60.0))


def placed(container: str) -> Placed:
    return Placed(container, 0, None, assignment("a"), "n0nce", "boot-1", 100.0)


@pytest.fixture
def safe() -> list[AttemptRef]:
    return []


@pytest.fixture
async def journal(tmp_path: Path, safe: list[AttemptRef]) -> AsyncIterator[Open]:
    opened: list[Journal] = []

    def reopen() -> Journal:
        for dead in opened:  # the process that had it open writes no more
            if dead._timer is not None:
                dead._timer.cancel()
        made = Journal(tmp_path / "journal", safe.extend)
        opened.append(made)
        return made

    yield reopen
    for made in opened:
        await made.close()


async def test_results_and_what_runs_where_are_read_back(journal: Open, safe: list[AttemptRef]) -> None:
    first = journal()
    first.give(given(A, "c-1"))
    first.end(ended(A))
    first.give(given(B, "c-2"))
    await first.flush()
    assert safe == [A]
    again = journal()
    assert again.ended == {A: ended(A)}
    assert again.given == {B: given(B, "c-2")}


async def test_containers_are_read_back_until_they_are_gone(journal: Open) -> None:
    first = journal()
    first.place(placed("c-1"))
    first.place(placed("c-2"))
    await first.flush()
    first.gone("c-1")
    await first.flush()
    assert journal().placed == {"c-2": placed("c-2")}


async def test_what_is_not_written_yet_is_read_back_too(journal: Open, safe: list[AttemptRef], tmp_path: Path) -> None:
    first = journal()
    first.place(placed("c-1"))
    first.give(given(B, "c-1"))
    first.end(ended(A))
    assert (tmp_path / "journal").stat().st_size == 0
    again = journal()  # as after kill -9: nothing was flushed
    assert (set(again.placed), set(again.given), set(again.ended)) == ({"c-1"}, {B}, {A})
    await again.flush()
    assert safe == [A]  # from now on it also survives a power cut


async def test_what_is_being_written_when_the_process_dies_is_read_back(journal: Open) -> None:
    first = journal()
    first.give(given(A, "c-1"))
    writing = asyncio.create_task(first.flush())
    await asyncio.sleep(0)  # the write has begun
    first.end(ended(A))
    first.give(given(B, "c-1"))
    again = journal()
    assert (set(again.given), set(again.ended)) == ({B}, {A})
    await writing


async def test_what_was_written_does_not_come_back_from_the_tail(journal: Open) -> None:
    first = journal()
    for _ in range(3):
        first.give(given(A, "c-1"))
        await first.flush()
        first.end(ended(A))
        await first.flush()
        first.forget(A)
        await first.flush()
    again = journal()
    assert (again.given, again.ended) == ({}, {})


async def test_a_tail_that_is_full_is_no_obstacle(journal: Open, safe: list[AttemptRef]) -> None:
    first = journal()
    first.end(ended(A))
    first.end(ended(B, b'"' + b"x" * tail.HALF + b'"'))
    assert set(journal().ended) == {A}
    await first.flush()
    assert list(dict.fromkeys(safe)) == [A, B], "each journal here says it once"
    assert set(journal().ended) == {A, B}


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
        first.give(given(A, "c-1"))
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


class TestAnotherVersion:
    """N reads N-1; what is newer is left as it is; what is older is given up. Never without a word."""

    @pytest.mark.parametrize("synced", [True, False], ids=["file", "tail"])
    async def test_the_one_before_is_read_and_written_anew(
        self, journal: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, synced: bool
    ) -> None:
        first = journal()
        first.place(placed("c-1"))
        first.give(given(B, "c-1"))
        first.end(ended(A))
        if synced:
            await first.flush()
        monkeypatch.setattr(module, "VERSION", module.VERSION + 1)
        for _ in range(2):
            again = journal()
            assert (again.placed, again.given) == ({"c-1": placed("c-1")}, {B: given(B, "c-1")})
            assert again.ended == {A: ended(A)}
            again.give(given(B, "c-1"))
            await again.flush()
            assert (tmp_path / "journal").read_bytes()[len(module.MAGIC)] == module.VERSION

    @pytest.mark.parametrize("synced", [True, False], ids=["file", "tail"])
    async def test_a_newer_one_is_refused_and_nothing_of_it_changes(
        self, journal: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, synced: bool
    ) -> None:
        with monkeypatch.context() as newer:
            newer.setattr(module, "VERSION", module.VERSION + 1)
            first = journal()
            first.end(ended(A))
            if synced:
                await first.flush()
                first.end(ended(B))
            before = [(tmp_path / name).read_bytes() for name in ("journal", "journal.tail")]
            with newer.context() as today:
                today.setattr(module, "VERSION", module.VERSION - 1)
                with pytest.raises(Conflict, match="newer release"):
                    journal()
            assert [(tmp_path / name).read_bytes() for name in ("journal", "journal.tail")] == before

    @pytest.mark.parametrize("synced", [True, False], ids=["file", "tail"])
    async def test_one_that_is_too_old_is_given_up_aloud(
        self, journal: Open, monkeypatch: pytest.MonkeyPatch, synced: bool
    ) -> None:
        first = journal()
        first.end(ended(A))
        if synced:
            await first.flush()
        monkeypatch.setattr(module, "VERSION", module.VERSION + 2)
        with capture_logs() as said:
            again = journal()
        assert again.ended == {}
        assert "too old to be read" in said[0]["event"]
        again.end(ended(B))
        await again.flush()
        assert set(journal().ended) == {B}

    async def test_one_from_before_there_were_versions_is_too_old(self, journal: Open, tmp_path: Path) -> None:
        path = tmp_path / "journal"
        path.write_bytes(module._frame(placed("c-1")) + module._frame(ended(A)))
        with capture_logs() as said:
            again = journal()
        assert (again.placed, again.ended) == ({}, {})
        assert "too old to be read" in said[0]["event"]

    async def test_a_torn_head_is_a_journal_without_records(self, journal: Open, tmp_path: Path) -> None:
        (tmp_path / "journal").write_bytes(module.MAGIC[:3])
        with capture_logs() as said:
            again = journal()
        assert said == []
        again.end(ended(A))
        await again.flush()
        assert set(journal().ended) == {A}

    async def test_a_record_that_is_not_understood_costs_no_other(self, journal: Open, tmp_path: Path) -> None:
        first = journal()
        first.end(ended(A))
        await first.flush()
        body = module._encoder.encode(["a kind of its own", 1])
        with (tmp_path / "journal").open("ab") as file:
            file.write(tail.FRAME.pack(len(body), zlib.crc32(body)) + body + module._frame(ended(B)))
        with capture_logs() as said:
            assert set(journal().ended) == {A, B}
        assert "not understood" in said[0]["event"]


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


async def test_one_that_cannot_be_written_anew_goes_on_as_it_is(
    journal: Open, safe: list[AttemptRef], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "COMPACT_SIZE", 1000)
    (tmp_path / "journal.new").mkdir()  # as when the process may open no more files: it cannot be made
    first = journal()
    first.end(ended(A, b"1" * 2000))
    await first.flush()
    first.forget(A)
    first.end(ended(B))
    await first.flush()
    assert safe == [A, B]
    assert set(journal().ended) == {B}


async def test_results_count_as_safe_only_once_the_name_of_a_new_file_is_on_the_disk(
    journal: Open, safe: list[AttemptRef], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(path: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(module, "COMPACT_SIZE", 1000)
    first = journal()
    first.end(ended(A, b"1" * 2000))
    await first.flush()
    first.forget(A)
    with monkeypatch.context() as broken:
        broken.setattr(module, "_sync_folder", fails)
        await first.flush()
        assert (tmp_path / "journal").stat().st_size < 1000
        first.end(ended(B))
        await first.flush()
        assert safe == [A]
    await first.flush()
    assert safe == [A, B]
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
    journal = Journal(Path(sys.argv[1]), lambda refs: None)
    for number in range(100000):
        journal.end(ended(ref(str(number))))
        os.write(1, f"{number}\\n".encode())
        await asyncio.sleep(0.001)

asyncio.run(main())
"""


def test_results_survive_kill_9_before_they_are_synced(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = [process.stdout.readline().strip() for _ in range(100)]
        process.kill()
        said += process.stdout.read().split()

    async def read() -> set[str]:
        journal = Journal(path, lambda refs: None)
        await journal.close()
        return {item.job for item in journal.ended}

    assert set(said) <= asyncio.run(read())
