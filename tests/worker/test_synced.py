"""What the worker has told the kernel to put on the disk before a container may forget its result."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hecaton.core.model import AttemptRef, Body, Kind, Reason
from hecaton.wire.channel import Outcome
from hecaton.worker.memory import journal as module
from hecaton.worker.memory.journal import Journal
from hecaton.worker.memory.records import Ended
from hecaton.worker.memory.spool import Spool
from tests.syncs import watching
from tests.worker.brain import ref

A = ref("a")


def ended(data: bytes) -> Ended:
    return Ended(Outcome(A, Reason.OK, Body.inline(Kind.JSON, data)), 5.0)


async def test_a_result_is_on_the_disk_before_it_counts_as_safe(tmp_path: Path) -> None:
    with watching() as syncs:
        on_disk: list[bytes] = []

        def safe(refs: tuple[AttemptRef, ...]) -> None:
            assert refs == (A,)
            on_disk.extend(content for name, content in syncs.files if name == "journal")

        journal = Journal(tmp_path / "journal", safe)
        journal.end(ended(b'"the result"'))
        await journal.close()
    assert on_disk
    assert b"the result" in on_disk[-1]


async def test_a_journal_that_is_written_anew_is_on_the_disk_before_it_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "COMPACT_SIZE", 10_000)
    folder = tmp_path / "state"
    folder.mkdir()
    journal = Journal(folder / "journal", lambda refs: None)
    journal.end(ended(b"1" * 20_000))
    await journal.flush()
    journal.forget(A)
    with watching() as syncs:
        await journal.close()
    assert "journal.new" in syncs.names
    assert syncs.names[-1] == "state"  # the new file's name, after its content


def test_a_large_result_is_on_the_disk_before_it_counts_as_kept(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    source = tmp_path / "out"
    source.write_bytes(b"large")
    with watching() as syncs:
        spool.keep_bytes(A, b"content")
        fd = os.open(source, os.O_RDONLY)
        spool.keep_file(A, fd, 100)
        os.close(fd)
    assert [content for _, content in syncs.files] == [b"content", b"large"]
