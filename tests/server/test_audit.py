"""Each login, each refusal and each change for others is one line in the server's log, which holds no secret."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog

from hecaton.core.errors import BadRequest, Unauthenticated
from hecaton.core.model import Role
from hecaton.server.accounts.audit import MAX_REFUSALS, REFUSALS_PER_SECOND, Audit, Deed
from hecaton.server.accounts.permissions import Action
from hecaton.wire.channel import CLOSE_UNAUTHENTICATED
from tests.server.people import Person
from tests.server.running import IMAGE, PASSWORD, Running
from tests.server.scripted_worker import ScriptedWorker
from tests.server.server_process import ServerProcess
from tests.server.test_access import _body, _parties, _row

# Written down apart from the code: what is recorded although it is allowed, by whom.
ADMINS = {
    "POST /v1/keys", "POST /v1/users", "PATCH /v1/users/{name}", "DELETE /v1/users/{name}", "POST /v1/usage/clear",
    "POST /v1/images", "PATCH /v1/images/{name:path}", "DELETE /v1/images/{name:path}",
    "DELETE /v1/workers/{name}", "POST /v1/workers/{name}/drain", "POST /v1/workers/{name}/undrain",
    "POST /v1/jobs/{job}/cancel", "POST /v1/jobs/{job}/retry",
    "POST /v1/batches/{batch}/cancel", "POST /v1/batches/{batch}/retry",
    "POST /v1/batches/{batch}/resume", "POST /v1/batches/{batch}/items",
}  # fmt: skip
RECORDED = {
    **{row: {Role.ADMIN} for row in ADMINS},
    "POST /v1/workers": {Role.ADMIN, Role.WORKER},
    "PUT /v1/users/{name}/password": {Role.ADMIN, Role.USER},
}
COMING_IN = {"POST /v1/login", "POST /v1/login/key", "POST /v1/enrol"}

FIELDS = {"event", "log_level", "who", "role", "address", "what", "object", "result"}


@contextmanager
def _audited() -> Iterator[list[Any]]:
    """Fills with the lines of the audit."""
    found: list[Any] = []
    with structlog.testing.capture_logs() as lines:
        yield found
    found += [line for line in lines if line["event"] == "Audit"]


async def test_each_call_of_each_route_by_each_party_is_recorded_as_it_should_be(server: Running) -> None:
    parties = await _parties(server)
    wrong, rows = [], set()
    for route in server.routes:
        row = _row(route)
        rows.add(row)
        path = re.sub(r"\{[^}]+\}", "no-such-thing", route.path.replace("{sha256}", "0" * 64))
        for party in parties:
            with _audited() as lines:
                reply = await party.person.call(route.method, path, body=_body(route))
            refused = reply.status in (401, 403)
            expected = refused or row in COMING_IN or party.role in RECORDED.get(row, ())
            if len(lines) != expected:
                wrong.append(f"{row} by {party.name}: {len(lines)} lines, expected {expected:d}")
            for line in lines:
                assert set(line) == FIELDS, line
                assert line["address"] == "127.0.0.1"
                assert (line["log_level"] == "warning") is (refused or row in COMING_IN), line
                if row not in COMING_IN:
                    assert line["who"] == (party.name if party.name != "nobody" else "unknown"), (row, line)
    assert wrong == []
    assert {*RECORDED, *COMING_IN} <= rows


async def test_a_line_says_who_did_what_to_whom_from_where_and_what_came_of_it(server: Running) -> None:
    admin = server.admin

    async def said(person: Person, method: str, path: str, value: Any = None) -> tuple[str, ...]:
        with _audited() as lines:
            await person.call(method, path, value)
        [line] = lines
        return tuple(line[name] for name in ("who", "role", "what", "object", "result"))

    users, images = "listing, creating, changing and deleting users", "changing and removing images"
    new = {"username": "ada", "password": PASSWORD}
    assert await said(admin, "POST", "/v1/users", new) == ("admin", "admin", users, "ada", "done")
    assert await said(admin, "POST", "/v1/users", new) == ("admin", "admin", users, "ada", "conflict")
    role = {"role": "worker"}
    assert await said(admin, "PATCH", "/v1/users/ada", role) == ("admin", "admin", users, "ada: worker", "done")
    assert await said(admin, "PATCH", "/v1/users/ada", {"role": "user"}) == (
        "admin",
        "admin",
        users,
        "ada: user",
        "done",
    )
    login = {"username": "ADA", "password": PASSWORD}
    assert await said(server.nobody, "POST", "/v1/login", login) == ("ada", "user", "logging in", "", "done")
    bad = {"username": "ada", "password": "wrong password"}
    assert await said(server.nobody, "POST", "/v1/login", bad) == ("ada", "user", "logging in", "", "unauthenticated")
    for _ in range(10):
        await server.nobody.call("POST", "/v1/login", bad)
    assert (await said(server.nobody, "POST", "/v1/login", bad))[-1] == "too_many"
    typed = {"username": PASSWORD, "password": "x" * 8}  # into the wrong field
    unknown = ("unknown", "none", "logging in", "", "unauthenticated")
    assert await said(server.nobody, "POST", "/v1/login", typed) == unknown
    image = {"name": IMAGE, "verify": False}
    assert await said(admin, "POST", "/v1/images", image) == ("admin", "admin", "registering images", IMAGE, "done")
    change = {"env": {"TOKEN": "s3cret"}}
    assert await said(admin, "PATCH", f"/v1/images/{IMAGE}", change) == ("admin", "admin", images, IMAGE, "done")
    made = ("admin", "admin", "registering a worker", "w1", "done")
    assert await said(admin, "POST", "/v1/workers", {"name": "w1"}) == made
    drained = ("admin", "admin", "draining and removing workers", "w1", "done")
    assert await said(admin, "POST", "/v1/workers/w1/drain") == drained
    key = (await admin.must("POST", "/v1/keys", {"scope": "enrol"}))["key"]
    joined = ("admin", "admin", "registering a worker with a key", "w2", "done")
    assert await said(server.nobody, "POST", "/v1/enrol", {"key": key, "name": "w2"}) == joined
    password = ("admin", "admin", "changing a password", "ada", "done")
    assert await said(admin, "PUT", "/v1/users/ada/password", {"password": "another password"}) == password
    job = await admin.submit(IMAGE)
    assert await said(admin, "POST", f"/v1/jobs/{job}/cancel") == (
        "admin", "admin", "cancelling jobs and batches", job, "done",
    )  # fmt: skip


async def test_what_one_does_with_ones_own_is_nobodys_business(server: Running) -> None:
    await server.image()
    ada = await server.user("ada")
    with _audited() as lines:
        job = await ada.submit(IMAGE, "secret")
        await ada.get(f"/v1/jobs/{job}")
        await ada.must("POST", f"/v1/jobs/{job}/cancel")
        await ada.upload(b"content")
        await ada.get("/v1/jobs")
        assert (await ada.call("GET", "/v1/jobs/nothing")).status == 404
    assert lines == []


@pytest.mark.parametrize("token", ["", "hkw_unknown", "eyJ0.eyJ0.x"])
async def test_a_worker_that_is_refused_at_the_channel_is_a_line(server: Running, token: str) -> None:
    worker = ScriptedWorker(server.session, server.url, token)
    server.workers.append(worker)
    with _audited() as lines:
        await worker.open()
        assert await worker.closed() == CLOSE_UNAUTHENTICATED
    [line] = lines
    assert (line["who"], line["what"], line["result"]) == ("unknown", "being given jobs", "unauthenticated")


def test_strangers_fill_no_disk_and_their_number_is_known() -> None:
    now = 0.0
    audit = Audit(lambda: now)
    stranger, login = Deed(Action.SEE_JOBS, "192.0.2.1"), Deed(Action.LOG_IN, "192.0.2.1")
    with _audited() as lines:
        for _ in range(MAX_REFUSALS + 500):
            audit.failed(stranger, Unauthenticated("no"))
    assert len(lines) == MAX_REFUSALS
    with _audited() as lines:  # guesses at passwords are not hidden by that, and what is done is always written
        audit.failed(login, Unauthenticated("no"))
        audit.done(Deed(Action.MANAGE_USERS, "192.0.2.1", "admin", Role.ADMIN, "ada"))
    assert len(lines) == 2
    now = 1.0
    with _audited() as lines:
        for _ in range(100):
            audit.failed(stranger, Unauthenticated("no"))
    assert len(lines) == REFUSALS_PER_SECOND
    assert lines[0]["not_written"] == 500
    assert all("not_written" not in line for line in lines[1:])


def test_nor_do_users_by_what_fails() -> None:
    audit = Audit(lambda: 0.0)
    own = Deed(Action.SET_PASSWORD, "192.0.2.1", "bob", Role.USER, "bob")
    with _audited() as lines:
        for _ in range(MAX_REFUSALS + 500):
            audit.failed(own, BadRequest("this is no JSON"))
        audit.failed(own, None)  # a fault of the server is always written
    assert len(lines) == MAX_REFUSALS + 1


async def test_the_log_of_a_server_has_these_lines_and_no_secret(tmp_path: Path) -> None:
    process = ServerProcess(tmp_path / "home")
    try:
        async with aiohttp.ClientSession() as session:
            nobody = Person(session, process.ready())
            admin = await nobody.login("admin", PASSWORD)
            evil = "\x1b]52;c;eA==\x07\n2026-01-01 00:00:00 [info     ] Audit who=admin"
            await admin.call("POST", "/v1/users", {"username": evil, "password": "first password"})
            await admin.must("POST", "/v1/users", {"username": "ada", "password": "first password"})
            await nobody.call("POST", "/v1/login", {"username": "ada", "password": "wrong password"})
            await nobody.call("GET", "/v1/jobs", headers={"Authorization": "Bearer stolen-token"})
    finally:
        process.kill()
    lines = [line for line in process.said.splitlines() if " Audit " in line]
    results = [re.search(r"result=(\w+)", line) for line in lines]
    found = [match[1] for match in results if match]
    assert found == ["done", "bad_request", "done", "unauthenticated", "unauthenticated"]
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \[\w+ *\] Audit ", line) for line in lines)
    for secret in (PASSWORD, "first password", "wrong password", "stolen-token", str(admin.token), "\x1b", "\x07"):
        assert secret not in process.said
