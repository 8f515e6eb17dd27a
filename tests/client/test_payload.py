"""The payload rule: JSON is that value, other UTF-8 is text, anything else bytes; files of any size, memory flat."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hecaton.client.payload import bytes_source, encode, kind_of, open_source, without_bom
from hecaton.core.errors import BadRequest
from hecaton.core.model import Kind

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(json_values)
def test_whatever_json_says_is_json(value: Any) -> None:
    assert kind_of(encode(value)) is Kind.JSON
    assert json.loads(encode(value)) == value


@given(st.binary())
def test_any_bytes_have_one_kind_that_reads_them(data: bytes) -> None:
    kind = kind_of(data)
    if kind is Kind.JSON:
        json.loads(data)
    elif kind is Kind.TEXT:
        data.decode()
    else:
        with pytest.raises(UnicodeDecodeError):
            data.decode()


@given(st.binary() | json_values.map(encode), st.booleans())
def test_a_file_has_the_kind_of_its_bytes(data: bytes, marked: bool) -> None:
    data = b"\xef\xbb\xbf" + data if marked else data
    with bytes_source(data) as source:
        kind = source.kind()
        assert source.read() == without_bom(data)
        assert source.size == len(without_bom(data))
        assert source.sha256() == hashlib.sha256(without_bom(data)).hexdigest()
    assert kind is kind_of(without_bom(data))


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"null", Kind.JSON),
        (b' {"a": [1, 2.5e3, "\\u00e9"]}\n', Kind.JSON),
        (b'"text"', Kind.JSON),
        (b"", Kind.TEXT),
        (b" \n", Kind.TEXT),
        (b"hello", Kind.TEXT),
        (b"print('x')\n", Kind.TEXT),
        (b"{'a': 1}", Kind.TEXT),
        (b"[1, 2,]", Kind.TEXT),
        (b"{} {}", Kind.TEXT),
        (b"NaN", Kind.TEXT),
        (b'{"a": NaN}', Kind.TEXT),
        (b"[Infinity]", Kind.TEXT),
        (b"[" * 100_000, Kind.TEXT),
        (b"[" * 100_000 + b"]" * 100_000, Kind.TEXT),
        (b"\x00", Kind.TEXT),
        (b'"\xff"', Kind.BYTES),
        (b"\x89PNG\r\n", Kind.BYTES),
        ("é".encode()[:1], Kind.BYTES),
        (b"\xed\xa0\x80", Kind.BYTES),
    ],
)
def test_the_rule_by_example(data: bytes, kind: Kind) -> None:
    assert kind_of(data) is kind


def test_a_character_on_the_border_of_two_pieces_is_no_fault() -> None:
    for shift in range(4):
        assert kind_of(b"x" * (256 * 1024 - shift) + "é€😀".encode() * 3) is Kind.TEXT


def test_a_byte_order_mark_before_json_is_dropped_and_before_text_kept() -> None:
    assert without_bom(b"\xef\xbb\xbf[1]") == b"[1]"
    assert without_bom(b"\xef\xbb\xbfhello") == b"\xef\xbb\xbfhello"


@pytest.mark.parametrize("value", [float("nan"), {"a": float("inf")}, b"bytes", {1, 2}, object(), "\ud800"])
def test_values_that_json_cannot_say_are_refused(value: object) -> None:
    with pytest.raises(BadRequest, match="cannot be sent as JSON"):
        encode(value)


def test_a_value_that_contains_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(BadRequest):
        encode(loop)


def test_a_missing_file_a_folder_and_a_device_are_named(tmp_path: Path) -> None:
    for path, why in ((tmp_path / "payload.json", "No such file"), (tmp_path, "directory"), (Path("/dev/null"), "nei")):
        with pytest.raises(BadRequest) as caught, open_source(path):
            pass
        assert f"cannot read {path}" in caught.value.message
        assert why in caught.value.message


def test_a_file_without_permission_is_named(tmp_path: Path) -> None:
    secret = tmp_path / "secret.json"
    secret.write_text("{}")
    secret.chmod(0)
    program = (
        "import os; from hecaton.client.payload import open_source\n"
        "if os.geteuid() == 0: os.setegid(65534); os.seteuid(65534)  # root may read everything\n"
        "with open_source('secret.json'): pass"
    )
    ran = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "BadRequest: cannot read secret.json: Permission denied" in ran.stderr


def test_a_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(b"[1]" * 100_000,))
    writer.start()
    with open_source(pipe) as source:
        assert source.read() == b"[1]" * 100_000
        assert source.kind() is Kind.TEXT
    writer.join()


def test_a_file_that_shrinks_while_it_is_sent_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "payload"
    path.write_bytes(b"x" * 1_000_000)
    with open_source(path) as source:
        os.truncate(path, 300_000)
        with pytest.raises(BadRequest, match="became shorter"):
            source.read()


def test_a_large_file_is_judged_and_hashed_without_being_held_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "large.json"
    with path.open("wb") as file:
        file.write(b"[")
        for _ in range(200):
            file.write(b'"' + b"x" * 1_000_000 + b'",')
        file.write(b"null]")
    # Resident memory counts the mapped file: what must stay small is the memory of our own.
    program = (
        "import resource, sys; from hecaton.client.payload import open_source\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (100_000_000, 100_000_000))\n"
        "with open_source(sys.argv[1]) as source: print(source.kind(), source.sha256(), source.size)\n"
    )
    ran = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
    with path.open("rb") as file:
        assert ran.stdout.split() == ["json", hashlib.file_digest(file, "sha256").hexdigest(), str(path.stat().st_size)]
