"""`hecaton job new --each` and `hecaton batch`, with a real server and a real worker on the process runtime."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hecaton.client import Client, profiles
from hecaton.testing.cluster import LocalCluster
from tests.cli.conftest import Invoke

HANDLER = """\
from hecaton.serverless import start

def handler(data):
    if data.input == "fail":
        raise ValueError("told to fail\\nin two lines")
    return b"\\xff" if data.input == "bytes" else data.input

if __name__ == "__main__":
    start(handler)
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    folder = tmp_path_factory.mktemp("batches")
    handler = folder / "handler.py"
    handler.write_text(HANDLER)
    with LocalCluster(folder / "home") as cluster:
        cluster.register("echo", "idle")
        cluster.start_worker("one", handlers={"echo": handler})
        yield cluster


@pytest.fixture
def client(cluster: LocalCluster) -> Client:
    """The cluster's server is the active one of the test's home."""
    client = cluster.client()
    profiles.add(profiles.Profile("here", cluster.url, scheme="http"))
    profiles.set_token("here", client.token, "admin")
    profiles.set_active("here")
    return client


@pytest.fixture
def lines(tmp_path: Path) -> Any:
    def write(*values: Any) -> str:
        path = tmp_path / "payloads.jsonl"
        path.write_text("".join(json.dumps(value) + "\n" for value in values))
        return str(path)

    return write


