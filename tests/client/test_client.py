"""Every call of the SDK, as the server sees it."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hecaton.client import BadRequest, Client, NotFound, TooLarge, Unauthenticated, profiles
from hecaton.client.profiles import Profile
from hecaton.client.submission import new_key
from hecaton.core.model import INLINE_LIMIT, Mode, Role
from tests.client.scripted import Answer, ScriptedServer, Seen, error, reply
from tests.client.views import submitted, view

USER = {"username": "bob", "role": "user", "created_at": 1.0}
IMAGE = {
    "name": "python:3.9-slim", "digest": None, "description": "", "env": None, "env_revision": 1, "created_at": 1.0,
    "updated_at": 1.0, "warning": "registry unreachable",
}  # fmt: skip
WORKER = {
    "id": "w1", "name": "attic", "status": "ONLINE", "last_seen": 1.0, "runtime": "docker", "version": "2.0.0",
    "registered_by": "admin",
}  # fmt: skip
USAGE = {
    "username": "bob", "payloads": 1, "results": 2, "logs": 3, "files": 4, "total": 10, "max_bytes": 100, "waiting": 5,
    "max_waiting": 50, "kinds": 1, "max_kinds": 200, "running": 2, "max_running": None,
}  # fmt: skip
DONE = Answer(204)
Call = Callable[[Client], Any]


@pytest.mark.parametrize(
    ("call", "method", "path", "body", "answer"),
    [
        (lambda c: c.create_user("bob", "pw"), "POST", "/v1/users", {"username": "bob", "password": "pw"}, reply(USER)),
        (lambda c: c.create_user("bob", "pw", "admin"), "POST", "/v1/users",
         {"username": "bob", "password": "pw", "role": "admin"}, reply(USER)),
        (lambda c: c.users(), "GET", "/v1/users", None, reply([USER])),
        (lambda c: c.update_user("b b", uid=7), "PATCH", "/v1/users/b%20b", {"uid": 7}, reply(USER)),
        (lambda c: c.update_user("b b", uid=None), "PATCH", "/v1/users/b%20b", {"uid": None}, reply(USER)),
        (lambda c: c.update_user("b b", "admin"), "PATCH", "/v1/users/b%20b", {"role": "admin"}, reply(USER)),
        (lambda c: c.delete_user("bob"), "DELETE", "/v1/users/bob", None, DONE),
        (lambda c: c.set_password("b b", "new"), "PUT", "/v1/users/b%20b/password", {"password": "new"}, DONE),
        (
            lambda c: c.set_password("bob", "new", "old"), "PUT", "/v1/users/bob/password",
            {"password": "new", "old_password": "old"}, DONE,
        ),
        (lambda c: c.usage(), "GET", "/v1/usage", None, reply(USAGE)),
        (lambda c: c.usage_by_user(), "GET", "/v1/usage/users", None, reply([USAGE])),
        (lambda c: c.clear(60), "POST", "/v1/usage/clear", {"older_than": 60}, reply({"jobs": 1, "usage": USAGE})),
        (lambda c: c.clear(60, "bob"), "POST", "/v1/usage/clear", {"older_than": 60, "username": "bob"},
         reply({"jobs": 1, "usage": USAGE})),
        (lambda c: c.images(), "GET", "/v1/images", None, reply([IMAGE])),
        (lambda c: c.add_image("a/b"), "POST", "/v1/images", {"name": "a/b"}, reply(IMAGE, 201)),
        (lambda c: c.add_image("a/b", "why", verify=False), "POST", "/v1/images",
         {"name": "a/b", "description": "why", "verify": False}, reply(IMAGE, 201)),
        (lambda c: c.image("python:3.9-slim"), "GET", "/v1/images/python%3A3.9-slim", None, reply(IMAGE)),
        (lambda c: c.image("ghcr.io/a/b:1"), "GET", "/v1/images/ghcr.io%2Fa%2Fb%3A1", None, reply(IMAGE)),
        (lambda c: c.update_image("a", env={"K": "V=1"}), "PATCH", "/v1/images/a", {"env": {"K": "V=1"}}, reply(IMAGE)),
        (lambda c: c.update_image("a", env={}), "PATCH", "/v1/images/a", {"env": {}}, reply(IMAGE)),
        (lambda c: c.update_image("a", description="", refresh=True), "PATCH", "/v1/images/a",
         {"description": "", "refresh": True}, reply(IMAGE)),
        (lambda c: c.delete_image("a/b:1"), "DELETE", "/v1/images/a%2Fb%3A1", None, DONE),
        (lambda c: c.add_worker("attic"), "POST", "/v1/workers", {"name": "attic"},
         reply({"id": "w1", "name": "attic", "token": "hw_x"}, 201)),
        (lambda c: c.workers(), "GET", "/v1/workers", None, reply([WORKER])),
        (lambda c: c.remove_worker("attic"), "DELETE", "/v1/workers/attic", None, DONE),
        (lambda c: c.drain_worker("attic"), "POST", "/v1/workers/attic/drain", None, reply(WORKER)),
        (lambda c: c.undrain_worker("attic"), "POST", "/v1/workers/attic/undrain", None, reply(WORKER)),
        (lambda c: c.job(7), "GET", "/v1/jobs/7", None, reply(view())),
        (lambda c: c.cancel(7), "POST", "/v1/jobs/7/cancel", None, reply(view())),
        (lambda c: c.retry("j"), "POST", "/v1/jobs/j/retry", None, submitted()),
        (lambda c: c.logs("j"), "GET", "/v1/jobs/j/logs", None, Answer(200, b"hello\n")),
    ],
)  # fmt: skip
def test_each_call_is_one_request(
    server: ScriptedServer, client: Client, call: Call, method: str, path: str, body: Any, answer: Answer
) -> None:
    server.on(method, path, answer)
    call(client)
    (seen,) = server.seen
    assert (seen.method, seen.path) == (method, path)
    assert (seen.json() if seen.body else None) == body
    assert seen.headers["authorization"] == "Bearer t0ken"


def test_answers_are_typed(server: ScriptedServer, client: Client) -> None:
    server.on("GET", "/v1/images", reply([IMAGE]))
    server.on("GET", "/v1/users", reply([USER]))
    assert client.images()[0].warning == "registry unreachable"
    assert client.users()[0].role is Role.USER


def test_a_login_is_used_from_then_on(server: ScriptedServer) -> None:
    server.on("POST", "/v1/login", reply({"token": "fresh", "username": "ada", "role": "admin", "expires_at": 9.0}))
    server.on("GET", "/v1/users", reply([]))
    with Client(server.url) as client:
        with pytest.raises(Unauthenticated):
            _ = client.token
        assert client.login("ada", "pw").role is Role.ADMIN
        client.users()
        assert client.token == "fresh"
    login, users = server.seen
    assert login.json() == {"username": "ada", "password": "pw"}
    assert "authorization" not in login.headers
    assert users.headers["authorization"] == "Bearer fresh"


def test_pages_of_jobs(server: ScriptedServer, client: Client) -> None:
    server.on("GET", "/v1/jobs", reply({"jobs": [], "next": "12"}))
    page = client.jobs(state="FAILED", limit=2, before="20")
    assert server.seen[0].query == {"state": "FAILED", "limit": "2", "before": "20"}
    client.jobs(before=page.next)
    assert server.seen[1].query == {"limit": "50", "before": "12"}


@pytest.mark.parametrize(
    "call",
    [
        lambda c: c.jobs(state="DONE"),
        lambda c: c.create_user("bob", "pw", "boss"),
        lambda c: c.submit("a", mode="magic"),
        lambda c: c.submit("a", mode="script"),
        lambda c: c.submit("a", file="x.py"),
        lambda c: c.submit("a", mode="script", file="x.py", args="--one"),
        lambda c: c.submit("a", 1, payload=b"1"),
        lambda c: c.submit("a", key=""),
        lambda c: c.submit("a", key="x" * 129),
        lambda c: c.submit("a", key="a\nb"),
        lambda c: c.image(""),
        lambda c: c.delete_user(".."),
    ],
)
def test_what_makes_no_sense_is_refused_before_it_is_sent(server: ScriptedServer, client: Client, call: Call) -> None:
    with pytest.raises(BadRequest):
        call(client)
    assert server.seen == []


# -- submit ----------------------------------------------------------------------------------------


def _submitted_body(server: ScriptedServer) -> Any:
    return server.asked("POST", "/v1/jobs")[-1].json()


def test_without_an_image_it_is_the_servers_default_one(server: ScriptedServer, client: Client) -> None:
    server.on("POST", "/v1/jobs", submitted())
    server.on("POST", "/v1/batches", reply({"id": "b", "index": 1, "size": 1, "closed": True, "duplicate": False}, 201))
    client.submit(input={"a": 1})
    assert _submitted_body(server) == {"input": {"a": 1}}
    client.submit_many(None, [1])
    assert "image" not in server.asked("POST", "/v1/batches")[-1].json()


def test_a_value_is_the_input(server: ScriptedServer, client: Client) -> None:
    server.on("POST", "/v1/jobs", submitted())
    job = client.submit("my/image", {"prompt": "ein Kätzchen", "n": [1, 2.5, None]})
    assert _submitted_body(server) == {"image": "my/image", "input": {"prompt": "ein Kätzchen", "n": [1, 2.5, None]}}
    assert (job.index, job.duplicate) == (7, False)


def test_options_travel_as_they_are_given(server: ScriptedServer, client: Client) -> None:
    server.on("POST", "/v1/jobs", submitted())
    client.submit("a", timeout=60, retries=2, priority=-1, queue_ttl=5, key="mine")
    assert _submitted_body(server) == {
        "image": "a", "input": None, "timeout": 60, "retries": 2, "priority": -1, "queue_ttl": 5,
    }  # fmt: skip
    assert server.seen[0].headers["idempotency-key"] == "mine"


@pytest.mark.parametrize(
    ("data", "fields"),
    [
        (b'{"a": 1}', {"input": {"a": 1}}),
        (b"\xef\xbb\xbf[1]", {"input": [1]}),
        (b"not json", {"text": "not json"}),
        (b"", {"text": ""}),
        (b"\x00\xff", {"base64": base64.b64encode(b"\x00\xff").decode()}),
        (b"x" * INLINE_LIMIT, {"text": "x" * INLINE_LIMIT}),
    ],
)
def test_small_payloads_travel_in_the_request(
    server: ScriptedServer, client: Client, tmp_path: Path, data: bytes, fields: dict[str, Any]
) -> None:
    server.on("POST", "/v1/jobs", submitted())
    path = tmp_path / "payload"
    path.write_bytes(data)
    given: dict[str, Any]
    for given in ({"payload": data}, {"payload_file": path}, {"payload_file": str(path)}):
        client.submit("a", **given)
        assert _submitted_body(server) == {"image": "a", **fields}
    assert {seen.path for seen in server.seen} == {"/v1/jobs"}


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"[" + b"1," * INLINE_LIMIT + b"1]", "json"),
        (b"x" * (INLINE_LIMIT + 1), "text"),
        (b"\x01" * INLINE_LIMIT, "text"),  # six times as large inside a message
        (b"\xff" * (INLINE_LIMIT + 1), "bytes"),
    ],
    ids=["json", "text", "control characters", "bytes"],
)
@pytest.mark.parametrize("from_file", [True, False], ids=["file", "memory"])
def test_large_payloads_are_uploaded_once_by_their_hash(
    server: ScriptedServer, client: Client, tmp_path: Path, data: bytes, kind: str, from_file: bool
) -> None:
    sha256 = hashlib.sha256(data).hexdigest()
    blob = f"/v1/blobs/{sha256}"
    server.on("HEAD", blob, Answer(404), Answer(200))
    server.on("PUT", blob, Answer(201))
    server.on("POST", "/v1/jobs", submitted())
    path = tmp_path / "payload"
    path.write_bytes(data)
    for _ in range(2):
        client.submit("a", payload_file=path) if from_file else client.submit("a", payload=data)
        reference = {"sha256": sha256, "size": len(data), **({"kind": kind} if kind != "bytes" else {})}
        assert _submitted_body(server) == {"image": "a", "payload": reference}
    (upload,) = server.asked("PUT", blob)
    assert upload.body == data
    assert upload.headers["content-length"] == str(len(data))


def test_a_large_value_is_uploaded_too(server: ScriptedServer, client: Client) -> None:
    value = ["x" * 1000] * 2000
    data = msgspec.json.encode(value)
    blob = f"/v1/blobs/{hashlib.sha256(data).hexdigest()}"
    server.on("HEAD", blob, Answer(404))
    server.on("PUT", blob, Answer(201))
    server.on("POST", "/v1/jobs", submitted())
    client.submit("a", value)
    assert server.asked("PUT", blob)[0].body == data


def test_an_upload_that_breaks_off_starts_again(server: ScriptedServer, client: Client) -> None:
    data = b"\xff" * 3_000_000
    blob = f"/v1/blobs/{hashlib.sha256(data).hexdigest()}"
    server.on("HEAD", blob, Answer(404))
    server.on("PUT", blob, Answer(0), Answer(502), Answer(201))
    server.on("POST", "/v1/jobs", submitted())
    client.submit("a", payload=data)
    assert [seen.body == data for seen in server.asked("PUT", blob)] == [True, True, True]


def test_an_upload_over_the_limit_is_the_servers_word(server: ScriptedServer, client: Client) -> None:
    data = b"\xff" * (INLINE_LIMIT + 1)
    blob = f"/v1/blobs/{hashlib.sha256(data).hexdigest()}"
    server.on("HEAD", blob, Answer(404))
    server.on("PUT", blob, error(413, "too_large", "the upload has more than 7 bytes"))
    with pytest.raises(TooLarge, match="more than 7 bytes"):
        client.submit("a", payload=data)
    assert server.asked("POST", "/v1/jobs") == []


def test_a_handler_file_travels_once_by_its_hash(server: ScriptedServer, client: Client, tmp_path: Path) -> None:
    handler = tmp_path / "handler.py"
    handler.write_text("from hecaton.serverless import start\n")
    sha256 = hashlib.sha256(handler.read_bytes()).hexdigest()
    server.on("HEAD", f"/v1/blobs/{sha256}", Answer(404), Answer(200))
    server.on("PUT", f"/v1/blobs/{sha256}", Answer(201))
    server.on("POST", "/v1/jobs", submitted())
    for number in range(2):
        client.submit("python:3.9-slim", number, mode="handler", file=handler)
        assert _submitted_body(server) == {
            "image": "python:3.9-slim", "input": number, "mode": "handler", "file": sha256, "file_name": "handler.py",
        }  # fmt: skip
    assert len(server.asked("PUT", f"/v1/blobs/{sha256}")) == 1


def test_a_script_has_arguments(server: ScriptedServer, client: Client, tmp_path: Path) -> None:
    script = tmp_path / "train.sh"
    script.write_text("#!/bin/sh\n")
    sha256 = hashlib.sha256(script.read_bytes()).hexdigest()
    server.on("HEAD", f"/v1/blobs/{sha256}", Answer(200))
    server.on("POST", "/v1/jobs", submitted())
    client.submit("debian", mode=Mode.SCRIPT, file=str(script), args=["--lr", "0.1"])
    body = _submitted_body(server)
    assert (body["mode"], body["file_name"], body["args"]) == ("script", "train.sh", ["--lr", "0.1"])


@pytest.mark.parametrize("field", ["payload_file", "file"])
def test_a_file_that_is_not_there_is_named(server: ScriptedServer, client: Client, tmp_path: Path, field: str) -> None:
    missing: dict[str, Any] = {field: tmp_path / "missing.py"}
    with pytest.raises(BadRequest, match=r"cannot read .*missing\.py: No such file"):
        client.submit("a", mode="handler" if field == "file" else "native", **missing)
    assert server.seen == []


def test_memory_stays_flat_over_a_large_upload(server: ScriptedServer, tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        for _ in range(100):
            file.write(b"\xfe" * 1_000_000)
    with path.open("rb") as file:
        blob = f"/v1/blobs/{hashlib.file_digest(file, 'sha256').hexdigest()}"
    limits = {"version": "2", "username": "ada", "role": "user", "max_payload": 100_000_000, "max_result": 1}
    server.on("GET", "/v1/server", reply(limits))
    server.on("HEAD", blob, Answer(404))
    server.on("PUT", blob, Answer(201))
    server.on("POST", "/v1/jobs", submitted())
    program = (
        "import resource, sys; from hecaton.client import Client\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (90_000_000, 90_000_000))\n"
        "Client(sys.argv[1], follow=False).submit('a', payload_file=sys.argv[2])\n"
    )
    subprocess.run([sys.executable, "-c", program, server.url, str(path)], check=True)
    assert len(server.asked("PUT", blob)[0].body) == 100_000_000


def test_keys_are_uuids_of_version_7_with_the_time_in_front() -> None:
    before = time.time_ns() // 1_000_000
    keys = [uuid.UUID(new_key()) for _ in range(1000)]
    after = time.time_ns() // 1_000_000
    assert len(set(keys)) == 1000
    assert all(key.version == 7 and key.variant == uuid.RFC_4122 for key in keys)
    assert all(before <= key.int >> 80 <= after for key in keys)


# -- profiles --------------------------------------------------------------------------------------


def test_the_active_server_of_the_command_line(
    server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HECATON_HOME", str(tmp_path))
    server.on("GET", "/v1/users", reply([]))
    with pytest.raises(NotFound, match="no server is active"):
        Client.from_profile()
    profiles.add(Profile("lab", server.address, scheme="http", token="kept"))
    profiles.set_active("lab")
    with Client.from_profile() as active, Client.from_profile("lab", token="other") as named:
        active.users()
        named.users()
    assert [seen.headers["authorization"] for seen in server.seen] == ["Bearer kept", "Bearer other"]


# -- import ----------------------------------------------------------------------------------------


def test_importing_the_sdk_loads_no_http_library() -> None:
    program = (
        "import sys; from hecaton.client import Client, JobHandle, profiles\n"
        "from hecaton.client.managers.api import HecatonServer\n"
        "print(sorted({'urllib3', 'http.client', 'platformdirs', 'starlette', 'asyncio'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_a_job_may_be_named_by_anything_without_leaving_its_path(server: ScriptedServer, client: Client) -> None:
    def refuse(seen: Seen) -> Answer:
        return error(404, "not_found", f"no job at {seen.path}")

    server.on("GET", "/v1/jobs/..%2Fusers%3Fa%3D1", refuse)
    with pytest.raises(NotFound, match="no job"):
        client.job("../users?a=1")
