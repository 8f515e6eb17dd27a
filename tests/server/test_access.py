"""Who may call what: every route of the application by every kind of caller, generated from routes and permissions."""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

import hecaton.server
from hecaton.core.model import Role
from hecaton.server.accounts.auth import Caller
from hecaton.server.accounts.permissions import OPEN_TO_ALL, PERMISSIONS, REGISTERED_WORKER, Action, Scope, scope
from hecaton.server.web.http import Route
from hecaton.wire import api
from hecaton.wire.channel import CLOSE_UNAUTHENTICATED
from tests.server.people import ENDED, Person, Reply, eventually
from tests.server.running import IMAGE, PASSWORD, Running
from tests.server.scripted_worker import ScriptedWorker

WORKER_PATH = "/v1/worker/jobs/{job}/blobs/{sha256}"

AUDITOR: Any = "auditor"
"""A role that somebody invents and forgets to give a row."""

# What holds today, written down apart from the code: nothing here changes by accident.
OPEN = "everybody, without a token"
WORKER = "a registered worker, by its own token"
LOGGED_IN = {Role.USER: Scope.ALL, Role.WORKER: Scope.ALL, Role.ADMIN: Scope.ALL}
PEOPLE = {Role.USER: Scope.ALL, Role.ADMIN: Scope.ALL}
OWNERS = {Role.USER: Scope.OWN, Role.ADMIN: Scope.ALL}
UPLOADERS = {Role.USER: Scope.OWN, Role.ADMIN: Scope.OWN}
ENROL = {Role.WORKER: Scope.ALL, Role.ADMIN: Scope.ALL}
ADMIN = {Role.ADMIN: Scope.ALL}

EXPECTED: dict[str, dict[Role, Scope] | str] = {
    "GET /": OPEN,
    "GET /healthz": OPEN,
    "GET /openapi.json": OPEN,
    "POST /v1/login": OPEN,
    "POST /v1/login/key": OPEN,
    "POST /v1/enrol": OPEN,
    "POST /v1/keys": ADMIN,
    "GET /v1/server": LOGGED_IN,
    "POST /v1/jobs": UPLOADERS,
    "POST /v1/jobs/followed": UPLOADERS,
    "GET /v1/jobs": OWNERS,
    "GET /v1/jobs/{job}": OWNERS,
    "GET /v1/jobs/{job}/payload": OWNERS,
    "GET /v1/jobs/{job}/result": OWNERS,
    "GET /v1/jobs/{job}/logs": OWNERS,
    "GET /v1/jobs/{job}/events": OWNERS,
    "GET /v1/jobs/{job}/files": OWNERS,
    "GET /v1/jobs/{job}/files/{number}": OWNERS,
    "POST /v1/jobs/{job}/cancel": OWNERS,
    "POST /v1/jobs/{job}/retry": OWNERS,
    "POST /v1/batches": UPLOADERS,
    "GET /v1/batches": OWNERS,
    "GET /v1/batches/{batch}": OWNERS,
    "GET /v1/batches/{batch}/events": OWNERS,
    "GET /v1/batches/{batch}/results": OWNERS,
    "POST /v1/batches/{batch}/items": OWNERS,
    "POST /v1/batches/{batch}/resume": OWNERS,
    "POST /v1/batches/{batch}/cancel": OWNERS,
    "POST /v1/batches/{batch}/retry": OWNERS,
    "PUT /v1/blobs/{sha256}": UPLOADERS,
    "HEAD /v1/blobs/{sha256}": UPLOADERS,
    "POST /v1/blobs": UPLOADERS,
    "PUT /v1/folders/{sha256}": UPLOADERS,
    "GET /v1/usage": UPLOADERS,
    "GET /v1/usage/users": ADMIN,
    "POST /v1/usage/clear": OWNERS,
    "GET /v1/users": ADMIN,
    "POST /v1/users": ADMIN,
    "PATCH /v1/users/{name}": ADMIN,
    "DELETE /v1/users/{name}": ADMIN,
    "PUT /v1/users/{name}/password": OWNERS,
    "GET /v1/images": PEOPLE,
    "POST /v1/images": ADMIN,
    "GET /v1/images/{name:path}": PEOPLE,
    "PATCH /v1/images/{name:path}": OWNERS,
    "DELETE /v1/images/{name:path}": OWNERS,
    "GET /v1/workers": PEOPLE,
    "GET /v1/workers/{name}": PEOPLE,
    "POST /v1/workers": ENROL,
    "DELETE /v1/workers/{name}": ADMIN,
    "POST /v1/workers/{name}/drain": ADMIN,
    "POST /v1/workers/{name}/undrain": ADMIN,
    f"GET {WORKER_PATH}": WORKER,
    f"PUT {WORKER_PATH}": WORKER,
    "POST /v1/worker/jobs/{job}/files": WORKER,
    "POST /v1/worker/jobs/{job}/checkpoint": WORKER,
    "GET /v1/worker/jobs/{job}/checkpoint": WORKER,
    "GET /v1/worker/jobs/{job}/checkpoint/{sha256}": WORKER,
    "POST /v1/worker/jobs/{job}/bundle": WORKER,
}


