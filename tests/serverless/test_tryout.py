"""`python handler.py payload.json` tries a handler where there is no worker."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.serverless.interpreters import REPOSITORY
from tests.serverless.worker_side import PRELUDE


def try_out(python: str, folder: Path, source: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    (folder / "handler.py").write_text(PRELUDE + source, encoding="utf-8")
    command = [python, "handler.py", *arguments]
    return subprocess.run(command, cwd=folder, env={"PYTHONPATH": str(REPOSITORY)}, capture_output=True, check=False)


ECHO = """
def handler(data):
    print("a note")
    os.write(1, b"another\\n")
    return {"kind": type(data.input).__name__, "path": data.path and data.path.name, "job": data.job_id}
start(handler)
"""


@pytest.mark.parametrize(
    ("payload", "kind"),
    [
        (b'{"a": 1}', "dict"),
        (b" [1]\n", "list"),
        (b'"text"', "str"),
        (b"NaN", "str"),
        (b"plain text", "str"),
        (b"", "str"),
        (b"\xff\xfe\x00", "bytes"),
        (b"[" * 100_000, "str"),
    ],
    ids=lambda value: value[:8],
)
def test_the_result_is_all_that_goes_to_stdout(python: str, tmp_path: Path, payload: bytes, kind: str) -> None:
    (tmp_path / "payload").write_bytes(payload)
    done = try_out(python, tmp_path, ECHO, "payload")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"kind": kind, "path": None, "job": "try-out"}
    assert done.stderr == b"a note\nanother\n" or done.stderr == b"another\na note\n"


def test_a_large_payload_has_a_path_as_it_has_with_a_worker(python: str, tmp_path: Path) -> None:
    (tmp_path / "payload").write_bytes(b"x" * 2_000_000)
    done = try_out(python, tmp_path, ECHO, "payload")
    assert json.loads(done.stdout) == {"kind": "str", "path": "payload", "job": "try-out"}


@pytest.mark.parametrize("result", ["b'\\x00\\xff'", "__import__('pathlib').Path('payload')"])
def test_bytes_and_files_go_to_stdout_as_they_are(python: str, tmp_path: Path, result: str) -> None:
    (tmp_path / "payload").write_bytes(b"\x00\xff")
    done = try_out(python, tmp_path, f"start(lambda data: {result})", "payload")
    assert (done.returncode, done.stdout) == (0, b"\x00\xff")


def test_items_and_progress_are_shown_on_stderr(python: str, tmp_path: Path) -> None:
    (tmp_path / "payload").write_text("3")
    source = "def handler(data):\n    progress('go')\n    yield from range(data.input)\nstart(handler)"
    done = try_out(python, tmp_path, source, "payload")
    assert json.loads(done.stdout) == [0, 1, 2]
    assert done.stderr.decode().splitlines() == ['progress: "go"', "item 0: 0", "item 1: 1", "item 2: 2"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("raise ValueError('no good')", "ValueError: no good"),
        ("return {1}", "result_invalid: $: set is not JSON"),
        ("return __import__('pathlib').Path('gone')", "gone, which cannot be read"),
    ],
)
def test_a_handler_that_fails_says_why_and_exits_with_1(python: str, tmp_path: Path, body: str, message: str) -> None:
    (tmp_path / "payload").write_text("{}")
    done = try_out(python, tmp_path, f"def handler(data):\n    {body}\nstart(handler)", "payload")
    assert (done.returncode, done.stdout) == (1, b"")
    assert message in done.stderr.decode()


@pytest.mark.parametrize("arguments", [(), ("no-such-file",), ("a", "b")])
def test_without_a_payload_it_says_how_to_call_it_and_exits_with_2(
    python: str, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    done = try_out(python, tmp_path, ECHO, *arguments)
    assert (done.returncode, done.stdout) == (2, b"")
    lines = done.stderr.decode().splitlines()
    assert len(lines) == 1
    assert "python handler.py payload.json" in lines[0] or "no-such-file" in lines[0]


def test_a_handler_can_be_called_by_a_unit_test_of_the_users(python: str, tmp_path: Path) -> None:
    source = "data = ServerLessInput({'n': 2})\nprogress(1)\nprint(data.input['n'], data.path, data.attempt)"
    done = try_out(python, tmp_path, source)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"2 None 1\n", b"progress: 1\n")
