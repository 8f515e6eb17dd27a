"""Files of jobs are brought here: whole, checked, never outside of the folder, over nothing that is somebody else's."""

from __future__ import annotations

import hashlib
import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hecaton.client import BadRequest, Client, HecatonError
from hecaton.client.files.fetching import PART_SUFFIX, matches
from tests.client.scripted import Answer, ScriptedServer, Seen, reply
from tests.client.views import JOB_ID, view

FILES = f"/v1/jobs/{JOB_ID}/files"


def _file(number: int, path: str, content: bytes, **more: Any) -> dict[str, Any]:
    sha256 = hashlib.sha256(content).hexdigest()
    return {"number": number, "path": path, "size": len(content), "sha256": sha256, **more}


class Site:
    """A job whose files the server gives from any byte on. `index` is 7."""

    def __init__(self, server: ScriptedServer, **contents: bytes) -> None:
        self.server = server
        self.names(*contents.items())

    def names(self, *files: tuple[str, bytes], executable: bool = False) -> None:
        listed = [_file(i, path, content, executable=executable) for i, (path, content) in enumerate(files)]
        for known in ("7", JOB_ID):
            self.server.on("GET", f"/v1/jobs/{known}", reply(view()))
            self.server.on("GET", f"/v1/jobs/{known}/files", reply({"attempt": 1, "files": listed}))
        for i, (_, content) in enumerate(files):
            self.server.on("GET", f"/v1/jobs/7/files/{i}", partial(self.gives, content))

    @staticmethod
    def gives(content: bytes, seen: Seen, cut: int | None = None) -> Answer:
        return Answer(200, content[int(seen.query.get("offset", 0)) :], cut=cut)

    def offsets(self, number: int = 0) -> list[int]:
        return [int(seen.query.get("offset", 0)) for seen in self.server.asked("GET", f"/v1/jobs/7/files/{number}")]


def test_they_come_with_their_folders_and_bits_and_are_known_the_second_time(
    server: ScriptedServer, client: Client, tmp_path: Path
) -> None:
    site = Site(server)
    site.names(("plots/a.png", b"png"), ("run.sh", b"#!/bin/sh"), executable=True)
    assert [(one.path, one.written) for one in client.get(JOB_ID, tmp_path)] == [
        ("plots/a.png", "new"),
        ("run.sh", "new"),
    ]
    assert (tmp_path / "plots/a.png").read_bytes() == b"png"
    assert os.access(tmp_path / "run.sh", os.X_OK)
    assert {one.written for one in client.get(JOB_ID, tmp_path)} == {"same"}
    assert site.offsets() == [0]


def test_a_download_that_is_cut_again_and_again_goes_on_where_it_was(
    server: ScriptedServer, client: Client, tmp_path: Path
) -> None:
    content = os.urandom(3_000_000)
    site = Site(server, big=content)
    server.on("GET", "/v1/jobs/7/files/0", partial(site.gives, content, cut=1_000_000))
    [one] = client.get(JOB_ID, tmp_path)
    assert one.where.read_bytes() == content
    tried = site.offsets()
    assert tried[0] == 0
    assert tried[-1] >= 1_900_000, "what was here is not asked for again"
    assert [path.name for path in tmp_path.iterdir()] == ["big"]


def test_what_an_earlier_call_has_left_is_gone_on_with_unless_it_is_something_else(
    server: ScriptedServer, client: Client, tmp_path: Path
) -> None:
    content = b"first half, second half"
    part = tmp_path / f".{hashlib.sha256(content).hexdigest()[:16]}{PART_SUFFIX}"
    site = Site(server, model=content)
    part.write_bytes(content[:11])
    assert client.get(JOB_ID, tmp_path)[0].where.read_bytes() == content
    assert site.offsets() == [11]
    (tmp_path / "model").unlink()
    part.write_bytes(b"other stuff")
    assert client.get(JOB_ID, tmp_path)[0].where.read_bytes() == content
    assert site.offsets() == [11, 11, 0]


def test_what_arrives_damaged_is_not_put_in_place(server: ScriptedServer, client: Client, tmp_path: Path) -> None:
    Site(server, model=b"as it was made")
    server.on("GET", "/v1/jobs/7/files/0", Answer(200, b"as it was not!"))
    with pytest.raises(HecatonError, match="SHA-256 is another one"):
        client.get(JOB_ID, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_differs_stays_and_what_comes_is_written_beside(
    server: ScriptedServer, client: Client, tmp_path: Path
) -> None:
    (tmp_path / "model.pt").write_bytes(b"mine")
    Site(server).names(("model.pt", b"from the job"))
    [one] = client.get(JOB_ID, tmp_path)
    assert (one.written, one.where) == ("beside", tmp_path / "model.job7.pt")
    assert (tmp_path / "model.pt").read_bytes() == b"mine"
    assert one.where.read_bytes() == b"from the job"
    [again] = client.get(JOB_ID, tmp_path, overwrite=True)
    assert (again.written, again.where.read_bytes()) == ("replaced", b"from the job")


def test_what_is_beside_stays_too(server: ScriptedServer, client: Client, tmp_path: Path) -> None:
    """Of another attempt, or a file of the job that is called so itself."""
    for name in ("model.pt", "model.job7.pt"):
        (tmp_path / name).write_bytes(name.encode())
    Site(server).names(("model.pt", b"from the job"))
    beside = tmp_path / "model.job7-2.pt"
    assert [(one.written, one.where) for one in client.get(JOB_ID, tmp_path)] == [("beside", beside)]
    assert (tmp_path / "model.job7.pt").read_bytes() == b"model.job7.pt"
    assert [(one.written, one.where) for one in client.get(JOB_ID, tmp_path)] == [("same", beside)]


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x", "a//x", "", "x\0"])
def test_a_server_names_nothing_outside_of_the_folder(
    server: ScriptedServer, client: Client, tmp_path: Path, path: str
) -> None:
    Site(server).names((path, b"hostile"))
    with pytest.raises(BadRequest, match="is not fetched: its name"):
        client.get(JOB_ID, tmp_path / "in")
    assert not (tmp_path / "x").exists()


def test_nothing_is_written_behind_a_link(server: ScriptedServer, client: Client, tmp_path: Path) -> None:
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "in"
    for made in (elsewhere, folder):
        made.mkdir()
    (folder / "plots").symlink_to(elsewhere)
    (folder / "model").symlink_to(elsewhere / "model")
    Site(server).names(("model", b"m"), ("plots/a.png", b"png"))
    with pytest.raises(BadRequest, match="is a link: nothing is written behind it"):
        client.get(JOB_ID, folder)
    assert list(elsewhere.iterdir()) == []
    assert (folder / "model.job7").read_bytes() == b"m"


def test_a_pattern_is_of_a_name_of_its_last_part_or_of_a_folder() -> None:
    assert matches("plots/a.png", "*.png")
    assert matches("plots/a.png", "plots")
    assert matches("plots/a.png", "./plots/")
    assert matches("plots/a.png", "plots/*.png")
    assert not matches("plots/a.png", "a")
    assert not matches("plotsa.png", "plots")


def test_all_pages_are_of_the_same_attempt(server: ScriptedServer, client: Client) -> None:
    first = {"attempt": 3, "files": [_file(0, "a", b"a")], "next": 1}
    server.on("GET", FILES, reply(first), reply({"attempt": 3, "files": [_file(1, "b", b"b")]}))
    assert [file.path for file in client.files(JOB_ID)] == ["a", "b"]
    assert [seen.query for seen in server.asked("GET", FILES)] == [{}, {"attempt": "3", "after": "1"}]
