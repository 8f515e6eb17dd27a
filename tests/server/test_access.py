"""Who may call what: every route by every kind of caller, from the table of routes itself."""

from __future__ import annotations

import re
from typing import Any

import pytest

from hecaton.server.web.http import Access
from tests.server.people import Person
from tests.server.running import IMAGE, PASSWORD, Running

WORKER_PATH = "/v1/worker/jobs/{job}/blobs/{sha256}"

# 401: not without a token. 403: known, but not allowed. "in": past the door, whatever comes then.
OPEN = {"anonymous": "in", "user": "in", "admin": "in", "worker role": "in", "worker token": "in"}
PEOPLE = {"anonymous": 401, "user": "in", "admin": "in", "worker role": "in", "worker token": 403}
ADMIN = {"anonymous": 401, "user": 403, "admin": "in", "worker role": 403, "worker token": 403}
ENROL = {"anonymous": 401, "user": 403, "admin": "in", "worker role": "in", "worker token": 403}
WORKER = {"anonymous": 401, "user": 403, "admin": 403, "worker role": 403, "worker token": "in"}

EXPECTED: dict[str, dict[str, Any]] = {
    "GET /healthz": OPEN,
    "GET /openapi.json": OPEN,
    "POST /v1/login": OPEN,
    "GET /v1/server": PEOPLE,
    "POST /v1/jobs": PEOPLE,
    "GET /v1/jobs": PEOPLE,
    "GET /v1/jobs/{job}": PEOPLE,
    "GET /v1/jobs/{job}/payload": PEOPLE,
    "GET /v1/jobs/{job}/result": PEOPLE,
    "GET /v1/jobs/{job}/logs": PEOPLE,
    "GET /v1/jobs/{job}/events": PEOPLE,
    "POST /v1/jobs/{job}/cancel": PEOPLE,
    "POST /v1/jobs/{job}/retry": PEOPLE,
    "POST /v1/batches": PEOPLE,
    "GET /v1/batches": PEOPLE,
    "GET /v1/batches/{batch}": PEOPLE,
    "GET /v1/batches/{batch}/events": PEOPLE,
    "GET /v1/batches/{batch}/results": PEOPLE,
    "POST /v1/batches/{batch}/items": PEOPLE,
    "POST /v1/batches/{batch}/resume": PEOPLE,
    "POST /v1/batches/{batch}/cancel": PEOPLE,
    "POST /v1/batches/{batch}/retry": PEOPLE,
    "PUT /v1/blobs/{sha256}": PEOPLE,
    "HEAD /v1/blobs/{sha256}": PEOPLE,
    "GET /v1/users": ADMIN,
    "POST /v1/users": ADMIN,
    "DELETE /v1/users/{name}": ADMIN,
    # Only one's own, unless admin: test_accounts.
    "PUT /v1/users/{name}/password": PEOPLE,
    "GET /v1/images": PEOPLE,
    "POST /v1/images": ADMIN,
    "GET /v1/images/{name:path}": PEOPLE,
    "PATCH /v1/images/{name:path}": ADMIN,
    "DELETE /v1/images/{name:path}": ADMIN,
    "GET /v1/workers": PEOPLE,
    "POST /v1/workers": ENROL,
    "DELETE /v1/workers/{name}": ADMIN,
    "POST /v1/workers/{name}/drain": ADMIN,
    "POST /v1/workers/{name}/undrain": ADMIN,
    f"GET {WORKER_PATH}": WORKER,
    f"PUT {WORKER_PATH}": WORKER,
}


def test_every_access_has_a_column() -> None:
    assert {access.name for access in Access} == {"OPEN", "USER", "ADMIN", "ENROL", "WORKER"}


async def test_every_route_has_a_row_and_every_row_a_route(server: Running) -> None:
    assert {f"{route.method} {route.path}" for route in server.routes} == set(EXPECTED)


async def test_every_route_admits_whom_the_table_says_and_nobody_else(server: Running) -> None:
    made = await server.admin.must("POST", "/v1/workers", {"name": "machine"})
    callers = {
        "anonymous": server.nobody,
        "user": await server.user("ada"),
        "admin": await server.user("root2", role="admin"),
        "worker role": await server.user("robot", role="worker"),
        "worker token": Person(server.session, server.url, made["token"]),
    }
    wrong = []
    for row, expected in EXPECTED.items():
        method, _, path = row.partition(" ")
        path = re.sub(r"\{sha256\}", "0" * 64, path)
        path = re.sub(r"\{[^}]+\}", "no-such-thing", path)
        for name, caller in callers.items():
            reply = await caller.call(method, path, body=b"{}" if method in ("POST", "PUT", "PATCH") else None)
            outcome = reply.status if reply.status in (401, 403) else "in"
            own_password = row.startswith("PUT /v1/users") and outcome == 403
            if outcome != expected[name] and not own_password:
                wrong.append(f"{row} by {name}: {outcome}, expected {expected[name]}")
            assert reply.status < 500, (row, name, reply.body)
    assert wrong == []


async def test_a_worker_role_can_enrol_workers_and_nothing_else_special(server: Running) -> None:
    robot = await server.user("robot", role="worker")
    made = await robot.must("POST", "/v1/workers", {"name": "machine"})
    (view,) = await server.admin.get("/v1/workers")
    assert (view["name"], view["registered_by"]) == ("machine", "robot")
    assert (await robot.call("DELETE", "/v1/workers/machine")).status == 403
    assert made["token"].startswith("hkw_")


@pytest.mark.parametrize(
    ("method", "suffix"),
    [
        ("GET", ""),
        ("GET", "?wait=1"),
        ("GET", "/payload"),
        ("GET", "/result"),
        ("GET", "/logs"),
        ("GET", "/events"),
        ("POST", "/cancel"),
        ("POST", "/retry"),
    ],
)
async def test_a_job_of_somebody_else_looks_like_one_that_does_not_exist(
    server: Running, method: str, suffix: str
) -> None:
    await server.image()
    ada, bob = await server.user("ada"), await server.user("bob")
    made = await ada.must("POST", "/v1/jobs", {"image": IMAGE, "input": "secret"})
    missing_id = made["id"][:-1] + ("0" if made["id"][-1] != "0" else "1")
    for job, missing in ((made["id"], missing_id), (str(made["index"]), str(made["index"] + 1000))):
        foreign = await bob.call(method, f"/v1/jobs/{job}{suffix}")
        absent = await bob.call(method, f"/v1/jobs/{missing}{suffix}")
        assert foreign.status == absent.status == 404
        assert foreign.body.replace(job.encode(), b"ID") == absent.body.replace(missing.encode(), b"ID")
    assert await ada.state(made["id"]) == "IN_QUEUE"
    assert (await server.admin.call("GET", f"/v1/jobs/{made['id']}")).status == 200


async def test_roles_are_read_anew_on_every_call_and_not_from_the_token(server: Running) -> None:
    second = await server.user("second", role="admin")
    await second.get("/v1/users")
    await server.admin.must("DELETE", "/v1/users/second")
    await server.admin.must("POST", "/v1/users", {"username": "second", "password": PASSWORD})
    assert (await second.call("GET", "/v1/users")).status == 401


async def test_paths_that_are_not_part_of_the_api_say_so(server: Running) -> None:
    for method, path in (
        ("GET", "/"),
        ("GET", "/v1/jobs/"),
        ("GET", "/v2/jobs"),
        ("DELETE", "/v1/jobs"),
        ("GET", "//"),
    ):
        reply = await server.admin.call(method, path)
        assert (reply.status, "is not part of the API" in reply.message) == (404, True)
