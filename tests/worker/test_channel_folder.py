"""Files that cross the border to a container: only plain ones, only from the right folder, never too much."""

from __future__ import annotations

import os
import resource
import socket
from pathlib import Path

import pytest

from hecaton.serverless.protocol import TURNS_NAME
from hecaton.worker.doors.channel_folder import LAYOUT, ChannelFolder, NotAPlainFile, Spoilt
from hecaton.worker.doors.removal import remove
from hecaton.worker.doors.turns import Turns
from hecaton.worker.memory.spool import Spool, TooLong
from tests.worker.brain import ref


@pytest.fixture
def folder(tmp_path: Path) -> ChannelFolder:
    return ChannelFolder(tmp_path / "c-1")


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """A file of the host that must never leave it."""
    path = tmp_path / "canary"
    path.write_text("secret of the host")
    return path


def test_every_user_of_the_image_can_use_it_whatever_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        folder = ChannelFolder(tmp_path / "c-1")
        folder.put("payload", _file(tmp_path / "p"))
    finally:
        os.umask(old)
    modes = {name: (folder.path / name).stat().st_mode & 0o7777 for name in (".", "in", "out", "log", "in/payload")}
    assert modes == {".": 0o755, "in": 0o755, "out": 0o1777, "log": 0o666, "in/payload": 0o644}


def _file(path: Path, data: bytes = b"data") -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("move", [True, False])
def test_a_payload_appears_in_the_folder_of_the_container(folder: ChannelFolder, tmp_path: Path, move: bool) -> None:
    source = _file(tmp_path / "p")
    folder.put("payload", source, move=move)
    assert (folder.path / "in" / "payload").read_bytes() == b"data"
    assert source.exists() is not move


def test_a_payload_follows_no_link_that_the_container_made(folder: ChannelFolder, tmp_path: Path, canary: Path) -> None:
    (folder.path / "in" / "payload").symlink_to(canary)
    with pytest.raises(Spoilt, match="exist"):
        folder.put("payload", _file(tmp_path / "p"))
    folder.put("payload", _file(tmp_path / "p"), move=True)
    (folder.path / "in").rename(folder.path / "old")
    (folder.path / "in").symlink_to(tmp_path)
    folder.put("other", _file(tmp_path / "p"))
    assert not (tmp_path / "other").exists()
    assert canary.read_text() == "secret of the host"


@pytest.mark.parametrize("name", ["", ".", "..", "../canary", "a/b", "/etc/passwd", "x\0y", "missing"])
def test_a_result_is_never_looked_for_elsewhere(folder: ChannelFolder, canary: Path, name: str) -> None:
    with pytest.raises(NotAPlainFile):
        folder.open_result(name)


@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "socket"])
def test_what_is_no_plain_file_is_no_result(
    folder: ChannelFolder, canary: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder.path / "out" / "r"
    if kind == "link":
        path.symlink_to(canary)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        monkeypatch.chdir(path.parent)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("r")
    with pytest.raises(NotAPlainFile):
        folder.open_result("r")
    assert folder.has_result("r")
    folder.discard("r")


def test_a_result_over_the_limit_is_not_read_to_its_end(folder: ChannelFolder, tmp_path: Path) -> None:
    spool = Spool(tmp_path / "state")
    with (folder.path / "out" / "r").open("wb") as file:
        file.truncate(1 << 40)  # a terabyte of nothing
    fd = folder.open_result("r")
    try:
        with pytest.raises(TooLong):
            spool.keep_file(ref("a"), fd, 3_000_000)
    finally:
        os.close(fd)
    assert list((tmp_path / "state" / "results").iterdir()) == []


def test_a_job_id_never_leads_out_of_the_spool(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "state")
    path = spool.payload(ref("../../etc/passwd"))
    assert path.parent == tmp_path / "state" / "payloads"


@pytest.mark.parametrize("made", range(1, LAYOUT + 1))
def test_a_folder_of_the_release_before_is_opened_as_often_as_needed(tmp_path: Path, made: int) -> None:
    ChannelFolder(tmp_path / "c-1").close()
    if made < 2:
        (tmp_path / "c-1" / TURNS_NAME).unlink()
    for _ in range(2):
        folder = ChannelFolder(tmp_path / "c-1", made=made)
        assert Turns(folder.turns_fd).withdraw() == ()
        folder.close()


def test_a_folder_of_today_without_its_pipe_was_spoilt(folder: ChannelFolder) -> None:
    (folder.path / TURNS_NAME).unlink()
    with pytest.raises(Spoilt, match="No such file"):
        ChannelFolder(folder.path, made=LAYOUT)


@pytest.mark.parametrize("move", [True, False])
def test_a_container_that_has_removed_what_is_the_workers_has_spoilt_its_folder(
    folder: ChannelFolder, tmp_path: Path, move: bool
) -> None:
    (folder.path / "in").rmdir()
    with pytest.raises(Spoilt, match="only log and out/"):
        folder.put("payload", _file(tmp_path / "p"), move=move)


@pytest.mark.parametrize("name", ["in", "out", "log"])
def test_an_earlier_worker_s_folder_of_which_something_is_gone_was_spoilt(folder: ChannelFolder, name: str) -> None:
    path = folder.path / name
    path.rename(folder.path / "old")
    path.symlink_to("/etc")
    with pytest.raises(Spoilt):
        ChannelFolder(folder.path, made=LAYOUT)


def test_a_disk_without_room_or_a_worker_without_descriptors_is_no_fault_of_a_container(
    folder: ChannelFolder,
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            folder.put_program("job.sh", b"true")
        with pytest.raises(OSError, match="Too many open files"):
            folder.open_result("r")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_removal_follows_no_link(folder: ChannelFolder, canary: Path, tmp_path: Path) -> None:
    (folder.path / "out" / "l").symlink_to(tmp_path)
    folder.close()
    assert remove(folder.path) is None
    assert not folder.path.exists()
    assert canary.exists()
