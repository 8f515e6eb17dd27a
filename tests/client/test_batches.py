"""Batches and map from Python, against a real server and a real worker on the process runtime."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hecaton.client import Client, Conflict, JobFailed
from hecaton.core.errors import BadRequest
from hecaton.testing.cluster import LocalCluster

HANDLER = """\
from hecaton.serverless import start

def handler(data):
    if isinstance(data.input, dict) and data.input.get("fail"):
        raise ValueError("told to fail")
    if isinstance(data.input, dict) and "size" in data.input:
        return "x" * data.input["size"]
    return data.input

if __name__ == "__main__":
    start(handler)
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    folder = tmp_path_factory.mktemp("batches")
    handler = folder / "handler.py"
    handler.write_text(HANDLER)
    with LocalCluster(folder / "home") as cluster:
        cluster.register("echo", "nobody-runs-it")
        cluster.start_worker("one", handlers={"echo": handler})
        yield cluster


@pytest.fixture
def client(cluster: LocalCluster) -> Iterator[Client]:
    with cluster.client() as client:
        yield client


def test_a_batch_of_many_chunks_gives_its_results_in_order(client: Client) -> None:
    batch = client.submit_many("echo", range(1200), name="numbers")
    assert list(batch.results()) == list(range(1200))
    view = batch.view()
    assert (view.name, view.size, view.finished, view.complete) == ("numbers", 1200, 1200, True)
    assert batch.wait().complete


def test_results_can_be_taken_as_they_come(client: Client) -> None:
    batch = client.submit_many("echo", range(50))
    items = list(batch.items(ordered=False))
    assert [item.ended_as for item in items] == list(range(1, 51))
    assert sorted(batch.result_of(item) for item in items) == list(range(50))


def test_a_batch_submitted_again_with_its_key_is_the_same_one(client: Client) -> None:
    first = client.submit_many("echo", range(700), key="mine")
    again = client.submit_many("echo", range(700), key="mine")
    assert (again.id, again.view().size) == (first.id, 700)


def test_a_submission_that_was_cut_off_goes_on_where_it_was(client: Client) -> None:
    def broken() -> Iterator[int]:
        yield from range(1100)
        raise RuntimeError("the input broke off")

    with pytest.raises(RuntimeError):
        client.submit_many("echo", broken(), key="cut off")
    batch = client.submit_many("echo", range(1300), key="cut off")
    assert list(batch.results()) == list(range(1300))


def test_large_inputs_and_results_travel_too(client: Client) -> None:
    large = "y" * (1024 * 1024 + 1)
    batch = client.submit_many("echo", [large, {"size": 1024 * 1024 + 1}, 1])
    first, second, third = batch.results()
    assert (first == large, len(second), third) == (True, 1024 * 1024 + 1, 1)


def test_failures_are_raised_or_returned(client: Client) -> None:
    batch = client.submit_many("echo", [1, {"fail": True}, 3])
    one, failed, three = batch.results(return_exceptions=True)
    assert (one, three) == (1, 3)
    assert isinstance(failed, JobFailed)
    assert ("item 1" in failed.message, failed.reason) == (True, "handler_error")
    with pytest.raises(JobFailed, match="told to fail"):
        list(batch.results())


def test_a_hopeless_batch_pauses_is_resumed_and_repeated(client: Client) -> None:
    # One after another they fail; nothing but the pause keeps the second half from it.
    batch = client.submit_many("echo", [{"fail": True}] * 3000)
    with pytest.raises(Conflict, match="failed alike"):
        batch.wait()
    view = batch.view()
    assert view.waiting > 0
    with pytest.raises(Conflict, match="paused"):
        list(batch.results(ordered=False, return_exceptions=True))
    batch.resume()
    assert batch.wait().failed == 3000
    again = batch.retry_failed()
    assert again.view().size == 3000
    assert again.cancel().cancel_requested
    assert again.wait().complete


