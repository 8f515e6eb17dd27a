"""An image that is an HTTP server, unmodified: a job is a request, the answer its result."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hecaton.client import Client, JobFailed
from hecaton.core.errors import BadRequest
from hecaton.testing.cluster import LocalCluster
from hecaton.wire.api import JobView
from tests.e2e.commands import Person
from tests.e2e.conftest import PATIENCE, PYTHON, running, until
from tests.engine.daemon import docker
from tests.engine.images import build_image

TAG = "hecaton-test/e2e-http:1"
SERVER = Path(__file__).with_name("http_server.py")


@pytest.fixture(scope="module")
def image(cluster: LocalCluster, person: Person) -> str:
    build_image(
        TAG, f'FROM {PYTHON}\nCOPY server.py /\nCMD ["python", "/server.py"]\n', {"server.py": SERVER.read_bytes()}
    )
    person.types(f"hecaton image new {TAG} --no-verify --protocol http --port 9100 --ready /health --path /predict")
    return TAG


def asked(client: Client, image: str, path: str, **more: object) -> JobView:
    return client.submit(image, {"path": path, **more}).wait(PATIENCE)


def message(view: JobView) -> str:
    assert view.failure is not None
    return view.failure.message


def hint(view: JobView) -> str:
    assert view.failure is not None
    return view.failure.hint or ""


def test_what_a_job_brings_is_posted_to_the_images_path_and_the_answer_is_its_result(image: str, admin: Client) -> None:
    assert admin.run(image, {"prompt": "ä"}, wait=PATIENCE) == {"prompt": "ä"}
    assert admin.run(image, payload=b"\xff\x00", wait=PATIENCE) == b"\xff\x00"
    assert admin.run(image, payload="größe".encode(), wait=PATIENCE) == "größe"


def test_its_container_stays_for_the_next_ones_and_what_it_prints_is_in_the_log_of_the_job_that_it_serves(
    image: str, admin: Client
) -> None:
    first, second = (admin.submit(image, {"number": number}) for number in range(2))
    assert [job.result(PATIENCE) for job in (first, second)] == [{"number": 0}, {"number": 1}]
    assert len(docker("ps", "--filter", f"ancestor={TAG}", "--quiet").split()) == 1
    assert "serving /predict" in second.logs()


def test_a_job_that_says_so_asks_another_question(image: str, admin: Client) -> None:
    view = asked(admin, image, "/seen", method="get", query={"a": "b c", "n": 1}, headers={"X-Word": "yes"})
    assert admin.result(view) == {"query": "a=b%20c&n=1", "word": "yes"}
    assert admin.run(image, {"path": "/any", "body": "text"}, wait=PATIENCE) == "text"


def test_more_than_a_message_holds_goes_in_and_comes_back(image: str, admin: Client) -> None:
    large = {"words": "x" * 3_000_000}
    assert admin.run(image, large, wait=PATIENCE) == large


@pytest.mark.parametrize(
    ("path", "reason", "said"),
    [
        ("/nowhere", "handler_error", "GET /nowhere was answered with 404"),
        ("/away", "handler_error", "another place: http://169.254.169.254/latest"),
        ("/half", "handler_error", "it broke off"),
        ("/garbage", "handler_error", "it broke off, or does not speak HTTP"),
        ("/claims-json", "result_invalid", "the result is not JSON"),
        ("/exit", "handler_exit", "exit code 3"),
    ],
)
def test_what_goes_wrong_says_what_it_was(image: str, admin: Client, path: str, reason: str, said: str) -> None:
    view = asked(admin, image, path)
    assert (view.state, view.reason) == ("FAILED", reason)
    assert said in message(view)


def test_a_refusal_is_shown_in_its_own_words(image: str, admin: Client) -> None:
    job = admin.submit(image, {"path": "/fails", "body": {}})
    with pytest.raises(JobFailed, match="POST /fails was answered with 500") as failed:
        job.result(PATIENCE)
    assert "no weights" in str(failed.value) + str(job.view().failure)


def test_a_server_that_never_listens_is_told_with_its_port(image: str, admin: Client) -> None:
    job = admin.submit(image, {"path": "/seen"}, port=9101, startup_timeout=2.0)
    view = job.wait(PATIENCE)
    assert view.reason == "startup_exit"
    assert "nothing listened on its port 9101" in hint(view)


def test_who_waits_for_a_server_hears_what_it_lacks(image: str, admin: Client) -> None:
    job = admin.submit(image, {"path": "/seen"}, port=9101, startup_timeout=20.0)
    until(lambda: job.view().note == "it is not ready: nothing listened on its port 9101", "it is said")
    job.cancel()
    job.wait(PATIENCE)


def test_that_it_listens_is_seen_without_a_request_that_would_stand_in_its_log(image: str, admin: Client) -> None:
    other = image.replace(":1", ":2")
    build_image(other, f"FROM {TAG}\n")
    logs = []
    ways: tuple[dict[str, Any], ...] = ({}, {"ready": "/health"})
    for ready in ways:
        job = admin.submit(other, "asked", protocol="http", port=9100, path="/predict", **ready)
        assert job.result(PATIENCE) == "asked"
        logs.append(job.logs())
    assert ["looked at" in log for log in logs] == [False, True]


def test_a_server_that_is_never_ready_is_told_with_what_it_answered(image: str, admin: Client) -> None:
    view = admin.submit(image, {"path": "/seen"}, ready="/never", startup_timeout=2.0).wait(PATIENCE)
    assert view.reason == "startup_exit"
    assert "GET /never was answered with 404" in hint(view)


def test_a_payload_that_makes_no_request_is_refused_before_it_leaves(image: str, admin: Client) -> None:
    assert "the method is 'FETCH'" in message(asked(admin, image, "/seen", method="FETCH"))


def test_any_image_is_spoken_to_so_for_who_asks(image: str, person: Person, tmp_path: Path) -> None:
    payload = tmp_path / "payload.json"
    payload.write_text(json.dumps({"method": "GET", "path": "/seen"}))
    other = image.replace(":1", ":2")
    build_image(other, f"FROM {TAG}\n")
    said = person.types(f"hecaton job new {payload} {other} --protocol http --port 9100 --wait")
    assert json.loads(said.out) == {"query": "", "word": None}


def test_what_means_nothing_to_the_image_is_refused(image: str, admin: Client, tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="--port means nothing to a native job"):
        admin.submit(PYTHON, {}, port=80)
    script = tmp_path / "script.sh"
    script.write_text("true\n")
    with pytest.raises(BadRequest, match="brings its own program"):
        admin.submit(image, mode="script", file=script, protocol="http")


@pytest.fixture
def own(image: str, tmp_path: Path) -> Iterator[LocalCluster]:
    """A cluster that a test may damage."""
    with LocalCluster(tmp_path / "own") as cluster:
        cluster.start_worker("one")
        defaults: dict[str, str | int] = {"protocol": "http", "port": 9100, "ready": "/health"}
        cluster.client().add_image(image, verify=False, defaults=defaults)
        yield cluster


def test_a_worker_that_comes_back_goes_on_with_its_server(own: LocalCluster, image: str) -> None:
    client = own.client()
    assert client.run(image, {"path": "/slow?0"}, wait=PATIENCE) == 1
    client.run(image, {"number": 1}, wait=PATIENCE)
    own.workers["one"].kill()
    own.start_worker("one")
    assert client.run(image, {"path": "/slow?0"}, wait=PATIENCE) == 2, "the same container"
    job = client.submit(image, {"number": 2})
    assert job.result(PATIENCE) == {"number": 2}
    assert job.logs().count("serving") == 1, "what it prints for its next job is in that one's log, and nothing else is"


def test_a_request_that_was_on_its_way_with_a_killed_worker_is_asked_again(own: LocalCluster, image: str) -> None:
    client = own.client()
    job = running(client.submit(image, {"path": "/slow?1.5"}))
    own.workers["one"].kill()
    own.start_worker("one")
    view = job.wait(PATIENCE)
    assert view.state == "FINISHED"
    assert client.result(view) in (1, 2)
