"""The folders of a machine that jobs may ask for: what its file says, and what a job gets of it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from hecaton.core.errors import BadRequest, NotFound
from hecaton.worker.doors.removal import remove
from hecaton.worker.files import caches
from hecaton.worker.files.mounts import Mount, binds, file_of, parsed, read, without, write
from hecaton.worker.runtimes.port import Bind, RuntimeFault
from tests.cli.test_gpu import hecaton_gpu


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("data", "names no folder"),
        ("Data=/srv:ro", "not a name for a mount"),
        ("../x=/srv:ro", "not a name for a mount"),
        ("data=/srv", "not said whether jobs may write"),
        ("data=/srv:rx", "not said whether jobs may write"),
        ("data=srv:ro", "not the absolute path"),
        ("data=/:ro", "not the absolute path"),
        ("data=/srv/../etc:ro", "not the absolute path"),
        ("home=/nfs/{user}/data:rw", "only the whole last part"),
        ("home=/nfs/x{user}:rw", "only the whole last part"),
        ("home=/nfs/{name}:rw", "only the whole last part"),
    ],
)
def test_what_is_no_mount_is_refused_in_words(word: str, says: str) -> None:
    with pytest.raises(BadRequest, match=says) as caught:
        parsed(word)
    assert caught.value.hint


def test_the_file_keeps_what_else_it_says(tmp_path: Path) -> None:
    file = tmp_path / "etc/worker.toml"
    assert read(file) == {}
    mounts = dict(map(parsed, ("data=/srv/my data:ro", 'home=/nfs/"x"/{user}:rw')))
    write(file, mounts)
    assert read(file) == mounts
    file.write_text("# ours\nother = 1\n" + file.read_text() + "\n[later]\nx = 2\n")
    write(file, without(mounts, ("home",)))
    assert read(file) == {"data": Mount("/srv/my data", False)}
    assert "# ours\nother = 1" in file.read_text()
    assert "[later]\nx = 2" in file.read_text()
    with pytest.raises(NotFound, match="no mount 'home'"):
        without(read(file), ("home",))
    file.write_text("[mounts]\nhome = 3\n")
    with pytest.raises(BadRequest, match=r'lines like data = "/srv/data:ro"'):
        read(file)


def test_services_have_one_file_and_other_workers_their_own(tmp_path: Path) -> None:
    assert file_of(Path("/var/lib/hecaton/worker/box")) == Path("/etc/hecaton/worker.toml")
    assert file_of(tmp_path / "worker/box") == tmp_path / "worker/box/worker.toml"


def test_somebodys_own_folder_is_his_and_no_link(tmp_path: Path) -> None:
    mounts = {"home": Mount(f"{tmp_path}/{{user}}", True), "data": Mount(str(tmp_path), False)}
    (tmp_path / "ann").mkdir()
    (tmp_path / "eve").symlink_to("/etc")
    (tmp_path / "file").touch()
    asked = {"home": "/home/me", "data": "/mnt/data"}
    assert binds(mounts, asked, "ann", 1017) == (
        Bind(f"{tmp_path}/ann", "/home/me", False),
        Bind(str(tmp_path), "/mnt/data", True),
    )
    for owner, says in {"eve": "is no folder", "file": "is no folder", "bob": "has no folder for bob"}.items():
        with pytest.raises(RuntimeFault, match=says):
            binds(mounts, asked, owner, 1017)
    for owner in ("..", ".", "", "ann/../..", "-x", "jörg"):
        with pytest.raises(RuntimeFault, match="no folder for a user of this name"):
            binds(mounts, asked, owner, 1017)


def test_who_may_write_is_said_by_an_admin(tmp_path: Path) -> None:
    mounts = {"home": Mount(str(tmp_path), True)}
    with pytest.raises(RuntimeFault, match="nobody has said which user ann is") as caught:
        binds(mounts, {"home": "/mnt/home"}, "ann", None)
    assert "hecaton user update ann --uid NUMBER" in str(caught.value.hint)


def test_a_folder_that_is_gone_is_the_machines_fault(tmp_path: Path) -> None:
    with pytest.raises(RuntimeFault, match="is not there on this machine now") as caught:
        binds({"data": Mount(f"{tmp_path}/gone", False)}, {"data": "/mnt/data"}, "ann", None)
    assert caught.value.reason == "worker_error"


def test_of_caches_what_was_used_least_recently_goes(tmp_path: Path) -> None:
    now = time.time()
    for name, age in {"ann/old": 9.0, "ann/new": 0.0, "bob/older": 99.0, "bob/oldest": 999.0}.items():
        folder = tmp_path / name / "deep"
        folder.mkdir(parents=True)
        (folder / "model").write_bytes(b"x" * 8192)
        (folder / "link").symlink_to("/etc")
        for path in (folder / "model", folder / "link", folder, folder.parent):
            os.utime(path, (now - age * caches.REST,) * 2, follow_symlinks=False)
    deep = os.open(tmp_path / "ann/new", os.O_RDONLY)
    for _ in range(3000):  # deeper than any stack, and longer than any path
        os.mkdir("d", dir_fd=deep)
        deep, above = os.open("d", os.O_RDONLY, dir_fd=deep), deep
        os.close(above)
    os.close(deep)
    assert caches.excess(tmp_path, now, budget=1 << 30) == [], "there is room for all"
    total = sum(status.st_blocks * 512 for owner in ("ann", "bob") for folder in (tmp_path / owner).iterdir()
                for status in caches._walk(folder))  # fmt: skip
    assert caches.excess(tmp_path, now, budget=total) == []
    assert caches.excess(tmp_path, now, budget=total - 1) == [tmp_path / "bob/oldest"]
    assert set(caches.excess(tmp_path, now, budget=0)) == {tmp_path / n for n in ("ann/old", "bob/older", "bob/oldest")}
    assert remove(tmp_path / "ann") is None


def test_mounts_are_named_listed_and_taken_back(tmp_path: Path) -> None:
    def types(*words: str) -> tuple[int, str, str]:
        return hecaton_gpu("mount", "--name", "box", *words, HECATON_HOME=str(tmp_path))

    code, out, err = types()
    assert (code, "Jobs may ask for no folder" in err) == (0, True), out
    code, out, err = types("data=/srv/data:ro", "home=/nfs/home/{user}:rw")
    assert code == 0, err
    assert "It holds when the worker has started anew" in err
    code, out, err = types()
    assert [line.split() for line in out.splitlines()[-2:]] == [
        ["data", "/srv/data", "read"],
        ["home", "/nfs/home/{user}", "write"],
    ]
    code, out, err = types("--remove", "data", "--json")
    assert (code, out) == (0, '{\n  "home": "/nfs/home/{user}:rw"\n}\n'), err
    code, out, err = types("--remove", "data")
    assert (code, "no mount 'data'" in err, "It has: home" in err) == (6, True, True)