def read(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_line_of_a_file_becomes_a_job_of_one_batch(
    client: Client, invoke: Invoke, lines: Any, tmp_path: Path
) -> None:
    made = invoke("job", "new", "--each", lines({"n": 1}, "two", 3), "--name", "pictures", "echo")
    assert (made.code, made.err) == (0, "")
    batch = client.batch(made.out.strip())
    batch.wait()
    target = tmp_path / "results.jsonl"
    assert invoke("batch", "results", str(batch.index), "-o", str(target)).code == 0
    late = invoke("batch", "cancel", batch.id)
    assert (late.code, late.err) == (0, f"Batch {batch.index} had ended: nothing is cancelled.\n")
    found = read(target)
    assert [(one["index"], one["state"], one["result"]) for one in found] == [
        (0, "FINISHED", {"n": 1}),
        (1, "FINISHED", "two"),
        (2, "FINISHED", 3),
    ]
    assert client.job(found[1]["id"]).item == 1
    shown = invoke("batch", "show", batch.id).out
    for part in ("pictures", "complete", "finished    3"):
        assert part in shown
    assert "pictures" in invoke("batch", "list").out
    assert json.loads(invoke("batch", "show", batch.id, "--json").out)["finished"] == 3


def test_waiting_shows_how_it_goes_on_and_writes_the_results(
    client: Client, invoke: Invoke, lines: Any, tmp_path: Path
) -> None:
    target = tmp_path / "out.jsonl"
    done = invoke("job", "new", "--each", lines(*range(40)), "echo", "--wait", "-o", str(target))
    assert (done.code, len(read(target))) == (0, 40)
    assert "All 40 results are in" in done.err
    assert re.search(r"\nBatch \d+: 40 of 40 finished in [\d.]+ m?s\.\n$", done.err)


def test_the_end_of_a_batch_says_what_it_was_and_where_its_results_are(
    client: Client, invoke: Invoke, lines: Any
) -> None:
    done = invoke("job", "new", "--each", lines(1, 2), "echo", "--name", "pictures", "--wait")
    index = client.batches(limit=1)[0].index
    where = f"Results: hecaton batch results {index} -o FILE"
    assert (done.code, done.out) == (0, "")
    assert re.search(rf"\nBatch {index} \(pictures\): 2 of 2 finished in [\d.]+ m?s\. {where}\n$", done.err)
    later = invoke("batch", "wait", str(index))
    assert (later.code, later.err) == (0, f"Batch {index} (pictures): 2 of 2 finished. {where}\n")


def test_failures_are_told_by_cause_and_can_be_repeated(
    client: Client, invoke: Invoke, lines: Any, tmp_path: Path
) -> None:
    done = invoke("job", "new", "--each", lines(1, "fail", "fail", "bytes"), "echo", "--wait")
    assert done.code == 1
    assert "2 x handler_error: ValueError: told to fail" in done.err
    index = str(client.batches(limit=1)[0].index)
    example = client.batch(index).view().failures[0].example
    assert f"e.g. hecaton job show {client.job(example).index}\n" in done.err
    target = tmp_path / "results.jsonl"
    invoke("batch", "results", index, "-o", str(target))
    one, failed, _, raw = read(target)
    assert (one["result"], failed["state"], "result" in failed, raw["result_base64"]) == (1, "FAILED", False, "/w==")
    assert (failed["error"]["reason"], failed["error"]["type"]) == ("handler_error", "ValueError")
    assert "in two lines" in failed["error"]["message"]
    again = invoke("batch", "retry", index, "--failed")
    assert client.batch(again.out.strip()).wait().failed == 2
    assert invoke("batch", "retry", index).code == 0, "there are no others that could be meant"


def test_only_handler_files_can_be_replaced(client: Client, invoke: Invoke, tmp_path: Path) -> None:
    handler = tmp_path / "h.py"
    handler.write_text(HANDLER)
    made = client.submit_many("idle", [1])
    wrong = invoke("batch", "retry", str(made.index), "--handler", str(handler))
    assert wrong.code == 2
    made.cancel()


def test_every_file_of_a_glob_becomes_a_job(client: Client, invoke: Invoke, tmp_path: Path) -> None:
    folder = tmp_path / "inputs"
    folder.mkdir()
    (folder / "b.json").write_text('{"b": 1}')
    (folder / "a.json").write_text('"a"')
    (folder / "c.txt").write_text("words")
    made = invoke("job", "new", "--each", str(folder / "*"), "echo")
    assert list(client.batch(made.out.strip()).results()) == ["a", {"b": 1}, "words"]
    nothing = invoke("job", "new", "--each", str(folder / "*.png"), "echo")
    assert (nothing.code, "no file matches" in nothing.err) == (2, True)


def test_a_bad_line_is_named_and_nothing_is_submitted(client: Client, invoke: Invoke, tmp_path: Path) -> None:
    before = len(client.batches())
    path = tmp_path / "payloads.jsonl"
    for content, named in (
        ('{"a": 1}\n' * 700 + "{oops}\n" + "1\n", "line 701, column 2 is not JSON"),
        ("1\n\n2\n", "line 2 is empty"),
        ("1\nNaN\n", "line 2, column 1 is not JSON: NaN is no JSON: write null"),
        ("\n", "has no lines"),
    ):
        path.write_text(content)
        done = invoke("job", "new", "--each", str(path), "echo")
        assert (done.code, named in done.err) == (2, True), done.err
    path.write_bytes(b'"ok"\n"\xff"\n')
    assert "line 2" in invoke("job", "new", "--each", str(path), "echo").err
    assert len(client.batches()) == before


def test_results_go_on_where_the_file_stops(client: Client, invoke: Invoke, lines: Any, tmp_path: Path) -> None:
    batch = client.submit_many("echo", range(30))
    batch.wait()
    target = tmp_path / "results.jsonl"
    assert invoke("batch", "results", batch.id, "-o", str(target)).code == 0
    whole = target.read_bytes()
    cut = whole[: len(whole) // 2]  # in the middle of a line, as a kill or a full disk leaves it
    target.write_bytes(cut)
    assert invoke("batch", "results", batch.id, "-o", str(target)).code == 0
    assert target.read_bytes() == whole
    assert invoke("batch", "results", batch.id, "-o", str(target)).code == 0
    assert target.read_bytes() == whole
    assert invoke("batch", "results", batch.id).out.encode() == whole


def test_results_that_are_not_there_yet_are_told_and_come_later(
    cluster: LocalCluster, client: Client, invoke: Invoke, tmp_path: Path
) -> None:
    batch = client.submit_many("idle", range(3))
    target = tmp_path / "results.jsonl"
    early = invoke("batch", "results", batch.id, "-o", str(target))
    assert (early.code, "0 of 3 results" in early.err, target.read_bytes()) == (8, True, b"")
    assert f"hecaton batch wait {batch.index}" in early.err
    said = invoke("batch", "cancel", batch.id)
    assert (said.code, "is cancelled" in said.err) == (0, True)
    batch.wait()
    invoke("batch", "results", batch.id, "-o", str(target))
    assert [one["state"] for one in read(target)] == ["CANCELLED"] * 3


@pytest.mark.parametrize("content", [b"precious\n", b"no newline", b'{"index": 5, "id": "x", "state": "FINISHED"}\n'])
def test_a_file_that_holds_something_else_is_left_alone(
    client: Client, invoke: Invoke, tmp_path: Path, content: bytes
) -> None:
    batch = client.submit_many("echo", range(2))
    batch.wait()
    target = tmp_path / "results.jsonl"
    target.write_bytes(content)
    done = invoke("batch", "results", batch.id, "-o", str(target))
    assert (done.code, "nothing was written" in done.err) == (7, True)
    assert target.read_bytes() == content


def test_the_results_of_another_batch_are_not_continued(client: Client, invoke: Invoke, tmp_path: Path) -> None:
    first, second = client.submit_many("echo", range(2)), client.submit_many("echo", range(3))
    first.wait()
    second.wait()
    target = tmp_path / "results.jsonl"
    invoke("batch", "results", first.id, "-o", str(target))
    before = target.read_bytes()
    done = invoke("batch", "results", second.id, "-o", str(target))
    assert (done.code, "another batch" in done.err, target.read_bytes()) == (7, True, before)


def test_a_hopeless_batch_pauses_says_why_and_can_be_resumed(client: Client, invoke: Invoke, lines: Any) -> None:
    done = invoke("job", "new", "--each", lines(*["fail"] * 3000), "echo", "--wait")
    assert done.code == 1
    for part in ("PAUSED", "all failed alike", "told to fail", "hecaton batch resume"):
        assert part in done.err
    index = str(client.batches(limit=1)[0].index)
    assert "goes on" in invoke("batch", "resume", index).err
    assert "is not paused" in invoke("batch", "resume", index).err
    invoke("batch", "cancel", index)


def test_a_submission_with_its_key_again_is_the_same_batch(client: Client, invoke: Invoke, lines: Any) -> None:
    command = ["job", "new", "--each", lines(*range(10)), "echo", "--idempotency-key", "batch-of-ten"]
    first, again = invoke(*command), invoke(*command)
    assert (first.code, first.out) == (0, again.out)


def test_combinations_that_make_no_sense_are_refused(invoke: Invoke, client: Client, lines: Any) -> None:
    path = lines(1)
    for words in (
        ["--each", path, "payload.json", "echo"],
        ["--each", path, "--script", "echo"],
        ["--each", path, "echo", "-o", "x"],
        ["payload.json", "echo", "--name", "x"],
        ["payload.json"],
    ):
        assert invoke("job", "new", *words).code == 2, words
    assert invoke("batch", "show", "999999").code == 6