def test_map_gives_results_in_order(client: Client) -> None:
    assert list(client.map("echo", range(2500))) == list(range(2500))


def test_map_gives_results_as_they_come_and_tells_its_progress(client: Client) -> None:
    told: list[tuple[int, int]] = []
    found = client.map("echo", range(300), ordered=False, progress=lambda done, sent: told.append((done, sent)))
    assert sorted(found) == list(range(300))
    assert told[-1] == (300, 300)
    assert [done for done, _ in told] == list(range(1, 301))


def test_map_takes_no_more_inputs_than_its_window_allows(client: Client) -> None:
    taken = 0

    def endless() -> Iterator[int]:
        nonlocal taken
        while True:
            taken += 1
            yield taken

    results = client.map("echo", endless(), window=40)
    for expected in range(1, 201):
        assert next(results) == expected
        assert taken - expected <= 41
    results.close()  # type: ignore[attr-defined]
    assert client.batches(limit=1)[0].cancel_requested


def test_map_gives_errors_of_items_or_raises_them(client: Client) -> None:
    inputs = [{"fail": True}] * 30 + [31]
    *errors, last = client.map("echo", inputs, return_exceptions=True)
    assert all(isinstance(error, JobFailed) for error in errors)
    assert (len(errors), last) == (30, 31)
    with pytest.raises(JobFailed):
        list(client.map("echo", inputs))


def test_map_of_nothing_is_nothing(client: Client) -> None:
    assert list(client.map("echo", [])) == []


def test_map_gives_the_first_result_though_the_inputs_come_slowly(client: Client) -> None:
    second = threading.Event()

    def inputs() -> Iterator[int]:
        yield 1
        second.wait(0.2)  # longer than map gathers; nobody sets it
        yield 2

    assert list(client.map("echo", inputs())) == [1, 2]


def test_map_ends_with_the_error_of_its_inputs(client: Client) -> None:
    def inputs() -> Iterator[int]:
        yield from range(600)
        raise RuntimeError("the input broke off")

    with pytest.raises(RuntimeError):
        list(client.map("echo", inputs(), window=100))


@pytest.mark.parametrize("value", [float("nan"), b"bytes", object()])
def test_inputs_that_json_cannot_say_are_refused(client: Client, value: object) -> None:
    with pytest.raises(BadRequest):
        client.submit_many("echo", [value])


def test_a_window_has_room_for_one(client: Client) -> None:
    assert list(client.map("echo", range(5), window=1)) == list(range(5))
    with pytest.raises(BadRequest):
        client.map("echo", range(5), window=0)


def test_results_go_on_over_a_restart_of_the_server(cluster: LocalCluster) -> None:
    with cluster.client() as client:
        results = client.map("echo", range(3000), window=200)
        assert next(results) == 0
        assert cluster.server is not None
        cluster.server.kill()
        cluster.start_server()
        assert list(results) == list(range(1, 3000))


def test_a_batch_larger_than_the_quota_is_sent_as_room_becomes_free(tmp_path: Path) -> None:
    handler = tmp_path / "handler.py"
    handler.write_text(HANDLER)
    with LocalCluster(tmp_path / "home", server_options=("--max-queued", "500")) as cluster:
        cluster.register("echo")
        cluster.start_worker("one", handlers={"echo": handler})
        with cluster.client() as client:
            batch = client.submit_many("echo", range(1000))
            assert list(batch.results()) == list(range(1000))


def test_a_batch_that_pauses_while_the_quota_is_full_ends_its_submission(tmp_path: Path) -> None:
    handler = tmp_path / "handler.py"
    handler.write_text(HANDLER)
    with LocalCluster(tmp_path / "home", server_options=("--max-queued", "500")) as cluster:
        cluster.register("echo")
        cluster.start_worker("one", handlers={"echo": handler})
        with cluster.client() as client, pytest.raises(Conflict, match="failed alike"):
            client.submit_many("echo", [{"fail": True}] * 1000).wait()
