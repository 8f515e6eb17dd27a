"""What jobs have made leaves with them, whatever they have put there."""

from __future__ import annotations

import os
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hecaton.core.files.kept import MAX_LEVELS, KeptFile, require_sound
from hecaton.worker.doors.removal import remove
from hecaton.worker.files import reading, walk
from hecaton.worker.files.reading import Load, Loads

OURS = ".hecaton"


@pytest.fixture
def root() -> Iterator[Path]:
    """Not among the folders of pytest, which removes none that is as deep: a test that was killed would leave it."""
    folder = Path(tempfile.mkdtemp(prefix="hecaton-outputs-"))
    yield folder
    assert remove(folder) is None


def loads(folder: Path, known: int = 0) -> list[Load]:
    fd = os.open(folder, walk.FOLDER)
    found = Loads(fd, OURS, known)
    try:
        every = []
        while (load := found.next()) is not None:
            load.close()
            every.append(load)
        return every
    finally:
        found.close()


def files(folder: Path, known: int = 0) -> dict[str, KeptFile]:
    every = [file for load in loads(folder, known) for file in load.files]
    for file in every:
        require_sound(file)  # what the server asks of it
    return {file.path: file for file in every}


def test_what_is_no_plain_file_is_named_and_neither_opened_nor_followed(root: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("not yours")
    (root / "to-file").symlink_to(tmp_path / "secret")
    (root / "to-folder").symlink_to(tmp_path)
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "socket"))
    (root / "good").write_text("good")
    (root / OURS).mkdir()
    (root / OURS / "other").write_text("of another attempt")
    found = files(root)
    assert {path: file.why for path, file in found.items()} == {
        "good": "", "pipe": "it is a pipe", "socket": "it is a socket", "to-file": "it is a link",
        "to-folder": "it is a link",
    }  # fmt: skip


def test_names_that_no_text_can_hold_are_named_as_far_as_they_can(root: Path) -> None:
    os.close(os.open(os.fsencode(root) + b"/bad\xff", os.O_CREAT))
    os.close(os.open(os.fsencode(root) + b"/new\nline", os.O_CREAT))
    folder = root
    for _ in range(5):
        folder /= "é" * 110
        folder.mkdir()
    (folder / "file").write_text("deep in long names")
    whys = [file.why for file in files(root).values()]
    assert sum("no UTF-8" in why for why in whys) == 1
    assert sum("more than 1024 bytes" in why for why in whys) == 1
    assert "" in whys, "a line break is none of our business here"


def test_thousands_of_levels_are_looked_into_as_far_as_files_are_kept(root: Path) -> None:
    here = os.open(root, walk.FOLDER)
    for _ in range(2_000):
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", walk.FOLDER, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    (root / Path(*["d"] * MAX_LEVELS) / "file").write_text("the deepest")
    found = files(root)
    assert [path.count("/") for path in found] == [MAX_LEVELS, MAX_LEVELS]
    assert sorted(file.why for file in found.values()) == ["", f"it lies under {MAX_LEVELS} folders"]


def test_more_files_than_an_attempt_keeps_are_said_and_not_looked_at(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MAX_FILES", 10)
    for number in range(15):
        (root / f"{number:02}").write_text("x")
    found = list(files(root).values())
    assert len(found) == 10
    assert [file.why == "" for file in found] == [True] * 9 + [False]
    monkeypatch.setattr(walk, "MAX_SEEN", 5)
    assert len(files(root)) == 5


def test_a_file_that_would_be_too_much_is_named_and_a_smaller_one_behind_it_is_kept(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MAX_KEPT_BYTES", 10)
    for name, size in (("a", 6), ("b", 6), ("c", 4)):
        (root / name).write_bytes(b"x" * size)
    assert [file.why == "" for file in files(root).values()] == [True, False, True]


def test_small_files_share_a_load_and_large_ones_have_pieces(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "PIECE", 3 * 1024 * 1024)
    content = os.urandom(4 * 1024 * 1024)
    (root / "large").write_bytes(content)
    for name in ("a", "b", "z"):
        (root / name).write_text(name)
    (root / "b").chmod(0o755)
    (root / "empty").touch()
    every = loads(root)
    assert [[file.path for file in load.files] for load in every] == [["a", "b", "empty"], ["large"], ["z"]]
    assert [load.first for load in every] == [0, 3, 4]
    assert every[0].bundle == b"ab"
    assert [piece.size for piece in every[1].files[0].pieces] == [3 * 1024 * 1024, 1024 * 1024]
    assert [file.executable for file in every[0].files] == [False, True, False]
    assert list(files(root, known=3)) == ["large", "z"], "what the server has is not read again"


def test_what_cannot_be_read_or_changes_meanwhile_is_said(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "grows").write_text("x")
    seen = walk.FolderEntry.open

    def grown(entry: walk.FolderEntry) -> int:
        with (root / "grows").open("a") as file:
            file.write("y")
        return seen(entry)

    monkeypatch.setattr(walk.FolderEntry, "open", grown)
    assert files(root)["grows"].why == reading.CHANGED

    def replaced(entry: walk.FolderEntry) -> int:
        (root / "grows").unlink()
        os.mkfifo(root / "grows")
        return seen(entry)

    monkeypatch.setattr(walk.FolderEntry, "open", replaced)
    assert "no plain file any more" in files(root)["grows"].why


def test_what_is_closed_while_a_large_file_is_read_leaves_nothing_open(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the connection breaks: the task is cancelled, its thread goes on."""
    (root / "large").write_bytes(bytes(reading.SMALL + 1))
    begun, goes_on = threading.Event(), threading.Event()
    chunks = reading.chunks

    def waiting(fd: int, start: int, size: int) -> Iterator[bytes]:
        begun.set()
        goes_on.wait()
        return chunks(fd, start, size)

    monkeypatch.setattr(reading, "chunks", waiting)
    before = os.listdir("/proc/self/fd")
    found = Loads(os.open(root, walk.FOLDER), OURS, 0)
    reads = threading.Thread(target=found.next)
    reads.start()
    begun.wait()
    found.close()
    goes_on.set()
    reads.join()
    assert os.listdir("/proc/self/fd") == before
    assert found.next() is None
