"""Folders of the machine, seen from inside of the containers that ask for them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hecaton.core.model import Role
from hecaton.testing.cluster import PASSWORD, LocalCluster
from tests.e2e.commands import Person, mount
from tests.e2e.conftest import PYTHON
from tests.small_disk import small_disk

UID = 4711
LOOK = """
import json, os, pathlib
def tried(act):
    try:
        return act()
    except OSError as error:
        return type(error).__name__
data, home = pathlib.Path("/mnt/data"), pathlib.Path("/home/me")
seen = {
    "data": tried(lambda: sorted(os.listdir(data))),
    "word": tried((data / "word").read_text),
    "write": tried(lambda: (data / "new").write_text("x")),
    "apart": tried(lambda: (data / "apart/new").write_text("x")),
    "below": tried(lambda: (data / "below/new").write_text("x")),
    "link": tried((data / "link").read_text),
    "home": tried(lambda: (home / "made").write_text("mine")),
    "uid": [os.getuid(), os.getgid()],
    "scratch": tried(lambda: pathlib.Path(os.environ["HECATON_SCRATCH"], "x").write_text("x")),
    "cache": tried(lambda: pathlib.Path(os.environ["HF_HOME"] + "-" + str(os.getuid())).write_text("x")),
    "others": tried(lambda: sorted(os.listdir(os.environ["HECATON_CACHE"]))),
    "temporary": tried(lambda: sorted(os.listdir("/scratch"))),
}
with open(os.environ["HECATON_OUTPUT"], "w") as output:
    json.dump(seen, output)
"""


@pytest.fixture(scope="module")
def machine(python39_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LocalCluster, Path]]:
    """A worker whose admin has named a folder of data and one for each user."""
    disk = tmp_path_factory.mktemp("disk")
    (disk / "data/below").mkdir(parents=True)
    (disk / "data/word").write_text("here")
    (disk / "secret").write_text("of the host")
    (disk / "data/link").symlink_to(disk / "secret")
    for name, uid in {"ann": UID, "bob": UID + 1, "admin": 0}.items():
        (disk / "home" / name).mkdir(parents=True, mode=0o700)
        os.chown(disk / "home" / name, uid, uid)
    (disk / "home/eve").symlink_to(disk)
    with small_disk(disk / "data/apart"), LocalCluster(disk / "hecaton") as cluster:
        mount(cluster, "box", f"data={disk}/data:ro", f"home={disk}/home/{{user}}:rw")
        cluster.start_worker("box")
        cluster.register(PYTHON)
        for name in ("ann", "bob", "eve"):
            cluster.client().create_user(name, PASSWORD, Role.USER)
        yield cluster, disk


def _user(cluster: LocalCluster, folder: Path, name: str) -> Person:
    person = Person(folder).logs_in(cluster.url, name, PASSWORD)
    person.write("look.py", LOOK)
    return person


def _seen(person: Person, options: str) -> dict[str, Any]:
    done = person.types(f"hecaton job new look.py {PYTHON} --script {options} --wait")
    seen: dict[str, Any] = json.loads(done.out)
    return seen


def test_a_job_sees_what_it_asks_for_and_nothing_else(machine: tuple[LocalCluster, Path], tmp_path: Path) -> None:
    cluster, disk = machine
    ann = _user(cluster, tmp_path, "ann")
    seen = _seen(ann, "--mount data")
    assert (seen["data"], seen["word"]) == (["apart", "below", "link", "word"], "here")
    assert seen["write"] == seen["below"] == seen["apart"] == "OSError", "it is read-only, and what is mounted below"
    assert seen["link"] == "FileNotFoundError", "a link leads to what the container has there"
    assert seen["home"] == "FileNotFoundError"
    assert (seen["scratch"], seen["cache"]) == (1, 1)
    assert seen["uid"] == [0, 0], "who writes nowhere is whoever the image says"
    assert sorted(os.listdir(disk / "data")) == ["apart", "below", "link", "word"]
    assert os.listdir(disk / "data/apart") == []
    again = _seen(ann, "")
    assert again["data"] == "FileNotFoundError"
    assert "huggingface-0" in again["others"], "the cache is there for the next job"
    assert again["temporary"] == ["x"], "and what lies in /scratch is not"
    bob = _user(cluster, tmp_path / "bob", "bob")
    assert _seen(bob, "")["others"] == ["huggingface-0"], "of his own"


def test_who_may_write_does_so_as_whom_an_admin_says(machine: tuple[LocalCluster, Path], tmp_path: Path) -> None:
    cluster, disk = machine
    ann = _user(cluster, tmp_path, "ann")
    order = f"hecaton job new look.py {PYTHON} --script --mount home:/home/me --wait"
    refused = ann.types(order, code=1)
    assert "nobody has said which user ann is on the machines" in refused.err
    assert "hecaton user update ann --uid NUMBER" in refused.err
    admin = Person(tmp_path / "admin").logs_in(cluster.url, "admin", PASSWORD)
    for name, uid in {"ann": UID, "eve": UID + 2}.items():
        said = admin.types(f"hecaton user update {name} --uid {uid}")
        assert f"writes as uid {uid} into mounts" in said.out + said.err
    seen = _seen(ann, "--mount home:/home/me --mount data")
    assert (seen["home"], seen["uid"], seen["scratch"], seen["cache"]) == (4, [UID, UID], 1, 1)
    made = disk / "home/ann/made"
    assert (made.read_text(), made.stat().st_uid, made.stat().st_gid) == ("mine", UID, UID)
    eve = _user(cluster, tmp_path / "eve", "eve")
    assert "what the mount home has for eve on this machine is no folder" in eve.types(order, code=1).err
    assert not (disk / "made").exists()
