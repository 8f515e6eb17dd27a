"""How results leave the container: small ones in the frame, large ones as files, bad ones as a reason."""

from __future__ import annotations

import json

import pytest

from tests.serverless.worker_side import WorkerSide

RETURNS = """
import datetime, math, pathlib
def circular():
    value = []
    value.append({"me": value})
    return value
def deep():
    value = []
    for _ in range(10_000):
        value = [value]
    return value
def endless():
    while True:
        yield "x" * 1000
class Text(str): pass
VALUES = {
    "none": lambda: None, "text": lambda: "h\u00e9llo", "tuple": lambda: (1, (2.5, True)),
    "keys": lambda: {1: {None: 2}},
    "subclass": lambda: [Text("a")], "unicode": lambda: {"\U0001f600": "\u2028"},
    "bytes": lambda: b"\\x00\\xff", "bytearray": lambda: bytearray(b"abc"),
    "nan": lambda: {"a": [0, float("nan")]}, "infinity": lambda: [math.inf], "set": lambda: {"x": {1}},
    "nested bytes": lambda: [b"x"], "date": lambda: [datetime.datetime.now()], "circular": circular, "deep": deep,
    "long": lambda: [10 ** 5000], "nul": lambda: ["a\\0"], "surrogate": lambda: {"k": "\\udcff"},
    "key": lambda: {(1,): 1}, "object": object, "type": lambda: int, "map": lambda: map(str, [1]),
    "no file": lambda: pathlib.Path("/no/such/file"), "folder": lambda: pathlib.Path("/tmp"),
    "items": lambda: (item for item in (1, 2, math.nan, 4)),
    "device": lambda: pathlib.Path("/dev/zero"), "endless": endless,
}
start(lambda data: VALUES[data.input]())
"""

ACCEPTED = [
    ("none", None),
    ("text", "h\u00e9llo"),
    ("tuple", [1, [2.5, True]]),
    ("keys", {"1": {"null": 2}}),
    ("subclass", ["a"]),
    ("unicode", {"\U0001f600": "\u2028"}),
    ("nul", ["a\0"]),
]
REFUSED = [
    ("nan", "$.a[1]: NaN is not JSON", b'{"a": [0, NaN]}'),
    ("infinity", "$[0]: Infinity is not JSON", b"[Infinity]"),
    ("set", "$.x: set is not JSON", b'{"x": "{1}"}'),
    ("nested bytes", "$[0]: bytes is not JSON", b"[\"b'x'\"]"),
    ("date", "$[0]: datetime is not JSON", b'["datetime.datetime('),
    ("circular", "$[0].me: a circular reference is not JSON", b"[{'me': "),
    ("deep", "nested deeper than 512 levels", b""),
    ("long", "$[0]: an integer of more than 4300 digits", b""),
    ("surrogate", "$.k: a lone surrogate (\\udcff)", b'{"k": "\\udcff"}'),
    ("key", "$: a key of type tuple", b"{(1,): 1}"),
    ("object", "$: object is not JSON", b'"<object object at '),
    ("type", "$: type is not JSON", b"\"<class 'int'>\""),
    ("map", "$: map is not JSON", b'"<map object at '),
    ("items", "$[2]: NaN is not JSON", b"[1,2,NaN]"),
    ("no file", "/no/such/file, which cannot be read", None),
    ("folder", "/tmp, which is not a file", None),
    ("device", "/dev/zero, which is not a file", None),
]


def test_json_comes_back_as_it_is_and_everything_else_as_a_reason(worker: WorkerSide) -> None:
    worker.serve(RETURNS, max_result=3_000_000)
    for name, value in ACCEPTED:
        assert worker.value(name, name) == value
    for name, reason, kept in REFUSED:
        header, body = worker.run(name, name)
        assert header["status"] == "result_invalid", name
        assert reason in header["error"]["message"]
        assert body.startswith(kept or b""), name
        assert bool(body) is (kept is not None), name
        assert header["kind"] == ("json" if kept is None else "text")
    header, _ = worker.run("endless", "endless")
    assert header["status"] == "result_too_large"
    assert worker.value("none", "last") is None
    assert list((worker.folder / "out").iterdir()) == []