def _permission(action: Action) -> dict[Role, Scope] | str:
    if action in OPEN_TO_ALL:
        return OPEN
    if action in REGISTERED_WORKER:
        return WORKER
    return {role: reach for role in Role if (reach := scope(role, action)) is not None}


def _row(route: Route) -> str:
    return f"{route.method} {route.path}"


# -- the table -------------------------------------------------------------------------------------


async def test_every_route_declares_its_action_and_admits_whom_it_always_admitted(server: Running) -> None:
    undeclared = [_row(route) for route in server.routes if not isinstance(route.action, Action)]
    assert undeclared == []
    assert {_row(route): _permission(route.action) for route in server.routes} == EXPECTED


def test_every_role_has_a_row_and_every_action_somebody_who_may_do_it() -> None:
    assert set(PERMISSIONS) == set(Role)
    granted = OPEN_TO_ALL | REGISTERED_WORKER | {action for row in PERMISSIONS.values() for action in row}
    assert granted == set(Action)
    for row in PERMISSIONS.values():
        assert not set(row) & (OPEN_TO_ALL | REGISTERED_WORKER)


def test_only_admins_see_the_environment_of_images() -> None:
    """The one action without a route of its own: it changes what SEE_IMAGES shows (test_images)."""
    assert _permission(Action.SEE_ENVIRONMENT) == ADMIN


def test_nothing_but_the_table_asks_for_a_role() -> None:
    """Only the start of a server does: is there an admin yet?"""
    root = Path(hecaton.server.__file__).parent
    asking = {
        str(path.relative_to(root))
        for path in root.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Compare)
        if any(ast.unparse(part).endswith(".role") for part in (node.left, *node.comparators))
    }
    assert asking == {"accounts/directory.py"}


# -- every route by every caller -------------------------------------------------------------------


class Party(NamedTuple):
    """`role` None: nobody, or the machine with a worker's own token."""

    name: str
    person: Person
    role: Role | None = None
    machine: bool = False

    def may_enter(self, action: Action) -> int | str:
        """What the table says: past the door, or the status of the refusal."""
        if action in OPEN_TO_ALL:
            return "in"
        if self.person.token is None:
            return 401
        if self.machine:
            return "in" if action in REGISTERED_WORKER else 403
        assert self.role is not None
        return 403 if scope(self.role, action) is None else "in"


def _submits(party: Party) -> bool:
    """Whether he may own things."""
    return party.role is not None and scope(party.role, Action.SUBMIT) is not None


async def _auditor(server: Running) -> Person:
    """Somebody whose role has no row: given to him in the server's memory, since the store knows no such role."""
    person = await server.user("auditor")
    users = server.server.parts.directory._users
    user = server.server.parts.directory.user_by_name("auditor")
    assert user is not None
    users[user.id] = msgspec.structs.replace(user, role=AUDITOR)
    return person


async def _parties(server: Running) -> list[Party]:
    made = await server.admin.must("POST", "/v1/workers", {"name": "machine"})
    people = [Party(f"{role}-person", await server.user(f"{role}-person", role), role) for role in Role]
    return [
        *people,
        Party("auditor", await _auditor(server), AUDITOR),
        Party("nobody", server.nobody),
        Party("machine", Person(server.session, server.url, made["token"]), machine=True),
    ]


def _body(route: Route) -> bytes | None:
    return b"{}" if route.method in ("POST", "PUT", "PATCH") else None


async def test_every_route_admits_whom_the_table_says_and_nobody_else(server: Running) -> None:
    parties = await _parties(server)
    wrong = []
    for route in server.routes:
        path = re.sub(r"\{[^}]+\}", "no-such-thing", route.path.replace("{sha256}", "0" * 64))
        for party in parties:
            reply = await party.person.call(route.method, path, body=_body(route))
            outcome = reply.status if reply.status in (401, 403) else "in"
            expected = party.may_enter(route.action)
            if route.action in (Action.LOG_IN, Action.JOIN) and outcome == 401:
                outcome = "in"  # a wrong password
            if outcome != expected:
                wrong.append(f"{_row(route)} by {party.name}: {outcome}, expected {expected}")
            assert reply.status < 500, (_row(route), party.name, reply.body)
    assert wrong == []


