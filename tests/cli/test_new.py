"""`hecaton job new`: what is typed wrongly, and what will not go well, is said before anything is sent."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from hecaton.core.model import Role
from tests.cli.conftest import HECATON, Ended, Invoke
from tests.cli.screen import Terminal
from tests.cli.test_jobs import SUBMITTED
from tests.cli.views import JOB_ID, image
from tests.client.scripted import Answer, ScriptedServer, Seen, error, reply


class Uploads:
    """Takes every upload, and every job."""

    def __init__(self, server: ScriptedServer) -> None:
        self._take, self.server = server.take, server

    def __call__(self, seen: Seen) -> Answer:
        if seen.path.startswith("/v1/folders/"):
            self.server.seen.append(seen)
            return reply({"sha256": seen.path.rpartition("/")[2], "missing": []})
        if seen.path.startswith("/v1/blobs/"):
            return Answer(200 if seen.method == "HEAD" else 201)
        return self._take(seen)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def takes(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> ScriptedServer:
    monkeypatch.setattr(server, "take", Uploads(server))
    server.on("POST", "/v1/jobs", SUBMITTED)
    server.on("POST", "/v1/batches", reply({"id": JOB_ID, "index": 3, "size": 2, "closed": True}, 201))
    return server


def _asked(server: ScriptedServer) -> Any:
    return server.posted.json()


def _refused(ended: Ended, server: ScriptedServer, first: str, second: str) -> None:
    assert (ended.code, ended.out) == (2, "")
    lines = ended.err.splitlines()
    assert first in lines[0]
    assert lines[1] == second
    assert server.seen == []


def test_options_of_a_script_without_their_dashes(invoke: Invoke, server: ScriptedServer) -> None:
    meant = "You may mean: hecaton job new train.py python:3.9-slim --script -- --epochs 3"
    for typed in (
        ["train.py", "python:3.9-slim", "--script", "--epochs", "3"],
        ["train.py", "python:3.9-slim", "--epochs", "3", "--script"],
        ["train.py", "python:3.9-slim", "--epochs", "3"],
    ):
        _refused(invoke("job", "new", *typed), server, "'--epochs'", meant)
    _refused(
        invoke("job", "new", "train.py", "img", "--script", "--wait", "--lr=0.1", "-x"),
        server, "'--lr", "You may mean: hecaton job new train.py img --script --wait -- --lr=0.1 -x",
    )  # fmt: skip
    assert "You may mean" not in invoke("job", "new", "payload.json", "img", "--epochs", "3").err


def test_a_pattern_without_quotes(invoke: Invoke, server: ScriptedServer, here: Path) -> None:
    (here / "g").mkdir()
    for name in ("a.json", "b.json", "c.json"):
        (here / "g" / name).write_text("1")
    meant = "You may mean: hecaton job new --each 'g/*.json' IMAGE"
    three, two = ["g/a.json", "g/b.json", "g/c.json"], ["g/a.json", "g/b.json"]
    _refused(invoke("job", "new", "--each", *three, "img"), server, "has to be quoted", meant)
    _refused(invoke("job", "new", "--each", *two, "img"), server, "has to be quoted", meant)
    _refused(invoke("job", "new", *three, "img"), server, "has to be quoted", meant)


def test_image_and_file_the_other_way_round(invoke: Invoke, server: ScriptedServer, here: Path) -> None:
    (here / "p.json").write_text("1")
    meant = "You may mean: hecaton job new p.json python:3.9-slim"
    _refused(invoke("job", "new", "python:3.9-slim", "p.json"), server, "there is no file python:3.9-slim", meant)


@pytest.mark.parametrize("target", ["no/such/folder/x.json", ".", "file/x"])
def test_where_the_result_goes_is_looked_at_first(
    invoke: Invoke, takes: ScriptedServer, here: Path, target: str
) -> None:
    (here / "p.json").write_text("1")
    (here / "file").write_text("")
    for arguments in (["p.json", "img"], ["--each", "p.json", "img"]):
        ended = invoke("job", "new", *arguments, "--wait", "-o", target)
        assert (ended.code, "cannot write" in ended.err) == (2, True)
    for arguments in (["job", "wait", "12"], ["batch", "results", "3"]):
        assert invoke(*arguments, "-o", target).code == 2
    assert takes.seen == []


def test_a_file_that_belongs_to_another_batch_is_found_out_before_one_is_submitted(
    invoke: Invoke, takes: ScriptedServer, here: Path
) -> None:
    (here / "p.jsonl").write_text("1\n2\n")
    (here / "notes.txt").write_text("mine\n")
    ended = invoke("job", "new", "--each", "p.jsonl", "img", "--wait", "-o", "notes.txt")
    assert ended.code == 7
    assert "notes.txt" in ended.err
    assert takes.seen == []
    assert (here / "notes.txt").read_text() == "mine\n"


def _with_stdin(data: bytes, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([str(HECATON), *arguments], input=data, capture_output=True, timeout=60, check=False)


def test_a_dash_is_stdin(takes: ScriptedServer, here: Path) -> None:
    assert _with_stdin(b'{"n": 1}', "job", "new", "-", "img").returncode == 0
    assert _asked(takes)["input"] == {"n": 1}
    assert _with_stdin(b"1\n2\n", "job", "new", "--each", "-", "img").returncode == 0
    assert [item["input"] for item in _asked(takes)["items"]] == [1, 2]
    with open("p.json", "w+") as file:
        file.write("[7]")
        file.flush()
        file.seek(0)
        subprocess.run([str(HECATON), "job", "new", "-", "img"], stdin=file, check=True, capture_output=True)
    assert _asked(takes)["input"] == [7]


def test_a_dash_is_stdout(invoke: Invoke, server: ScriptedServer, here: Path) -> None:
    from tests.cli.test_jobs import ends_as
    from tests.cli.views import finished

    ends_as(server, finished({"answer": 42}))
    assert invoke("job", "wait", "12", "-o", "-").out == invoke("job", "wait", "12").out != ""
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    "text",
    [
        b'\xef\xbb\xbf{"n":1}\n{"n":2}\n',
        b'[\n  {"n": 1},\n  {"n": 2}\n]\n',
        b'\xef\xbb\xbf[{"n": 1},\r\n{"n": 2}]',
    ],
    ids=["byte order mark", "indented array", "array over two lines"],
)
def test_lines_are_read_as_programs_write_them(invoke: Invoke, takes: ScriptedServer, here: Path, text: bytes) -> None:
    (here / "p.jsonl").write_bytes(text)
    assert invoke("job", "new", "--each", "p.jsonl", "img").code == 0
    assert [item["input"] for item in _asked(takes)["items"]] == [{"n": 1}, {"n": 2}]


@pytest.mark.parametrize(
    ("text", "place", "hint"),
    [
        (b'{"n":1}\n{"n":2},\n', "line 2, column 8", "No comma ends a line."),
        (b'[\n  {"n": 1},\n  {"n": 2,}\n]\n', "line 3, column", "an array over several lines"),
        (b'{"n":1}\n{"n":NaN}\n', "line 2, column 6", "One JSON value per line."),
        (b'{"n":1}\n"\xff"\n', "line 2, column 2", "One JSON value per line."),
    ],
)
def test_lines_that_are_none_are_refused_with_line_and_column(
    invoke: Invoke, server: ScriptedServer, here: Path, text: bytes, place: str, hint: str
) -> None:
    (here / "p.jsonl").write_bytes(text)
    ended = invoke("job", "new", "--each", "p.jsonl", "img")
    assert ended.code == 2
    assert f"p.jsonl, {place}" in ended.err
    assert ended.err.splitlines()[1].startswith(hint)
    assert server.seen == []


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('{"n": 1,\n "lr": 0.1,}', "line 2, column"),
        ('{"lr": NaN}', "line 1, column 8: NaN is no JSON"),
        ("{'n': 1}", "line 1, column 2"),
        ('{"n": 1}\n{"n": 2}\n', "line 2, column 1: Extra data"),
    ],
)
def test_a_json_file_that_is_none_is_sent_with_a_warning(
    invoke: Invoke, takes: ScriptedServer, here: Path, text: str, place: str
) -> None:
    (here / "p.json").write_text(text)
    ended = invoke("job", "new", "p.json", "img")
    assert (ended.code, ended.out) == (0, JOB_ID + "\n")
    assert f"Warning: p.json is not JSON ({place}" in ended.err
    assert _asked(takes)["text"] == text


WITH_START = "from hecaton.serverless import start\n\nif __name__ == '__main__':\n    start(print)\n"


@pytest.mark.parametrize(
    ("files", "typed", "warned"),
    [
        ({"t.py": "import helper, json\n", "helper.py": ""}, "t.py img --script", "helper from beside it"),
        ({"t.py": "from lib import f\n", "lib/__init__.py": ""}, "t.py img --script", "lib from beside it"),
        ({"t.py": "import tqdm\n"}, "t.py python:3.9-slim --script", "imports tqdm: python:3.9-slim"),
        ({"t.py": ""}, "t.py img --script", "t.py is empty: nothing runs"),
        ({"p.json": ""}, "p.json img", "p.json is empty: the job gets an empty text"),
        ({"t.py": "print(1)"}, "t.py img", "travels as payload, not as a program. To run it: --script"),
        ({"p.json": "1", "h.py": "print(1)"}, "p.json img --handler h.py", "a handler has to call it"),
        ({"p.json": "1", "h.py": WITH_START}, "p.json img --handler h.py", ""),
        ({"t.py": "import os, numpy\n"}, "t.py my/image --script", ""),
        (
            {"t.py": "try:\n    import helper\nexcept ImportError:\n    pass\n", "helper.py": ""},
            "t.py img --script",
            "",
        ),
    ],
)
def test_what_will_not_go_well_is_said_at_submission(
    invoke: Invoke, takes: ScriptedServer, here: Path, files: dict[str, str], typed: str, warned: str
) -> None:
    for name, text in files.items():
        (here / name).parent.mkdir(exist_ok=True)
        (here / name).write_text(text)
    ended = invoke("job", "new", *typed.split())
    assert ended.code == 0, ended.err
    assert warned in ended.err if warned else ended.err == ""


@pytest.mark.parametrize("text", [WITH_START, "import hecaton.serverless as s\ns.start(print)\n"])
def test_a_script_that_is_a_handler_is_refused_with_the_line_that_runs_it(
    invoke: Invoke, server: ScriptedServer, here: Path, text: str
) -> None:
    (here / "h.py").write_text(text)
    ended = invoke("job", "new", "h.py", "img", "--script")
    assert ended.code == 2
    assert "h.py calls start()" in ended.err
    assert "--handler h.py" in ended.err
    assert server.seen == []


def _info(role: Role = Role.USER, mib: int = 256) -> Answer:
    return reply({"version": "2", "username": "ann", "role": role, "max_payload": mib << 20, "max_result": 1})


def test_a_file_over_the_limit_is_refused_before_its_first_byte_travels(
    invoke: Invoke, server: ScriptedServer, here: Path
) -> None:
    server.on("GET", "/v1/server", _info(mib=10))
    with open("big.bin", "wb") as file:
        file.truncate(12 << 20)
    ended = invoke("job", "new", "big.bin", "img")
    assert (ended.code, ended.err) == (
        7,
        "Error: big.bin has 12.0 MiB: this server takes payloads of at most 10 MiB\n"
        "hecaton-server --max-payload MIB raises the limit.\n",
    )
    assert [seen.path for seen in server.seen] == ["/v1/server"]


def test_a_long_upload_shows_how_far_it_is(takes: ScriptedServer, here: Path) -> None:
    takes.on("GET", "/v1/server", _info())
    with open("big.bin", "wb") as file:
        file.truncate(64 << 20)

    def missing(seen: Seen) -> Answer:
        if seen.path == "/v1/server":
            return _info()
        return SUBMITTED if seen.method == "POST" else Answer(404 if seen.method == "HEAD" else 201)

    takes.take = missing  # type: ignore[method-assign]
    with Terminal([str(HECATON), "job", "new", "big.bin", "img"]) as terminal:
        terminal.until(r"uploading big\.bin: \d+% of 64\.0 MiB")
        terminal.until(JOB_ID)
        assert terminal.end() == 0


def test_an_image_that_is_nearly_there(invoke: Invoke, takes: ScriptedServer, here: Path) -> None:
    (here / "p.json").write_text("1")
    takes.on("POST", "/v1/jobs", error(404, "not_found", "there is no image n1-imag"))
    takes.on("GET", "/v1/images", reply([image("n1-image")]))
    assert "Did you mean 'n1-image'?" in invoke("job", "new", "p.json", "n1-imag").err


def test_an_image_that_is_new_and_nearly_another_is_wondered_at(
    invoke: Invoke, takes: ScriptedServer, here: Path
) -> None:
    """It is taken: any image may be used. Not where it was there before, is registered, or nothing is like it."""
    (here / "p.json").write_text("1")
    now = time.time()
    wondered = "Warning: n1-imag is used here for the first time. Did you mean 'n1-image'?\n"
    for name, owner, age, said in (
        ("n1-imag", "ann", 1.0, wondered),
        ("n1-imag", "ann", 99.0, ""),
        ("n1-imag", None, 1.0, ""),
        ("x", "ann", 1.0, ""),
    ):
        takes.on("GET", "/v1/images", reply([image("n1-image"), image(name, owner=owner, created_at=now - age)]))
        ended = invoke("job", "new", "p.json", name)
        assert (ended.code, ended.out, ended.err) == (0, JOB_ID + "\n", said)
    takes.on("POST", "/v1/jobs", error(404, "not_found", "image 'xyz' is not registered", "Register it: hecaton"))
    assert invoke("job", "new", "p.json", "xyz").err.splitlines()[1] == "Register it: hecaton"


def test_python_that_this_python_cannot_read_is_not_judged(invoke: Invoke, takes: ScriptedServer, here: Path) -> None:
    (here / "t.py").write_text("print 'two'\n")
    ended = invoke("job", "new", "t.py", "img", "--script")
    assert (ended.code, ended.err) == (0, "")
    assert sys.version_info >= (3,)
