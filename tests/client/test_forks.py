"""A process that forks: each child has connections of its own, and nobody gets the answer that is somebody else's."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hecaton.client import Client, Unreachable, http
from hecaton.client import jobs as jobs_module
from hecaton.client.http import TRIES
from hecaton.client.managers.api import HecatonServer
from hecaton.core.model import JobState
from hecaton.wire.api import JobEvent, Submitted
from tests.client.scripted import Answer, ScriptedServer, reply
from tests.client.views import JOB_ID, event_lines, finished, line, view

if not hasattr(os, "fork"):
    pytest.skip("Windows cannot fork", allow_module_level=True)

CHILDREN = range(1, 7)


@pytest.fixture
def jobs(server: ScriptedServer) -> ScriptedServer:
    """Answers each question about a job with that job."""
    for number in (*CHILDREN, 99):
        server.on("GET", f"/v1/jobs/{number}", reply(view(id=f"job-{number}", index=number)))
    return server


def _in_children(work: Callable[[int], None]) -> list[int]:
    """Their exit codes: 0 where `work` did not raise. They begin together."""
    reading, writing = os.pipe()
    children = []
    for number in CHILDREN:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.close(writing)
                os.read(reading, 1)  # until the parent has closed its end
                work(number)
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    os.close(writing)
    os.close(reading)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def test_children_get_their_own_answers(jobs: ScriptedServer, client: Client) -> None:
    assert client.job(99).index == 99

    def look(number: int) -> None:
        for _ in range(20):
            assert client.job(number).index == number

    assert _in_children(look) == [0] * len(CHILDREN)
    assert client.job(99).index == 99
    ports = {number: {seen.client_port for seen in jobs.asked("GET", f"/v1/jobs/{number}")} for number in CHILDREN}
    assert len(set[int]().union(*ports.values())) == len(CHILDREN)
    assert all(len(own) == 1 for own in ports.values())
    assert len({seen.client_port for seen in jobs.asked("GET", "/v1/jobs/99")}) == 1


def test_so_do_those_of_the_calls_of_the_readme(jobs: ScriptedServer) -> None:
    HecatonServer.get_job(jobs.url, "t0ken", "99")

    def look(number: int) -> None:
        for _ in range(20):
            assert HecatonServer.get_job(jobs.url, "t0ken", str(number))[0] == f"job-{number}"

    assert _in_children(look) == [0] * len(CHILDREN)


def test_a_child_does_not_wait_for_a_thread_that_it_does_not_have(jobs: ScriptedServer, client: Client) -> None:
    client.job(99)
    with client._transport._lock:  # as a thread that is just connecting
        ended = _in_children(lambda number: _expect(client.job(number).index == number))
    assert ended == [0] * len(CHILDREN)


def test_a_child_in_the_midst_of_a_stream_reads_on_in_one_of_its_own(server: ScriptedServer, client: Client) -> None:
    first = event_lines(JobEvent("state", JobState.IN_PROGRESS, 1))
    rest = event_lines(JobEvent("log", "a\n", 1, 2), JobEvent("end", view(JobState.FINISHED), 1))
    server.on("GET", f"/v1/jobs/{JOB_ID}/events", Answer(lines=first, then="hang"), Answer(lines=first + rest))
    events = client.events(JOB_ID)
    assert next(events).event == "state"
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if [event.event for event in events] == ["log", "end"] else 1
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(server.seen) == 2
    _close(events)


def test_a_child_asks_for_the_end_of_a_job_that_its_parent_follows(jobs: ScriptedServer) -> None:
    lines = (line(Submitted("job-99", 99)), line(finished("of the parent", id="job-99", index=99)))
    jobs.on("POST", "/v1/jobs/followed", Answer(201, lines=lines))
    jobs.on("GET", "/v1/jobs/job-99", reply(finished("of the child", id="job-99", index=99)))
    with Client(jobs.url, "t0ken") as client:
        job = client.submit("my/image")
        assert _in_children(lambda _: _expect(job.result() == "of the child")) == [0] * len(CHILDREN)
        assert job.result() == "of the parent"


def test_an_answer_about_another_job_is_refused_and_asked_for_again_elsewhere(
    server: ScriptedServer, client: Client
) -> None:
    server.on("GET", f"/v1/jobs/{JOB_ID}", reply(view(id="another")), reply(view()))
    assert client.job(JOB_ID).id == JOB_ID
    first, second = server.seen
    assert first.client_port != second.client_port


def test_answers_that_are_always_about_another_job_are_an_error(server: ScriptedServer, client: Client) -> None:
    server.on("GET", "/v1/jobs/8", reply(view()))
    with pytest.raises(Unreachable, match="the answer to GET /v1/jobs/8 is about something else"):
        client.job(8)
    assert len(server.seen) == TRIES


def test_children_do_not_come_back_in_step(tmp_path: Path) -> None:
    """What draws the pauses before another try has no state that all of them would inherit."""

    def draw(number: int) -> None:
        (tmp_path / str(number)).write_text(f"{http._random.random()} {jobs_module._random.random()}")

    assert _in_children(draw) == [0] * len(CHILDREN)
    drawn = [pause for number in CHILDREN for pause in (tmp_path / str(number)).read_text().split()]
    assert len(set(drawn)) == 2 * len(CHILDREN)


def _expect(right: bool) -> None:
    assert right


def _close(events: Iterator[JobEvent]) -> None:
    close = getattr(events, "close", None)
    if close is not None:
        close()