async def test_a_role_without_a_row_may_do_nothing(server: Running) -> None:
    auditor = await _auditor(server)
    for route in server.routes:
        if route.action not in OPEN_TO_ALL:
            path = re.sub(r"\{[^}]+\}", "auditor", route.path.replace("{sha256}", "0" * 64))
            assert (await auditor.call(route.method, path, body=_body(route))).status == 403, _row(route)
    caller = Caller(1, "auditor", AUDITOR, 0)
    assert not any(caller.may(action, owner) for action in Action for owner in (None, 1, 2))


async def test_the_channel_opens_to_a_registered_worker_alone(server: Running) -> None:
    for party in await _parties(server):
        worker = ScriptedWorker(server.session, server.url, party.person.token or "")
        server.workers.append(worker)
        if party.machine:
            await worker.connect()
        else:
            await worker.open()
            assert await worker.closed() == CLOSE_UNAUTHENTICATED, party.name


# -- somebody else's -------------------------------------------------------------------------------


class Things(NamedTuple):
    """What one person owns, by the parameter that names it in paths; an index is as good as an id, and can be guessed.
    Jobs and batches are over, so that their events end and nothing more happens to them."""

    job: tuple[str, str]
    batch: tuple[str, str]
    sha256: tuple[str]
    name: tuple[str]
    image: tuple[str]


async def _things(server: Running, person: Person, name: str) -> Things:
    job = await person.must("POST", "/v1/jobs", {"image": IMAGE, "input": name})
    await person.must("POST", f"/v1/jobs/{job['id']}/cancel")
    batch = await person.must("POST", "/v1/batches", {"image": IMAGE, "items": [{"input": name}]})
    await person.must("POST", f"/v1/batches/{batch['id']}/cancel")

    async def over() -> bool:
        return bool((await person.get(f"/v1/batches/{batch['id']}"))["complete"])

    await eventually(over, True)
    sha256 = await person.upload(f"content of {name}".encode())
    await person.must("POST", f"/v1/jobs/{await person.submit(f'{name}/image')}/cancel")
    jobs, batches = (job["id"], str(job["index"])), (batch["id"], str(batch["index"]))
    return Things(jobs, batches, (sha256,), (name,), (f"{name}/image",))


ABSENT = Things(
    ("0192f0c1-0000-7000-8000-000000000000", "987654"),
    ("0192f0c1-0000-7000-8000-000000000000", "987654"),
    (hashlib.sha256(b"never uploaded").hexdigest(),),
    ("no-such-user",),
    ("nobodys/image",),
)


def _owned(route: Route) -> str | None:
    """The parameter of a route whose thing belongs to somebody: an action that some role may do with its own only."""
    scopes = {scope(role, route.action) for role in Role}
    parameters = re.findall(r"\{(\w+)", route.path.replace("{name:path}", "{image}"))
    return parameters[0] if Scope.OWN in scopes and parameters else None


async def _ask(person: Person, route: Route, parameter: str, value: str) -> Reply:
    """With a body that makes sense, so that it is not that which is refused. A new upload would be one's own."""
    bodies: dict[Any, Any] = {
        api.NewItems: {"items": [], "offset": 0},
        api.NewPassword: {"password": "x" * 12, "old_password": PASSWORD},
        api.ImageChange: {},
    }
    path = route.path.replace("{name:path}", "{image}").replace(f"{{{parameter}}}", value).replace("{number}", "0")
    reply = await person.call(route.method, path, bodies.get(route.body))
    return Reply(reply.status, {}, reply.body.replace(value.encode(), b"THING"))


