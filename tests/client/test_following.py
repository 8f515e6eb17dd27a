"""A submission whose end is waited for next: one request, one connection, and nothing lost when either breaks."""

from __future__ import annotations

import gc
import threading
import time
import warnings
from collections.abc import Iterator

import pytest

from hecaton.client import BadRequest, Client, TooMany, WaitTimeout, following
from hecaton.core.model import JobState
from hecaton.wire.api import Submitted
from tests.client.scripted import HANG, NO_ANSWER, Answer, ScriptedServer, Seen, error, reply
from tests.client.views import JOB_ID, finished, line, submitted, view

FOLLOWED, PLAIN, JOB = "/v1/jobs/followed", "/v1/jobs", f"/v1/jobs/{JOB_ID}"


@pytest.fixture
def client(server: ScriptedServer) -> Iterator[Client]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with Client(server.url, "t0ken", timeout=5.0) as made:
            yield made


STORED = line(Submitted(JOB_ID, 7))
WHOLE = Answer(201, lines=(STORED, line(finished("done"))))
STORED_THEN_SILENT = Answer(201, lines=(STORED,), then="hang")
STORED_THEN_CUT = Answer(201, lines=(STORED,), then="close")


def _asked(server: ScriptedServer) -> list[tuple[str, str]]:
    return [(seen.method, seen.path) for seen in server.seen]


def test_submit_and_result_are_one_request_on_one_connection(server: ScriptedServer, client: Client) -> None:
    server.on("POST", FOLLOWED, WHOLE)
    for _ in range(3):
        assert client.submit("my/image", 1).result() == "done"
    assert client.run("my/image", 1, retries=2) == "done"
    assert _asked(server) == [("POST", FOLLOWED)] * 4
    assert len({seen.client_port for seen in server.seen}) == 1
    assert server.seen[-1].json() == {"image": "my/image", "input": 1, "retries": 2}


def test_the_job_is_known_before_its_end(server: ScriptedServer, client: Client) -> None:
    server.on("POST", FOLLOWED, STORED_THEN_SILENT)
    server.on("GET", JOB, reply(view(JobState.IN_PROGRESS)))
    job = client.submit("my/image")
    assert (job.id, job.index) == (JOB_ID, 7)
    with pytest.raises(WaitTimeout, match=r"job 7 .* after 0\.1 s"):
        job.result(timeout=0.1)


def test_a_wait_that_is_too_long_is_a_time_out_as_everywhere(server: ScriptedServer, client: Client) -> None:
    server.on("POST", FOLLOWED, STORED_THEN_SILENT)
    server.on("GET", JOB, reply(view(JobState.IN_PROGRESS)))
    with pytest.raises(TimeoutError):
        client.run("my/image", wait=0.05)


def test_an_answer_that_breaks_off_loses_nothing(server: ScriptedServer, client: Client) -> None:
    server.on("POST", FOLLOWED, STORED_THEN_CUT)
    server.on("GET", JOB, reply(finished("done")))
    assert client.submit("my/image").result() == "done"
    assert _asked(server) == [("POST", FOLLOWED), ("GET", JOB)]


@pytest.mark.parametrize("answer", [NO_ANSWER, Answer(503), Answer(201, lines=(), then="close"), Answer(201, b"?\n")])
def test_one_that_never_comes_is_asked_for_again_with_the_same_key(
    server: ScriptedServer, client: Client, answer: Answer
) -> None:
    server.on("POST", FOLLOWED, answer)
    server.on("POST", PLAIN, submitted(duplicate=True))
    job = client.submit("my/image", key="mine")
    assert job.duplicate
    assert [(seen.path, seen.headers["idempotency-key"]) for seen in server.seen] == [
        (FOLLOWED, "mine"),
        (PLAIN, "mine"),
    ]


def test_what_the_server_has_against_it_is_raised(server: ScriptedServer, client: Client) -> None:
    server.on("POST", FOLLOWED, error(400, "bad_request", "no such thing"))
    with pytest.raises(BadRequest, match="no such thing"):
        client.submit("my/image")
    server.on("POST", FOLLOWED, error(429, "too_many", "later"))
    server.on("POST", PLAIN, Answer(429, error(429, "too_many", "later").body, {"Retry-After": "60"}))
    with pytest.raises(TooMany):
        client.submit("my/image")


