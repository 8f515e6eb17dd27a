"""Logs of attempts: cut from one file, capped, sent again when it must be, and no burden on the disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hecaton.worker.link import logs
from hecaton.worker.link.logs import AttemptLog, ContainerLog
from tests.worker.brain import ref

A, B = ref("a"), ref("b")


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path / "log", os.O_RDWR | os.O_APPEND | os.O_CREAT)
    yield fd
    os.close(fd)


def text(log: AttemptLog, limit: int = 1 << 30) -> bytes:
    return b"".join(piece.data for piece in log.pieces(limit))


def used(fd: int) -> int:
    """Bytes that the file takes on the disk."""
    os.fsync(fd)
    return os.fstat(fd).st_blocks * 512


def test_each_attempt_gets_its_own_part(fd: int) -> None:
    log = ContainerLog(fd)
    os.write(fd, b"loading the model\n")
    first = log.begin(A)
    os.write(fd, b"one\n")
    first.finish()
    second = log.begin(B)
    os.write(fd, b"two\n")
    assert text(first) == b"loading the model\none\n"
    assert text(second) == b"two\n"


def test_what_was_sent_is_not_sent_again_unless_the_connection_broke(fd: int) -> None:
    log = ContainerLog(fd).begin(A)
    os.write(fd, b"abc")
    assert text(log) == b"abc"
    os.write(fd, b"def")
    assert [(piece.offset, piece.data) for piece in log.pieces(2)] == [(3, b"de")]
    log.rewind()
    assert text(log) == b"abcdef"


@pytest.mark.parametrize(("said", "believed"), [(2, b"ab"), (1_000_000, b"abcd"), (-5, b""), (None, b"abcd")])
def test_a_container_is_believed_about_the_end_of_its_log_only_within_the_file(
    fd: int, said: int | None, believed: bytes
) -> None:
    log = ContainerLog(fd).begin(A)
    os.write(fd, b"abcd")
    log.finish(said)
    assert text(log) == believed


def test_a_storm_is_cut_at_the_cap_says_so_and_does_not_stay_on_the_disk(
    fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "CAP", 1 << 20)
    log = ContainerLog(fd).begin(A)
    for _ in range(20):
        os.write(fd, b"x" * (1 << 20))
        log.trim()
    log.finish()
    sent = text(log)
    assert sent == b"x" * (1 << 20) + logs.MARK
    assert log.size == len(sent)
    assert used(fd) < 3 << 20


def test_the_space_of_accepted_logs_is_given_back(fd: int) -> None:
    log = ContainerLog(fd)
    for number in range(20):
        part = log.begin(ref(str(number)))
        os.write(fd, b"x" * (1 << 20))
        part.finish()
        log.forget(part.ref)
    assert used(fd) < 4 << 20
    assert not log.needed


def test_what_is_printed_between_jobs_is_given_back_too(fd: int) -> None:
    log = ContainerLog(fd)
    os.write(fd, b"x" * (8 << 20))
    log.trim_idle()
    assert used(fd) < 2 << 20


def test_the_tail_is_whole_lines(fd: int) -> None:
    log = ContainerLog(fd).begin(A)
    os.write(fd, b"first line\nsecond line\nlast \xff line\n")
    assert log.tail(20) == "last \ufffd line\n"
    assert log.tail(1000).startswith("first line")