async def test_what_belongs_to_somebody_else_looks_like_what_does_not_exist(server: Running) -> None:
    await server.image()
    ada = await _things(server, await server.user("ada"), "ada")
    people = [party for party in await _parties(server) if _submits(party)]
    own = {party.name: await _things(server, party.person, party.name) for party in people}
    asked, wrong = set(), []
    for route in server.routes:
        parameter = _owned(route)
        if parameter is None or (route.method == "PUT" and parameter == "sha256"):
            continue
        for party in people:
            assert party.role is not None
            names = zip(*(getattr(things, parameter) for things in (own[party.name], ada, ABSENT)), strict=True)
            for his, hers, none in names:
                absent = await _ask(party.person, route, parameter, none)
                foreign = await _ask(party.person, route, parameter, hers)
                # The name of an image means one's own, or the registered one: nobody can name somebody else's.
                if (foreign == absent) is not (scope(party.role, route.action) is Scope.OWN or parameter == "image"):
                    wrong.append(f"{_row(route)} by {party.name} with ada's: {foreign.status}, {foreign.body!r}")
                mine = await _ask(party.person, route, parameter, his)
                if mine == absent or mine.status in (401, 403):
                    wrong.append(f"{_row(route)} by {party.name} with his own: {mine.status}, {mine.body!r}")
            if route.action is Action.SET_PASSWORD:  # which has ended all his tokens
                party.person.token = (await server.nobody.login(party.name, "x" * 12)).token
        asked.add(parameter)
    assert wrong == []
    assert asked == set(Things._fields)


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/batches"])
async def test_lists_hold_everything_for_whom_the_table_lets_see_it_and_ones_own_for_others(
    server: Running, path: str
) -> None:
    await server.image()
    await _things(server, await server.user("ada"), "ada")
    for party in await _parties(server):
        if not _submits(party):
            continue
        await _things(server, party.person, party.name)
        found = await party.person.get(path)
        owners = {item["owner"] for item in (found["jobs"] if path == "/v1/jobs" else found)}
        assert party.name in owners
        assert party.role is not None
        assert ("ada" in owners) is (scope(party.role, Action.SEE_JOBS) is Scope.ALL), party.name


async def test_a_waiting_job_of_somebody_else_stays_as_it_is(server: Running) -> None:
    """By id and by index, which anybody can guess."""
    await server.image()
    ada, bob = await server.user("ada"), await server.user("bob")
    made = await ada.must("POST", "/v1/jobs", {"image": IMAGE, "input": "secret"})
    many = await ada.must("POST", "/v1/batches", {"image": IMAGE, "items": [{"input": "secret"}], "closed": False})
    items = [job["id"] for job in (await ada.get("/v1/jobs"))["jobs"] if job["id"] != made["id"]]
    for path in (
        *(f"/v1/jobs/{job}" for job in (made["id"], made["index"], *items)),
        *(f"/v1/batches/{batch}" for batch in (many["id"], many["index"])),
    ):
        assert (await bob.call("GET", f"{path}?wait=1" if "/jobs/" in path else path)).status == 404
        for suffix in ("cancel", "retry", "resume", "items"):
            reply = await bob.call("POST", f"{path}/{suffix}", {"items": [{"input": 1}], "offset": 1})
            assert reply.status in (400, 404), (path, suffix)
    states = [job["state"] for job in (await ada.get("/v1/jobs"))["jobs"]]
    assert states == ["IN_QUEUE", "IN_QUEUE"]
    assert not set(states) & set(ENDED)


# -- ids in bodies ---------------------------------------------------------------------------------


def _fields(kind: type) -> Iterator[str]:
    """`Type.field` for everything that may stand in a body of this type."""
    for field in msgspec.structs.fields(kind):
        yield f"{kind.__name__}.{field.name}"
        inner = msgspec.inspect.type_info(field.type)
        for part in (inner, *getattr(inner, "types", ()), getattr(inner, "item_type", None)):
            if isinstance(part, msgspec.inspect.StructType):
                yield from _fields(part.cls)


def _requests(sha256: str, size: int) -> dict[str, list[Any]]:
    """Bodies that name an upload, in every place where one can be named."""
    payload = {"payload": {"sha256": sha256, "size": size}}
    file = {"mode": "script", "file": sha256, "file_name": "a.py"}
    return {
        "/v1/jobs": [payload, file, {**file, **payload}],
        "/v1/jobs?wait=0": [payload],
        "/v1/jobs/followed?wait=0": [payload],
        "/v1/batches": [
            {"items": [{"input": 1}, payload]},
            {**file, "items": [{"input": 1}]},
            {**file, "items": [payload]},
        ],
        "/v1/batches/{open}/items": [
            {"items": [payload], "offset": 0},
            {"items": [{"input": 1}, payload], "offset": 0},
        ],
    }


