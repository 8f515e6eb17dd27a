"""What a container may keep in out/, and how little is looked at beyond that."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hecaton.worker.doors.removal import remove
from hecaton.worker.memory import usage
from tests.worker import leftovers


@pytest.fixture(autouse=True)
def cleared(tmp_path: Path) -> Iterator[None]:
    """What pytest could not remove itself."""
    yield
    for path in tmp_path.iterdir():
        remove(path)


def found(out: Path, max_result: int = 0, apart: tuple[str, ...] = ()) -> str | None:
    before = os.listdir("/proc/self/fd")
    try:
        return usage.excess(os.open(out, os.O_RDONLY), max_result, apart)
    finally:
        assert len(os.listdir("/proc/self/fd")) == len(before)


def test_what_honest_handlers_leave_is_not_too_much(tmp_path: Path) -> None:
    (tmp_path / "a.1").write_bytes(bytes(1 << 20))
    (tmp_path / "b.1.answered").touch()
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    (tmp_path / "link").symlink_to("/")
    leftovers.nest(tmp_path, usage.MAX_OUT_DEPTH - 1)
    assert found(tmp_path) is None


def test_bytes_however_deep_they_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "MAX_OUT", 1 << 20)
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/c").write_bytes(bytes(1 << 20))
    (tmp_path / "log.1").write_bytes(bytes(8 << 20))
    assert found(tmp_path, apart=("log.1",)) == "more than 1048576 bytes"
    assert found(tmp_path, max_result=1 << 20, apart=("log.1",)) is None
    assert found(tmp_path) is not None


def test_files_and_depth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "MAX_OUT_FILES", 100)
    for number in range(101):
        os.mknod(tmp_path / f"{number}")
    assert found(tmp_path) == "more than 100 files"
    (tmp_path / "deep").mkdir()
    leftovers.nest(tmp_path / "deep", 1200)
    assert found(tmp_path / "deep") == "more than 32 folders in each other"


def test_what_cannot_be_looked_at_is_no_excess(tmp_path: Path) -> None:
    assert found(Path("/dev/null")) is None
