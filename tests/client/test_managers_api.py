"""The README's own calls: section 5 as it is written, against a server that answers like ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trustme

from hecaton.client import BadRequest, NotFound, Unauthenticated, Unreachable
from hecaton.client.managers.api import HecatonServer
from hecaton.core.model import Failure, JobState, Kind, Reason
from tests.client.certificates import server_context
from tests.client.scripted import Answer, ScriptedServer, error, reply
from tests.client.views import JOB_ID, finished, submitted, view

PATH = f"/v1/jobs/{JOB_ID}"


@pytest.fixture
def payload(tmp_path: Path) -> str:
    path = tmp_path / "payload.json"
    path.write_text('{"prompt": "a cat"}')
    return str(path)


def test_the_example_of_the_readme(server: ScriptedServer, payload: str) -> None:
    server.on("POST", "/v1/jobs", submitted())
    server.on("GET", PATH, reply(view()), reply(view(JobState.IN_PROGRESS)), reply(finished({"status": "success"})))

    job_id = HecatonServer.new_job(ip=server.url, secret="t0ken", file_path=payload, image="my-custom-image:latest")
    statuses = []
    while True:
        job_info = HecatonServer.get_job(server.url, "t0ken", job_id)
        statuses.append(job_info[1])
        if job_info[1] in ("FINISHED", "FAILED"):
            break
        assert job_info[2] is None

    assert job_id == job_info[0] == JOB_ID
    assert statuses == ["IN_QUEUE", "IN_PROGRESS", "FINISHED"]
    assert job_info[2] == {"status": "success"}
    assert server.asked("POST", "/v1/jobs")[0].json() == {
        "image": "my-custom-image:latest", "input": {"prompt": "a cat"},
    }  # fmt: skip
    assert {seen.headers["authorization"] for seen in server.seen} == {"Bearer t0ken"}


def test_calls_share_a_connection(server: ScriptedServer) -> None:
    server.on("GET", PATH, reply(view()))
    for _ in range(3):
        HecatonServer.get_job(server.url, "t0ken", JOB_ID)
    assert len({seen.client_port for seen in server.seen}) == 1


def test_two_tokens_are_two_users(server: ScriptedServer) -> None:
    server.on("GET", PATH, reply(view()))
    for token in ("one", "two"):
        HecatonServer.get_job(server.url, token, JOB_ID)
    assert [seen.headers["authorization"] for seen in server.seen] == ["Bearer one", "Bearer two"]


def test_an_address_without_scheme_works(server: ScriptedServer) -> None:
    server.on("GET", PATH, reply(view()))
    with pytest.warns(UserWarning, match="unencrypted"):
        assert HecatonServer.get_job(server.address, "t0ken", JOB_ID)[1] == "IN_QUEUE"


def test_https_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("HECATON_CA_FILE", str(tmp_path / "ca.pem"))
    with ScriptedServer(server_context(ca, "127.0.0.1")) as server:
        server.on("GET", PATH, reply(view()))
        for address in (server.url, server.address):
            assert HecatonServer.get_job(address, "t0ken", JOB_ID)[1] == "IN_QUEUE"


@pytest.mark.parametrize(
    ("state", "reason"), [(JobState.FAILED, Reason.HANDLER_ERROR), (JobState.CANCELLED, Reason.CANCELLED)]
)
def test_a_job_without_result_is_failed_and_says_why(server: ScriptedServer, state: JobState, reason: Reason) -> None:
    why = Failure("no cat", type="ValueError")
    server.on("GET", PATH, reply(view(state, reason=reason, failure=why, attempt=1)))
    job = HecatonServer.get_job(server.url, "t0ken", JOB_ID)
    assert job[1] == "FAILED"
    assert "ValueError: no cat" in job[2]
    assert (job.number, job.image, job.attempt, job.reason) == (7, "my/image", 1, reason.value)


def test_a_large_result_is_fetched(server: ScriptedServer) -> None:
    server.on("GET", PATH, reply(view(JobState.FINISHED, result_kind=Kind.BYTES, result_size=2_000_000)))
    server.on("GET", PATH + "/result", Answer(200, b"\xff" * 2_000_000))
    assert HecatonServer.get_job(server.url, "t0ken", JOB_ID)[2] == b"\xff" * 2_000_000


def test_errors_are_raised_and_never_returned(server: ScriptedServer, tmp_path: Path, payload: str) -> None:
    server.on("GET", PATH, error(401, "unauthenticated", "the token has expired"))
    server.on("POST", "/v1/jobs", error(404, "not_found", "no image 'x'"))
    calls: list[tuple[type[Exception], Any]] = [
        (Unauthenticated, lambda: HecatonServer.get_job(server.url, "old", JOB_ID)),
        (NotFound, lambda: HecatonServer.new_job(server.url, "t", payload, "x")),
        (BadRequest, lambda: HecatonServer.new_job(server.url, "t", str(tmp_path / "missing"), "x")),
        (BadRequest, lambda: HecatonServer.get_job("https://http://localhost", "t", JOB_ID)),
    ]
    for kind, call in calls:
        with pytest.raises(kind):
            call()
    server.stop()
    with pytest.raises(Unreachable):
        HecatonServer.get_job(server.url, "t", JOB_ID)
