"""Jobs that a container is given ahead of their turn: each begins in order, and none that was withdrawn."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hecaton.serverless.protocol import TURN_NUMBER
from tests.serverless.test_link import COUNTING, GATED, open_gate
from tests.serverless.worker_side import WorkerSide


class Pipe:
    """The worker's end of `turns`."""

    def __init__(self, folder: Path) -> None:
        os.mkfifo(folder / "turns")
        self._fd = os.open(folder / "turns", os.O_RDWR | os.O_NONBLOCK)

    def offer(self, *turns: int) -> None:
        os.write(self._fd, b"".join(map(TURN_NUMBER.pack, turns)))

    def withdraw(self) -> list[int]:
        try:
            return [turn for (turn,) in TURN_NUMBER.iter_unpack(os.read(self._fd, 4096))]
        except BlockingIOError:
            return []

    def close(self) -> None:
        os.close(self._fd)


@pytest.fixture
def pipe(worker: WorkerSide) -> Iterator[Pipe]:
    pipe = Pipe(worker.folder)
    yield pipe
    pipe.close()


def give_ahead(worker: WorkerSide, name: str, turn: int) -> None:
    worker.send({"type": "job", "job": name, "attempt": 1, "key": name, "kind": "json", "turn": turn}, b"null")


def test_a_container_says_that_it_takes_jobs_ahead(worker: WorkerSide, pipe: Pipe) -> None:
    worker.serve(COUNTING)
    assert worker.hello["ahead"] is True


def test_one_whose_worker_makes_no_pipe_does_not(worker: WorkerSide) -> None:
    worker.serve(COUNTING)
    assert worker.hello["ahead"] is False
    assert worker.value() == ["job-1", 1]


def test_they_run_in_order_and_each_takes_its_number(worker: WorkerSide, pipe: Pipe) -> None:
    worker.serve(GATED)
    worker.job(name="a")
    pipe.offer(7, 8)
    give_ahead(worker, "b", 7)
    give_ahead(worker, "c", 8)
    assert pipe.withdraw() == [7, 8]  # while the first runs, nothing behind it has begun
    pipe.offer(7, 8)
    open_gate(worker, 1)
    open_gate(worker, 2)
    assert worker.result()[0]["job"] == "a"
    open_gate(worker, 1)  # the second waits there: it has begun
    assert pipe.withdraw() == [8]
    open_gate(worker, 2)
    assert worker.result()[0]["job"] == "b"
    assert worker.read()[0] == {"type": "skipped", "turn": 8}


def test_one_that_was_withdrawn_is_left_out_and_may_be_given_again(worker: WorkerSide, pipe: Pipe) -> None:
    worker.serve(COUNTING)
    give_ahead(worker, "a", 1)
    assert worker.read()[0] == {"type": "skipped", "turn": 1}
    pipe.offer(2, 3)
    give_ahead(worker, "a", 2)
    give_ahead(worker, "b", 3)
    assert json.loads(worker.result()[1]) == ["a", 1]
    assert json.loads(worker.result()[1]) == ["b", 2]
    assert worker.value(name="c") == ["c", 3]


def test_a_later_number_in_the_pipe_is_kept_for_its_job(worker: WorkerSide, pipe: Pipe) -> None:
    worker.serve(COUNTING)
    pipe.offer(2)
    give_ahead(worker, "a", 1)
    give_ahead(worker, "b", 2)
    assert worker.read()[0] == {"type": "skipped", "turn": 1}
    assert json.loads(worker.result()[1]) == ["b", 1]


@pytest.mark.parametrize("closes", ["os.closerange(3, 4096)", "os.closerange(3, 4096); opened = open(os.devnull)"])
def test_a_handler_that_closes_the_pipe_costs_a_new_connection(worker: WorkerSide, pipe: Pipe, closes: str) -> None:
    worker.serve(
        f"""
        def handler(data):
            if data.job_id == "a":
                {closes}
            return data.job_id
        start(handler)
        """
    )
    worker.job(name="a")
    hello = worker.connect()
    assert hello["pending"] == [{"job": "a", "attempt": 1}]
    worker.ack(worker.result()[0])
    pipe.offer(1)
    give_ahead(worker, "b", 1)
    assert worker.connect()["running"] is None
    pipe.withdraw()
    pipe.offer(2)
    give_ahead(worker, "b", 2)
    assert json.loads(worker.result()[1]) == "b"


def test_what_was_ahead_is_void_on_a_new_connection(worker: WorkerSide, pipe: Pipe) -> None:
    worker.serve(GATED)
    worker.job(name="a")
    pipe.offer(1)
    give_ahead(worker, "b", 1)
    worker.hang_up()
    open_gate(worker, 1)
    worker.connect()
    assert pipe.withdraw() == [1]
    open_gate(worker, 2)
    assert worker.result()[0]["job"] == "a"
    pipe.offer(2)
    give_ahead(worker, "b", 2)
    open_gate(worker, 1)
    open_gate(worker, 2)
    assert worker.result()[0]["job"] == "b"
