"""`job logs -f`: what a job prints arrives as it prints it, all of it and once, however the job or its worker ends."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hecaton.core.model import Mode
from hecaton.testing.cluster import PASSWORD, LocalCluster
from tests.e2e.commands import Person
from tests.e2e.conftest import PATIENCE, PYTHON

PRINTER = """\
import os
import time

from hecaton.serverless import ServerLessInput, start


def count(data: ServerLessInput) -> int:
    for number in range(data.input["lines"]):
        print(f"attempt {data.attempt} line {number}", flush=True)
        time.sleep(data.input.get("pause", 0.02))
    if data.input.get("end") == "raise":
        raise ValueError("as ordered")
    if data.input.get("end") == "exit":
        os._exit(3)
    return data.attempt


start(count)
"""


@pytest.fixture(scope="module")
def own(python39_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """A cluster whose worker may be killed, and whose jobs go elsewhere after six seconds of silence."""
    folder = tmp_path_factory.mktemp("logs") / "home"
    options = ("--lost-after", "6")
    with LocalCluster(folder, server_options=options) as cluster:
        cluster.start_worker("one")
        cluster.register(PYTHON)
        yield cluster


@pytest.fixture
def person(own: LocalCluster, tmp_path: Path) -> Person:
    return Person(tmp_path / "person").logs_in(own.url, "admin", PASSWORD)


def _printed(attempt: int, lines: int) -> str:
    return "".join(f"attempt {attempt} line {number}\n" for number in range(lines))


def _submit(own: LocalCluster, tmp_path: Path, order: object, **limits: object) -> int:
    path = tmp_path / "printer.py"
    path.write_text(PRINTER)
    return own.client().submit(PYTHON, order, mode=Mode.HANDLER, file=path, **limits).index  # type: ignore[arg-type]


@pytest.mark.sample(1)
@pytest.mark.parametrize(("end", "reason"), [(None, "ok"), ("raise", "handler_error"), ("exit", "handler_exit")])
def test_the_whole_log_is_followed_however_the_job_ends(
    own: LocalCluster, person: Person, tmp_path: Path, end: str | None, reason: str
) -> None:
    job = _submit(own, tmp_path, {"lines": 100, "end": end})
    with person.starts(f"hecaton job logs -f {job}") as follower:
        follower.until("line 10\n")
        assert not own.client().job(job).state.terminal, "it is shown while it runs"
        assert own.client().wait(job, PATIENCE).reason == reason
        follower.process.wait(PATIENCE)
        assert follower.said().startswith(_printed(1, 100))
        assert follower.said().count("line 99\n") == 1


def test_a_killed_worker_that_is_started_again_leaves_no_gap(own: LocalCluster, person: Person, tmp_path: Path) -> None:
    job = _submit(own, tmp_path, {"lines": 200, "pause": 0.05})
    with person.starts(f"hecaton job logs -f {job}") as follower:
        follower.until("line 20\n")
        own.workers["one"].send_signal(signal.SIGKILL)
        own.workers["one"].child.wait(PATIENCE)
        time.sleep(0.5)  # it goes on printing, and nobody hears
        own.start_worker("one")
        view = own.client().wait(job, PATIENCE)
        assert (view.reason, view.attempt) == ("ok", 1)
        follower.process.wait(PATIENCE)
        assert follower.said() == _printed(1, 200)


def test_the_next_attempt_is_followed_from_its_start(own: LocalCluster, person: Person, tmp_path: Path) -> None:
    job = _submit(own, tmp_path, {"lines": 100, "end": "raise"}, retries=1)
    with person.starts(f"hecaton job logs -f {job}") as follower:
        assert own.client().wait(job, PATIENCE).attempt == 2
        follower.process.wait(PATIENCE)
        for attempt in (1, 2):
            assert _printed(attempt, 100) in follower.said()


def test_a_job_whose_worker_is_lost_is_followed_to_the_next_one(
    own: LocalCluster, person: Person, tmp_path: Path
) -> None:
    job = _submit(own, tmp_path, {"lines": 100, "pause": 0.05})
    with person.starts(f"hecaton job logs -f {job}") as follower:
        follower.until("line 10\n")
        own.workers["one"].send_signal(signal.SIGSTOP)
        own.start_worker("two")
        view = own.client().wait(job, PATIENCE * 2)
        assert (view.reason, view.attempt, view.worker) == ("ok", 2, "two")
        follower.process.wait(PATIENCE)
        assert _printed(2, 100) in follower.said()
        assert follower.said().startswith(_printed(1, 10))
    own.workers["one"].send_signal(signal.SIGCONT)
