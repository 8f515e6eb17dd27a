"""The connection breaks, the worker restarts, frames come twice: no result is lost, no job runs twice."""

from __future__ import annotations

import json
import struct
import time

import pytest

from tests.serverless.worker_side import WorkerSide, opens_for_writing, wait_for

COUNTING = """
runs = []
def handler(data):
    runs.append(data.job_id)
    return [data.job_id, len(runs)]
start(handler)
"""
#: Waits twice in the middle of a job until the test opens a gate, a FIFO.
GATED = """
folder = os.environ["HECATON_DIR"]
def handler(data):
    print("running")
    open(os.path.join(folder, "gate-1")).close()
    progress(data.input)
    open(os.path.join(folder, "gate-2")).close()
    return data.job_id
for gate in ("gate-1", "gate-2"):
    os.mkfifo(os.path.join(folder, gate))
start(handler)
"""


def open_gate(worker: WorkerSide, number: int) -> None:
    wait_for(lambda: opens_for_writing(worker.folder / f"gate-{number}"))


def test_a_container_waits_for_a_worker_that_is_not_there_yet(worker: WorkerSide) -> None:
    worker.start("import threading\nthreading.Timer(0.2, print, ['still here']).start()" + COUNTING)
    wait_for(lambda: "still here" in worker.log())  # by then it has tried, more than once
    worker.listen()
    worker.connect()
    assert worker.value() == ["job-1", 1]


def test_a_broken_connection_is_opened_anew_and_jobs_go_on(worker: WorkerSide) -> None:
    worker.serve(COUNTING)
    for index in range(4):
        assert worker.value(name=f"job-{index}") == [f"job-{index}", index + 1]
        worker.hang_up()
        assert worker.connect()["pending"] == []


def test_a_result_that_was_not_acknowledged_follows_the_next_hello(worker: WorkerSide) -> None:
    worker.serve(COUNTING)
    worker.job()
    first = worker.result()
    for _ in range(2):
        worker.hang_up()
        hello = worker.connect()
        assert hello["pending"] == [{"job": "job-1", "attempt": 1}]
        assert worker.result() == first
    worker.ack(first[0])
    assert worker.value(name="job-2") == ["job-2", 2]
    worker.hang_up()
    assert worker.connect()["pending"] == []


def test_several_results_may_wait_for_their_acknowledgement(worker: WorkerSide) -> None:
    worker.serve(COUNTING)
    results = []
    for name in ("a", "b", "c"):
        worker.job(name=name)
        results.append(worker.result())
    worker.ack(results[1][0])
    worker.job(name="d")
    results.append(worker.result())
    worker.hang_up()
    hello = worker.connect()
    assert [item["job"] for item in hello["pending"]] == ["a", "c", "d"]
    assert [worker.result() for _ in range(3)] == [results[0], results[2], results[3]]


def test_a_job_that_comes_twice_runs_once(worker: WorkerSide) -> None:
    worker.serve(COUNTING)
    worker.job()
    worker.job()
    first = worker.result()
    assert worker.result() == first
    worker.ack(first[0])
    worker.ack(first[0])
    worker.job(attempt=2)
    header, body = worker.result()
    assert header["attempt"] == 2
    assert json.loads(body) == ["job-1", 2]


def test_a_worker_that_restarts_during_a_job_gets_its_result(worker: WorkerSide) -> None:
    worker.serve(GATED)
    worker.job()
    worker.hang_up()
    worker.stop_listening()
    open_gate(worker, 1)
    open_gate(worker, 2)
    worker.listen()
    hello = worker.connect()
    assert hello["pending"] == [{"job": "job-1", "attempt": 1}]
    assert hello["running"] is None
    header, body = worker.result()
    assert (header["status"], json.loads(body)) == ("ok", "job-1")


def test_a_worker_that_restarts_learns_from_progress_what_is_running(worker: WorkerSide) -> None:
    worker.serve(GATED)
    worker.job({"half": True})
    worker.hang_up()
    open_gate(worker, 1)
    hello = worker.connect()
    assert hello["running"] == {"job": "job-1", "attempt": 1}
    assert hello["pending"] == []
    open_gate(worker, 2)
    header, body = worker.result()
    assert [item["value"] for item in worker.progress] == [{"half": True}]
    assert (header["status"], json.loads(body)) == ("ok", "job-1")


def test_progress_without_a_worker_is_lost_and_the_result_is_not(worker: WorkerSide) -> None:
    worker.serve(GATED)
    worker.job("lost")
    worker.hang_up()
    worker.stop_listening()
    open_gate(worker, 1)
    open_gate(worker, 2)
    worker.listen()
    worker.connect()
    header, body = worker.result()
    assert worker.progress == []
    assert (header["status"], json.loads(body)) == ("ok", "job-1")


def test_a_result_cut_in_the_middle_is_sent_again_whole(worker: WorkerSide) -> None:
    worker.serve("start(lambda data: 'x' * 900_000)")
    worker.job()
    worker.read_some(10)
    worker.hang_up()
    assert worker.connect()["pending"] == [{"job": "job-1", "attempt": 1}]
    header, body = worker.result()
    assert (header["status"], len(body)) == ("ok", 900_002)


@pytest.mark.sample(6)
@pytest.mark.parametrize(
    "junk",
    [
        struct.pack("!II", 0xFFFFFFFF, 0),
        struct.pack("!II", 2, 0) + b"[]",
        struct.pack("!II", 14, 0) + b'{"type":"job"}',
        struct.pack("!II", 18, 0) + b'{"type":"welcome"}',
    ],
    ids=["too long", "no object", "job without a name", "welcome without limits"],
)
def test_junk_from_the_worker_breaks_the_connection_only(worker: WorkerSide, junk: bytes) -> None:
    worker.serve(COUNTING)
    worker.job()
    first = worker.result()
    worker.send_raw(junk)
    assert worker.connect()["pending"] == [{"job": "job-1", "attempt": 1}]
    assert worker.result() == first
    assert "connecting to the worker again" in worker.log()


def test_frames_of_a_later_version_are_ignored(worker: WorkerSide) -> None:
    worker.serve(COUNTING)
    worker.send({"type": "news", "from": "the future"}, b"body")
    worker.job_of("json", b"null", later="field")
    header, _ = worker.result()
    assert header["status"] == "ok"


def test_a_worker_of_another_protocol_is_told_which_side_to_update(worker: WorkerSide) -> None:
    worker.listen()
    worker.start(COUNTING)
    worker.accept()
    worker.send({"type": "welcome", "protocol": 99, "max_result": 1})
    assert worker.exit_code() == 1
    assert "speaks protocol 2, the worker answers with 99: update hecaton" in worker.log()


@pytest.mark.sample(2)
def test_a_worker_that_refuses_the_hello_is_not_asked_in_a_tight_loop(worker: WorkerSide) -> None:
    worker.listen()
    worker.start(COUNTING)
    worker.accept()
    began = time.monotonic()
    for _ in range(4):
        worker.accept()  # hangs up on the one before
    assert time.monotonic() - began > 0.05 + 0.1 + 0.2
    worker.connect()
    assert worker.value() == ["job-1", 1]