async def test_every_body_that_names_an_upload_is_tried_below(server: Running) -> None:
    naming = re.compile(r"sha256|file$|blob|(^|_)(id|job|jobs|batch|owner|user|key)$|retry_of")
    found = {
        name
        for route in server.routes
        if route.body is not None
        for name in _fields(route.body)
        if naming.search(name.partition(".")[2])
    }
    repaired = {"RetryBatch.file"}  # tests/server/test_batches.py: its jobs have to have failed first
    keys = {"Enrolment.key", "KeyLogin.key"}  # tests/cli/test_join.py: they are a right themselves
    made = {"KeptFile.sha256", "Piece.blob"}  # tests/server/test_files.py: a worker says them
    assert found == {"BlobRef.sha256", "NewJob.file", "NewBatch.file"} | repaired | keys | made


async def test_an_upload_of_somebody_else_is_as_good_as_none_in_every_body(server: Running) -> None:
    """An admin's jobs run as the admin's: nobody may use what others have uploaded."""
    await server.image()
    content = b"print('secret')"
    hers = await (await server.user("ada")).upload(content)
    for party in await _parties(server):
        if not _submits(party):
            continue
        empty = await party.person.must("POST", "/v1/batches", {"image": IMAGE, "items": [], "closed": False})
        for size in (len(content), 1):
            foreign, absent = _requests(hers, size), _requests(ABSENT.sha256[0], size)
            for path, bodies in foreign.items():
                base = {} if "items" in path else {"image": IMAGE}
                for body, other in zip(bodies, absent[path], strict=True):
                    where = path.replace("{open}", empty["id"])
                    first = await party.person.call("POST", where, {**base, **body})
                    second = await party.person.call("POST", where, {**base, **other})
                    assert (first.status, second.status) == (404, 404), (path, body, first.body)
                    assert first.body.replace(hers.encode(), b"ID") == second.body.replace(
                        ABSENT.sha256[0].encode(), b"ID"
                    )
        assert (await party.person.get(f"/v1/batches/{empty['id']}"))["size"] == 0
    assert (await server.admin.get("/v1/jobs"))["jobs"] == []


async def test_an_idempotency_key_of_somebody_else_means_nothing(server: Running) -> None:
    await server.image()
    ada, bob = await server.user("ada"), await server.user("bob")
    hers, his = await _things(server, ada, "ada"), await _things(server, bob, "bob")
    requests: list[tuple[str, dict[str, Any] | None]] = [
        ("/v1/jobs", {"image": IMAGE, "input": "secret"}),
        ("/v1/batches", {"image": IMAGE, "items": [{"input": "secret"}]}),
        ("/v1/jobs/{job}/retry", None),
    ]
    for number, (path, request) in enumerate(requests):
        key = {"Idempotency-Key": f"key {number}"}
        first = await ada.must("POST", path.replace("{job}", hers.job[0]), request, headers=key)
        second = await bob.call("POST", path.replace("{job}", his.job[0]), request, headers=key)
        assert (second.status, second.json()["duplicate"]) == (201, False)
        assert second.json()["id"] != first["id"]
        if request is not None:
            other = await bob.call("POST", path, {**request, "priority": 3}, headers=key)
            assert (other.status, first["id"] in other.message, second.json()["id"] in other.message) == (
                409,
                False,
                True,
            )


# -- and besides -----------------------------------------------------------------------------------


async def test_a_worker_role_can_enrol_workers_and_nothing_else_special(server: Running) -> None:
    robot = await server.user("robot", role="worker")
    made = await robot.must("POST", "/v1/workers", {"name": "machine"})
    (view,) = await server.admin.get("/v1/workers")
    assert (view["name"], view["registered_by"]) == ("machine", "robot")
    assert (await robot.get("/v1/server"))["role"] == "worker"
    for method, path in (("DELETE", "/v1/workers/machine"), ("POST", "/v1/jobs"), ("GET", "/v1/images")):
        assert (await robot.call(method, path, {} if method == "POST" else None)).status == 403
    assert made["token"].startswith("hkw_")


async def test_roles_are_read_anew_on_every_call_and_not_from_the_token(server: Running) -> None:
    second = await server.user("second", role="admin")
    await second.get("/v1/users")
    await server.admin.must("DELETE", "/v1/users/second")
    await server.admin.must("POST", "/v1/users", {"username": "second", "password": PASSWORD})
    assert (await second.call("GET", "/v1/users")).status == 401


async def test_paths_that_are_not_part_of_the_api_say_so(server: Running) -> None:
    for method, path in (
        ("GET", "/v1/jobs/"),
        ("GET", "/v2/jobs"),
        ("DELETE", "/v2/jobs"),
        ("GET", "//"),
    ):
        reply = await server.admin.call(method, path)
        assert (reply.status, "is not part of the API" in reply.message) == (404, True)
