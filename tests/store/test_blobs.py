"""Blobs in a folder: complete or absent, named by their content, whatever happens to those who write them."""

from __future__ import annotations

import hashlib
import random
import stat
import threading
from pathlib import Path

import pytest

from hecaton.core.errors import BadRequest, Unavailable
from hecaton.store.blobs import FolderBlobs

CONTENT = random.Random(1).randbytes(300_000)  # the same in every process of a run: a test is called after its hash
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def blobs(tmp_path: Path) -> FolderBlobs:
    return FolderBlobs(tmp_path / "server" / "blobs")


def files(tmp_path: Path) -> list[str]:
    root = tmp_path / "server" / "blobs"
    return [str(file.relative_to(root)) for file in root.rglob("*") if file.is_file()]


def store(blobs: FolderBlobs, content: bytes, expected: str | None = None) -> str:
    writer = blobs.writer()
    for start in range(0, len(content), 65536):
        writer.write(content[start : start + 65536])
    return writer.commit(expected)


def test_a_blob_is_a_file_named_by_its_hash(blobs: FolderBlobs, tmp_path: Path) -> None:
    assert blobs.path(SHA256) is None
    assert store(blobs, CONTENT, SHA256) == SHA256
    assert files(tmp_path) == [f"{SHA256[:2]}/{SHA256[2:]}"]
    path = blobs.path(SHA256)
    assert path is not None
    assert Path(path).read_bytes() == CONTENT
    assert stat.S_IMODE(Path(path).stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "server" / "blobs").stat().st_mode) == 0o700


def test_an_empty_blob_is_a_blob(blobs: FolderBlobs) -> None:
    assert store(blobs, b"") == hashlib.sha256(b"").hexdigest()


def test_a_blob_is_absent_until_it_is_committed(blobs: FolderBlobs) -> None:
    writer = blobs.writer()
    writer.write(CONTENT)
    assert blobs.path(SHA256) is None
    writer.commit()
    assert blobs.path(SHA256) is not None


def test_another_content_than_expected_is_refused_and_leaves_nothing(blobs: FolderBlobs, tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match=SHA256):
        store(blobs, CONTENT[:-1], SHA256)
    assert files(tmp_path) == []


def test_an_aborted_blob_leaves_nothing(blobs: FolderBlobs, tmp_path: Path) -> None:
    writer = blobs.writer()
    writer.write(CONTENT)
    writer.abort()
    assert files(tmp_path) == []


def test_what_a_killed_server_left_half_written_is_cleared_at_the_next_start(
    blobs: FolderBlobs, tmp_path: Path
) -> None:
    store(blobs, CONTENT)
    writer = blobs.writer()
    writer.write(b"half")
    assert len(files(tmp_path)) == 2
    again = FolderBlobs(tmp_path / "server" / "blobs")
    assert files(tmp_path) == [f"{SHA256[:2]}/{SHA256[2:]}"]
    assert again.path(SHA256) is not None
    writer.abort()


def test_many_may_write_the_same_blob_at_once(blobs: FolderBlobs, tmp_path: Path) -> None:
    threads = [threading.Thread(target=store, args=(blobs, CONTENT)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    path = blobs.path(SHA256)
    assert path is not None
    assert Path(path).read_bytes() == CONTENT
    assert len(files(tmp_path)) == 1


def test_a_deleted_blob_is_gone_and_may_be_deleted_again(blobs: FolderBlobs, tmp_path: Path) -> None:
    store(blobs, CONTENT)
    blobs.delete(SHA256)
    blobs.delete(SHA256)
    assert blobs.path(SHA256) is None
    assert files(tmp_path) == []


@pytest.mark.parametrize("name", ["", "ab", "../../etc/passwd", "A" * 64, SHA256 + "\n", "ab/" + "c" * 61, "." * 64])
def test_a_name_that_is_no_hash_is_no_blob(blobs: FolderBlobs, name: str) -> None:
    assert blobs.path(name) is None
    blobs.delete(name)


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "blobs").write_text("a file where the folder belongs")
    with pytest.raises(Unavailable, match="blobs"):
        FolderBlobs(tmp_path / "blobs")