def test_a_large_result_that_is_refused_is_kept_in_a_file(worker: WorkerSide) -> None:
    worker.serve(
        """
        start(lambda data: ["x" * data.input, float("nan")])
        """,
        max_result=3_000_000,
    )
    header, body = worker.run(2_000_000, "kept")
    assert (header["status"], header["kind"], header["file"], body) == ("result_invalid", "text", "kept.1", b"")
    assert "$[1]: NaN" in header["error"]["message"]
    assert (worker.folder / "out" / "kept.1").read_bytes() == b'["' + b"x" * 2_000_000 + b'", NaN]'
    header, body = worker.run(4_000_000, "too large to keep")
    assert (header["status"], header.get("file"), body) == ("result_invalid", None, b"")
    assert "$[1]: NaN" in header["error"]["message"]


def test_bytes_come_back_as_bytes(worker: WorkerSide) -> None:
    worker.serve(RETURNS)
    for name, value in (("bytes", b"\x00\xff"), ("bytearray", b"abc")):
        header, body = worker.run(name, name)
        assert (header["status"], header["kind"], body) == ("ok", "bytes", value)


def test_a_path_gives_the_bytes_of_its_file_and_leaves_it_where_it_is(worker: WorkerSide) -> None:
    worker.serve(
        """
        import pathlib
        def handler(data):
            os.chdir(os.environ["HECATON_DIR"])
            path = pathlib.Path("mine")
            path.write_bytes(b"\\xfe" * data.input)
            return path
        start(handler)
        """
    )
    header, body = worker.run(1000, "small")
    assert (header["kind"], body) == ("bytes", b"\xfe" * 1000)
    header, body = worker.run(3_000_000, "large")
    assert (header["kind"], header["file"], body) == ("bytes", "large.1", b"")
    assert (worker.folder / "out" / "large.1").read_bytes() == b"\xfe" * 3_000_000
    assert (worker.folder / "mine").stat().st_size == 3_000_000


@pytest.mark.parametrize("size", [(1 << 20) - 2, (1 << 20) - 1])
def test_json_up_to_1_mib_is_in_the_frame_and_more_in_a_file(worker: WorkerSide, size: int) -> None:
    worker.serve("start(lambda data: 'x' * data.input)")
    header, body = worker.run(size)
    encoded = json.dumps("x" * size).encode()
    if len(encoded) <= 1 << 20:
        assert body == encoded
        assert "file" not in header
    else:
        assert body == b""
        assert (worker.folder / "out" / header["file"]).read_bytes() == encoded


@pytest.mark.parametrize("kind", ["'x' * (data.input - 2)", "b'x' * data.input", "path(data)", "items(data)"])
def test_a_result_over_the_workers_limit_is_refused_with_both_sizes(worker: WorkerSide, kind: str) -> None:
    worker.serve(
        f"""
        import pathlib
        def path(data):
            path = pathlib.Path(os.environ["HECATON_DIR"], "mine")
            path.write_bytes(b"x" * data.input)
            return path
        def items(data):
            yield "x" * (data.input - 4)
        start(lambda data: {kind})
        """,
        max_result=2_000_000,
    )
    header, _ = worker.run(2_000_000, "fits")
    assert header["status"] == "ok"
    (worker.folder / "out" / header["file"]).unlink()
    header, body = worker.run(2_000_001, "too-large")
    assert header["status"] == "result_too_large"
    assert "2000001 bytes" in header["error"]["message"]
    assert "the limit is 2000000" in header["error"]["message"]
    assert body == b""
    assert list((worker.folder / "out").iterdir()) == []


def test_a_small_limit_holds_for_results_in_the_frame_too(worker: WorkerSide) -> None:
    worker.serve("start(lambda data: b'x' * data.input)", max_result=10)
    assert worker.run(10, "fits")[0]["status"] == "ok"
    header, body = worker.run(11, "too-large")
    assert (header["status"], body) == ("result_too_large", b"")


def test_a_result_that_is_only_partly_written_leaves_no_file(worker: WorkerSide) -> None:
    worker.serve(
        """
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, resource.RLIM_INFINITY))
        start(lambda data: b'x' * data.input)
        """
    )
    header, body = worker.run(3_000_000, "large")
    assert (header["status"], header["error"]["type"], body) == ("handler_error", "OSError", b"")
    assert list((worker.folder / "out").iterdir()) == []


def test_a_result_that_cannot_be_written_is_a_failed_job_with_the_cause(worker: WorkerSide) -> None:
    worker.serve("start(lambda data: b'x' * data.input)")
    (worker.folder / "out").rmdir()
    header, _ = worker.run(2_000_000, "large")
    assert header["status"] == "handler_error"
    assert header["error"]["type"] == "FileNotFoundError"
    header, _ = worker.run(10, "small")
    assert header["status"] == "ok"
