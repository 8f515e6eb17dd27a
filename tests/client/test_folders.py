"""A folder from here to the server: what of it goes, and that only what has changed is read and sent again."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hecaton.client import Client
from hecaton.client.files import seen, sending, snapshot
from hecaton.client.files.snapshot import Snapshot
from hecaton.core.errors import BadRequest, HecatonError, TooLarge
from hecaton.core.files import manifest
from tests.server.running import Running, running


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HECATON_HOME", str(tmp_path / "home"))
    root = tmp_path / "project"
    for path, text in {
        "train.py": "import helper", "lib/helper.py": "x = 1", "lib/__init__.py": "", "tür/ñ.txt": "ü",
        "sub/.gitignore": "*.log\n", "sub/a.log": "", "sub/a.txt": "a", "other.log": "sent",
        ".env": "PASSWORD=1", ".git/config": "", ".ssh/id_ed25519": "key", "deploy.pem": "key",
        "__pycache__/train.pyc": "",
    }.items():  # fmt: skip
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    (root / "empty").mkdir()
    (root / "run.sh").write_text("#!/bin/sh\n")
    (root / "run.sh").chmod(0o755)
    (root / "lib/link.py").symlink_to("helper.py")
    os.mkfifo(root / "pipe")
    return root


def names(found: Snapshot) -> list[str]:
    return sorted(entry.path for entry in found.entries)


def test_code_goes_and_keys_and_what_is_ignored_stay(folder: Path) -> None:
    found = snapshot.snapshot(folder)
    assert names(found) == [
        "empty", "lib/__init__.py", "lib/helper.py", "lib/link.py", "other.log", "run.sh", "sub/.gitignore",
        "sub/a.txt", "train.py", "tür/ñ.txt",
    ]  # fmt: skip
    assert set(found.left) == {".env", ".git/", ".ssh/", "deploy.pem", "__pycache__/", "sub/a.log", "pipe"}
    by_path = {entry.path: entry for entry in found.entries}
    assert (by_path["run.sh"].executable, by_path["train.py"].executable) == (True, False)
    assert (by_path["empty"].kind, by_path["lib/link.py"].target) == ("dir", "helper.py")
    assert names(snapshot.snapshot(folder, exclude=["lib/", "*.txt"])) == [
        "empty", "other.log", "run.sh", "sub/.gitignore", "train.py"
    ]  # fmt: skip


@pytest.mark.parametrize("target", ["/etc/passwd", "../outside", "lib/../../outside"])
def test_a_link_that_leaves_the_folder_is_refused_with_the_way_out(folder: Path, target: str) -> None:
    (folder / "data").symlink_to(target)
    with pytest.raises(BadRequest, match="'data' in the folder is a link") as refused:
        snapshot.snapshot(folder)
    assert ".hecatonignore" in str(refused.value.hint)
    (folder / ".hecatonignore").write_text("/data\n")
    assert "data" in snapshot.snapshot(folder).left


def test_too_much_is_refused_with_the_way_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TooLarge, match="have more than 0 MiB together"):
        snapshot.snapshot(folder, most=10)
    monkeypatch.setattr(snapshot, "MAX_ENTRIES", 5)
    with pytest.raises(TooLarge, match="has more than 5 files") as refused:
        snapshot.snapshot(folder)
    assert ".hecatonignore" in str(refused.value.hint)


def test_twenty_thousand_levels_are_refused(folder: Path) -> None:
    here = os.open(folder, os.O_RDONLY)
    for _ in range(300):
        os.mkdir("deep", dir_fd=here)
        there = os.open("deep", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = there
    os.close(here)
    with pytest.raises(TooLarge, match="lies under more than 64 folders"):
        snapshot.snapshot(folder)


def test_what_has_not_changed_is_not_read_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seen, "SETTLED", -(10**12))  # all of it has been left alone for long
    before = snapshot.snapshot(folder)
    read: list[str] = []
    whole = snapshot._read
    monkeypatch.setattr(snapshot, "_read", lambda path: read.append(path) or whole(path))  # type: ignore[func-returns-value]
    assert snapshot.snapshot(folder) == before
    assert read == []
    (folder / "train.py").write_text("import helper, os")
    assert snapshot.snapshot(folder).manifest != before.manifest
    assert [Path(path).name for path in read] == ["train.py"]


def test_a_file_of_a_moment_ago_is_read_again_though_it_looks_the_same(folder: Path) -> None:
    before = snapshot.snapshot(folder)
    status = (folder / "train.py").stat()
    (folder / "train.py").write_text("import HELPER")
    os.utime(folder / "train.py", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert snapshot.snapshot(folder).manifest != before.manifest


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Running]:
    async with running(tmp_path / "server") as one:
        yield one


async def test_what_arrives_is_the_folder_and_a_change_is_one_file(
    server: Running, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "large").write_bytes(os.urandom(2_000_000))
    sent: list[int] = []
    with Client(server.url, server.admin.token, uploading=lambda name, done, size: sent.append(done)) as client:
        first = await asyncio.to_thread(client.send_folder, folder)
        found = snapshot.snapshot(folder)
        assert (first.files, first.size) == (found.files, found.size)
        blobs = server.server.parts.resources.blobs
        path = blobs.path(first.sha256)
        assert path is not None
        with open(path, "rb") as file:  # noqa: ASYNC230
            kept = manifest.decoded(file.read())
        assert kept.entries == tuple(sorted(found.entries, key=lambda e: e.path))
        sent.clear()
        assert await asyncio.to_thread(client.send_folder, folder) == first
        assert sent == []
        (folder / "train.py").write_text("import helper, os")
        assert (await asyncio.to_thread(client.send_folder, folder)).sha256 != first.sha256
        assert sent == [len("import helper, os")]


async def test_a_file_that_changes_while_it_is_sent_is_refused(server: Running, folder: Path) -> None:
    found = snapshot.snapshot(folder)
    (folder / "train.py").write_text("import helper, os")
    with Client(server.url, server.admin.token) as client:
        with pytest.raises(HecatonError, match=r"train.py has changed while the folder was sent"):
            await asyncio.to_thread(sending.send_snapshot, client._transport, found)
        (folder / "train.py").write_text("import helper")
        (folder / "large").write_bytes(b"a" * 2_000_000)
        found = snapshot.snapshot(folder)
        (folder / "large").write_bytes(b"b" * 2_000_000)
        with pytest.raises(HecatonError, match=r"large has changed while the folder was sent"):
            await asyncio.to_thread(sending.send_snapshot, client._transport, found)