def test_a_job_that_goes_on_is_waited_for_with_a_request_of_its_own(server: ScriptedServer, client: Client) -> None:
    server.on("POST", FOLLOWED, Answer(201, lines=(STORED, line(view(JobState.IN_PROGRESS)))))
    server.on("GET", JOB, reply(finished("done")))
    assert client.submit("my/image").result() == "done"


def test_who_asks_for_something_else_first_submits_plainly_from_then_on(server: ScriptedServer, client: Client) -> None:
    server.on("POST", FOLLOWED, STORED_THEN_SILENT, WHOLE)
    server.on("POST", PLAIN, submitted())
    server.on("GET", JOB, reply(finished("done")))
    assert client.submit("my/image").view().state is JobState.FINISHED
    client.submit("my/image").view()
    assert _asked(server) == [("POST", FOLLOWED), ("GET", JOB), ("POST", PLAIN), ("GET", JOB)]
    assert client.submit("my/image").result() == "done"  # until somebody waits at once
    assert client.submit("my/image").result() == "done"
    assert _asked(server)[-1] == ("POST", FOLLOWED)


def test_jobs_that_nobody_waits_for_leave_no_connection(server: ScriptedServer, client: Client) -> None:
    server.on("POST", FOLLOWED, STORED_THEN_SILENT)
    server.on("POST", PLAIN, submitted())
    for _ in range(4):
        client.submit("my/image")
        gc.collect()
    assert _asked(server) == [("POST", FOLLOWED)] + [("POST", PLAIN)] * 3
    assert not client._transport.followed
    assert len({seen.client_port for seen in server.asked("POST", PLAIN)}) == 1


def test_only_so_many_are_open_at_once(server: ScriptedServer, client: Client) -> None:
    server.on("POST", FOLLOWED, WHOLE)
    server.on("POST", PLAIN, submitted())
    server.on("GET", JOB, reply(finished("done")))
    jobs = [client.submit("my/image") for _ in range(following.MOST_FOLLOWED + 3)]
    assert len(server.asked("POST", FOLLOWED)) == following.MOST_FOLLOWED
    assert [job.result() for job in jobs] == ["done"] * len(jobs)
    assert len(server.asked("GET", JOB)) == 3


def test_what_keeps_answers_back_until_they_are_complete_is_found_out(server: ScriptedServer, client: Client) -> None:
    def late(_: Seen) -> Answer:
        time.sleep(0.2)
        return Answer(201, lines=(STORED, line(finished("done", created_at=1.0, ended_at=1.1))))

    server.on("POST", FOLLOWED, late)
    server.on("POST", PLAIN, submitted())
    server.on("GET", JOB, reply(finished("done")))
    for _ in range(following.KEPT_BACK + 2):
        assert client.submit("my/image").result() == "done"
    posted = [path for method, path in _asked(server) if method == "POST"]
    assert posted == [FOLLOWED] * following.KEPT_BACK + [PLAIN] * 2


def test_a_first_word_that_never_comes_costs_the_time_out_once(server: ScriptedServer) -> None:
    server.on("POST", FOLLOWED, HANG)
    server.on("POST", PLAIN, submitted())
    with Client(server.url, "t0ken", timeout=0.3) as client:
        client.submit("my/image")
        client.submit("my/image")
    assert _asked(server) == [("POST", FOLLOWED), ("POST", PLAIN), ("POST", PLAIN)]


def test_a_server_that_knows_no_such_answer_gets_the_plain_request(server: ScriptedServer, client: Client) -> None:
    server.on("POST", FOLLOWED, error(405, "wrong_method", "POST is no method of this"))
    server.on("POST", PLAIN, submitted())
    server.on("GET", JOB, reply(finished("done")))
    for _ in range(2):
        assert client.submit("my/image").result() == "done"
    assert len(server.asked("POST", FOLLOWED)) == 1


def test_of_two_threads_one_reads_on_and_the_other_asks(server: ScriptedServer, client: Client) -> None:
    server.on("POST", FOLLOWED, WHOLE)
    server.on("GET", JOB, reply(finished("done")))
    job = client.submit("my/image")
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(job.result())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["done", "done"]
    assert _asked(server) == [("POST", FOLLOWED), ("GET", JOB)]


def test_a_closed_client_leaves_none_open(server: ScriptedServer) -> None:
    server.on("POST", FOLLOWED, STORED_THEN_SILENT)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with Client(server.url, "t0ken") as client:
            job = client.submit("my/image")
        del job
        gc.collect()
