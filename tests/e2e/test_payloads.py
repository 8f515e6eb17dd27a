"""What a user sends reaches the handler, and what the handler returns comes back: every kind, every size."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path

import pytest

from hecaton.client import Client
from hecaton.core.model import Mode
from hecaton.testing.cluster import LocalCluster
from tests.e2e.commands import Person
from tests.e2e.conftest import PATIENCE, PYTHON

MIB = 1024 * 1024

MIRROR = """
from hecaton.serverless import start

def mirror(data):
    if data.path is not None:
        return data.path
    if isinstance(data.input, (bytes, str)):
        return data.input
    return {"type": type(data.input).__name__, "value": data.input}

start(mirror)
"""


@pytest.fixture
def mirror(person: Person) -> Path:
    return person.write("mirror.py", MIRROR)


@pytest.mark.parametrize(
    ("content", "result"),
    [
        pytest.param(b'{"a": [1, 2.5, null, "\xc3\xa9"]}', {"type": "dict", "value": {"a": [1, 2.5, None, "é"]}}),
        pytest.param(b"12345678901234567890", {"type": "int", "value": 12345678901234567890}),
        pytest.param(b"", ""),
        pytest.param("naïve text, {no JSON\n".encode(), "naïve text, {no JSON\n"),
        pytest.param(b"\x00\xff\xfe binary", b"\x00\xff\xfe binary"),
    ],
    ids=["JSON", "number", "empty", "text", "bytes"],
)
def test_a_payload_file_reaches_the_handler_as_what_it_is(
    admin: Client, person: Person, mirror: Path, content: bytes, result: object
) -> None:
    payload = person.write("payload", content)
    job = admin.submit(PYTHON, payload_file=payload, mode=Mode.HANDLER, file=mirror)
    assert job.result(PATIENCE) == result


def test_bytes_go_into_a_pipe_as_they_are_and_into_a_file(person: Person, mirror: Path) -> None:
    person.write("payload", b"\x00\xff\n\r binary")
    person.types(f"hecaton job new payload {PYTHON} --handler mirror.py --wait > piped")
    person.types(f"hecaton job new payload {PYTHON} --handler mirror.py --wait -o written")
    assert (person.folder / "piped").read_bytes() == (person.folder / "written").read_bytes() == b"\x00\xff\n\r binary"


def test_forty_megabytes_go_both_ways_and_nobody_holds_them_in_memory(
    cluster: LocalCluster, person: Person, mirror: Path
) -> None:
    payload = person.write("large", os.urandom(40 * MIB))
    person.write("small", b"\xff")
    submit = f"hecaton job new {{}} {PYTHON} --handler mirror.py --wait -o returned"
    usual = peak_of(person, submit.format("small"))
    assert cluster.server is not None
    pids = [cluster.server.pid, cluster.workers["gpu-machine"].pid]
    before = [forget_peak(pid) for pid in pids]
    peak = peak_of(person, submit.format("large"))
    assert digest(person.folder / "returned") == digest(payload)
    grown = [memory(pid, "VmHWM") - usage for pid, usage in zip(pids, before, strict=True)]
    assert max(peak - usual, *grown) < 20 * MIB


def test_json_that_is_laid_out_over_many_lines_can_be_waited_for(person: Person, mirror: Path) -> None:
    person.write("pretty.json", json.dumps({"a": {"b": "two\nlines"}}, indent=4))
    done = person.types(f"hecaton job new pretty.json {PYTHON} --handler mirror.py --wait")
    assert json.loads(done.out)["value"] == {"a": {"b": "two\nlines"}}


def test_a_result_that_is_large_json_is_shown_whole(admin: Client, person: Person, mirror: Path) -> None:
    value = {"numbers": list(range(300_000))}
    person.write("large.json", json.dumps(value))
    done = person.types(f"hecaton job new large.json {PYTHON} --handler mirror.py --wait")
    assert json.loads(done.out) == value


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def peak_of(person: Person, line: str) -> int:
    """Bytes of memory that the command needed at most."""
    process = subprocess.Popen(
        ["bash", "-c", f"exec {line}"],
        cwd=person.folder,
        env=person.environment,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, line
    return usage.ru_maxrss * 1024


def forget_peak(pid: int) -> int:
    """Lets the kernel count the peak anew; the memory in use now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return memory(pid, "VmRSS")


def memory(pid: int, field: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) * 1024
