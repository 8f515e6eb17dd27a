"""Rights end when they end: what somebody began under them ends too, whatever state it is in."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from hecaton.core.model import Role, User, WorkerRecord
from hecaton.server.accounts.auth import Caller
from hecaton.server.hub import Holder
from hecaton.wire.channel import CLOSE_UNAUTHENTICATED, PROTOCOL, Assign, Hello, Log, Welcome
from tests.server.people import Person
from tests.server.running import IMAGE, PASSWORD, Running
from tests.server.scripted_worker import ScriptedWorker, slots

SOON = 5.0
"""Seconds within which a removed worker is out."""

HELLO = Hello(PROTOCOL, "2.0.0", "docker", slots(1), ())

# -- removed workers -------------------------------------------------------------------------------


async def _pending(server: Running, worker: ScriptedWorker, count: int) -> list[ScriptedWorker]:
    """More connections with its token, which have said nothing yet."""
    token = worker.http["Authorization"].removeprefix("Bearer ")
    others = [ScriptedWorker(server.session, server.url, token) for _ in range(count)]
    for other in others:
        server.workers.append(other)
        await other.open()
    return others


@pytest.mark.parametrize("count", [1, 5])
async def test_a_removed_worker_is_out_also_where_it_has_said_nothing_yet(server: Running, count: int) -> None:
    """Before the hello, beside one that has said it, however many."""
    await server.image()
    worker = await server.enrol("stolen")
    pending = await _pending(server, worker, count)
    await worker.connect()
    await server.admin.must("DELETE", "/v1/workers/stolen")
    async with asyncio.timeout(SOON):
        for connection in (worker, *pending):
            assert await connection.closed() == CLOSE_UNAUTHENTICATED
    assert not any(isinstance(message, Welcome) for connection in pending for message in connection.heard)


async def test_a_worker_that_is_removed_while_its_token_is_looked_up_gets_no_job(server: Running) -> None:
    """Its hello lies in the connection already when the server learns whose it is."""
    await server.image()
    worker = await server.enrol("stolen")
    channel = server.server.parts.channel
    find, looked_up, removed = channel._find, asyncio.Event(), asyncio.Event()

    async def slow(token: str, address: str) -> WorkerRecord | None:
        record = await find(token, address)
        looked_up.set()
        await removed.wait()
        return record

    channel._find = slow
    opening = asyncio.create_task(worker.open())
    await looked_up.wait()
    await server.admin.must("DELETE", "/v1/workers/stolen")
    job = await server.admin.submit(IMAGE)
    removed.set()
    await opening
    if worker.close_code is None:
        await asyncio.gather(worker.send(HELLO), return_exceptions=True)
    async with asyncio.timeout(SOON):
        assert await worker.closed() == CLOSE_UNAUTHENTICATED
    assert not any(isinstance(message, Welcome | Assign) for message in worker.heard)
    assert await server.admin.state(job) == "IN_QUEUE"


async def test_a_worker_that_is_removed_as_it_says_hello_gets_no_job(server: Running) -> None:
    await server.image()
    worker = await server.enrol("stolen")
    quarantine = server.server.parts.quarantine
    restore, began, removed = quarantine.restore, asyncio.Event(), asyncio.Event()

    async def slow(*given: Any) -> Any:
        began.set()
        await removed.wait()
        return await restore(*given)

    quarantine.restore = slow  # type: ignore[method-assign, assignment]
    await worker.open()
    await worker.send(HELLO)
    await began.wait()
    await server.admin.must("DELETE", "/v1/workers/stolen")
    removed.set()
    async with asyncio.timeout(SOON):
        assert await worker.closed() == CLOSE_UNAUTHENTICATED
    job = await server.admin.submit(IMAGE)
    assert not any(isinstance(message, Welcome | Assign) for message in worker.heard)
    other = await server.worker("other")
    assert (await other.take()).ref.job == job


# -- people ----------------------------------------------------------------------------------------


async def _new_password(server: Running, name: str) -> None:
    await server.admin.must("PUT", f"/v1/users/{name}/password", {"password": "another password"})


async def _delete(server: Running, name: str) -> None:
    await server.admin.must("DELETE", f"/v1/users/{name}")


async def _other_role(server: Running, name: str) -> None:
    await server.admin.must("PATCH", f"/v1/users/{name}", {"role": "worker"})


ENDS = {"new password": _new_password, "deletion": _delete, "another role": _other_role}

OUT = (401, 403)
"""By a token that holds no more, and by a role that may not."""


@asynccontextmanager
async def _reading(person: Person, path: str) -> AsyncIterator[aiohttp.ClientResponse]:
    headers = {"Authorization": f"Bearer {person.token}"}
    async with person.session.get(person.url + path, headers=headers) as response:
        assert response.status == 200
        yield response


async def _rest(response: aiohttp.ClientResponse) -> bytes:
    """What comes until it is over, and that it is cut off: nobody takes it for the whole."""
    got = bytearray()

    async def read() -> None:
        while piece := await response.content.readany():
            got.extend(piece)

    with pytest.raises(aiohttp.ClientError):
        await read()
    return bytes(got)


@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize(
    "stream", ["/v1/jobs/{job}/events", "/v1/batches/{batch}/events", "/v1/batches/{batch}/results?wait=60"]
)
async def test_an_open_stream_ends_with_the_right_to_it(server: Running, stream: str, how: str) -> None:
    """An admin's, over jobs of somebody else: such an account can be deleted while they run."""
    await server.image()
    ada = await server.user("ada")
    boss = await server.user("boss", "admin")
    worker = await server.worker()
    made = await ada.must("POST", "/v1/batches", {"image": IMAGE, "items": [{"input": 1}, {"input": 2}]})
    job = await worker.start()
    if "results" in stream:
        await worker.finish(job.ref)
        job = await worker.start()
    path = stream.replace("{job}", job.ref.job).replace("{batch}", made["id"])
    async with _reading(boss, path) as response:
        assert await response.content.readline()
        await ENDS[how](server, "boss")
        async with asyncio.timeout(1):
            await _rest(response)
        await worker.send(Log(job.ref, 0, b"secret"))
    await worker.finish(job.ref)
    assert (await boss.call("GET", path)).status in OUT


@pytest.mark.parametrize("how", ENDS)
async def test_a_download_ends_with_the_right_to_it_however_slowly_it_is_read(server: Running, how: str) -> None:
    await server.image()
    ada = await server.user("ada")
    content = bytes(32 * 1024 * 1024)
    sha256 = await ada.upload(content)
    boss = await server.user("boss", "admin")
    job = await ada.submit(IMAGE, payload={"sha256": sha256, "size": len(content), "kind": "bytes"})
    async with _reading(boss, f"/v1/jobs/{job}/payload") as response:
        await response.content.readany()
        await ENDS[how](server, "boss")
        async with asyncio.timeout(1):
            assert len(await _rest(response)) < len(content)


def _wait(person: Person, job: str) -> Awaitable[Any]:
    return person.call("GET", f"/v1/jobs/{job}?wait=60")


def _submit_and_wait(person: Person, _: str) -> Awaitable[Any]:
    return person.call("POST", "/v1/jobs?wait=60", {"image": IMAGE, "input": "waited for"})


@pytest.mark.parametrize("ask", [_wait, _submit_and_wait])
async def test_a_wait_ends_with_the_right_to_the_answer(
    server: Running, ask: Callable[[Person, str], Awaitable[Any]]
) -> None:
    await server.image()
    ada = await server.user("ada")
    job = await ada.submit(IMAGE)
    waiting = asyncio.ensure_future(ask(ada, job))
    hub = server.server.parts.hub
    while not hub._watches:  # noqa: ASYNC110 - the server says nothing when a wait begins
        await asyncio.sleep(0.001)
    await _new_password(server, "ada")
    async with asyncio.timeout(1):
        reply = await waiting
    assert (reply.status, "password changed" in reply.message) == (401, True)


async def test_so_does_a_followed_submission(server: Running) -> None:
    await server.image()
    ada = await server.user("ada")
    headers, body = {"Authorization": f"Bearer {ada.token}"}, {"image": IMAGE, "input": "followed"}
    async with ada.session.post(f"{ada.url}/v1/jobs/followed", json=body, headers=headers) as response:
        assert await response.content.readline()
        await _new_password(server, "ada")
        async with asyncio.timeout(1):
            assert await response.content.read() == b""


SLOWLY = {
    "a user": ("POST", "/v1/users", b'{"username":"eve","password":"evesdropping","role":"admin"}'),
    "a job": ("POST", "/v1/jobs", b'{"image":"team/app:1"}'),
    "a batch": ("POST", "/v1/batches", b'{"image":"team/app:1","items":[{"input":1}]}'),
    "an upload": ("PUT", f"/v1/blobs/{hashlib.sha256(b'content').hexdigest()}", b"content"),
}


@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize("what", SLOWLY)
async def test_a_request_that_has_begun_is_worth_nothing_once_the_right_to_it_has_ended(
    server: Running, what: str, how: str
) -> None:
    """Whoever has a stolen token could begin as many as he likes and end them afterwards."""
    await server.image()
    thief = await server.user("boss", "admin")
    method, path, content = SLOWLY[what]
    ended = asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield content[:5]
        await ended.wait()
        yield content[5:]

    tokens, let_in = server.server._tokens, asyncio.Event()
    read = tokens.read

    def noticed(token: str, find: Callable[[int], User | None]) -> Caller:
        caller = read(token, find)
        if caller.name == "boss":
            let_in.set()
        return caller

    tokens.read = noticed  # type: ignore[method-assign]
    sending = asyncio.ensure_future(thief.call(method, path, body=slowly()))
    await let_in.wait()
    await ENDS[how](server, "boss")
    ended.set()
    assert (await sending).status in OUT
    assert [user["username"] for user in await server.admin.get("/v1/users") if user["username"] == "eve"] == []
    assert (await server.admin.get("/v1/jobs"))["jobs"] == []


async def test_who_asks_for_a_stream_is_let_in_once_and_again_only_if_rights_have_changed(server: Running) -> None:
    await server.image()
    job = await server.admin.submit(IMAGE)
    await server.admin.must("POST", f"/v1/jobs/{job}/cancel")
    tokens, hub, asked = server.server._tokens, server.server.parts.hub, 0
    read, require = tokens.read, hub.require_stream

    def counted(token: str, find: Callable[[int], User | None]) -> Caller:
        nonlocal asked
        asked += 1
        return read(token, find)

    def changed(holder: Holder) -> None:
        hub.revocations += 1
        require(holder)

    tokens.read = counted  # type: ignore[method-assign]
    await server.admin.call("GET", f"/v1/jobs/{job}/logs")
    assert asked == 1
    hub.require_stream = changed  # type: ignore[method-assign]
    await server.admin.call("GET", f"/v1/jobs/{job}/logs")
    assert asked == 3


async def test_a_role_changes_at_once_and_with_it_what_the_same_token_may(server: Running) -> None:
    ada = await server.user("Ada")
    assert (await ada.call("GET", "/v1/users")).status == 403
    changed = await server.admin.must("PATCH", "/v1/users/ada", {"role": "admin"})
    assert (changed["username"], changed["role"]) == ("Ada", "admin")
    assert {user["role"] for user in await ada.get("/v1/users")} == {"admin"}
    await ada.must("PATCH", "/v1/users/admin", {"role": "user"})
    refused = await server.admin.call("PATCH", "/v1/users/ada", {"role": "user"})
    assert (refused.status, "'admin' has the role user" in refused.message) == (403, True)
    last = await ada.call("PATCH", "/v1/users/ada", {"role": "user"})
    assert (last.status, last.message) == (409, "'Ada' is the last admin")
    assert (await ada.call("PATCH", "/v1/users/nobody", {"role": "user"})).status == 404
    unknown = await ada.call("PATCH", "/v1/users/admin", {"role": "king"})
    assert (unknown.status, "role" in unknown.message) == (400, True)


async def test_with_the_key_of_one_who_is_no_admin_any_more_no_worker_is_registered(server: Running) -> None:
    ada = await server.user("ada", "admin")
    enrolment = {"key": (await ada.must("POST", "/v1/keys", {"scope": "enrol"}))["key"], "name": "w1"}
    await server.admin.must("PATCH", "/v1/users/ada", {"role": "user"})
    refused = await server.nobody.call("POST", "/v1/enrol", enrolment)
    assert (refused.status, refused.message) == (403, "'ada', who made this key, is no admin any more")
    await server.admin.must("PATCH", "/v1/users/ada", {"role": "admin"})
    await server.nobody.must("POST", "/v1/enrol", enrolment)


async def test_the_same_role_again_ends_nothing(server: Running) -> None:
    await server.image()
    ada = await server.user("ada")
    job = await ada.submit(IMAGE)
    async with _reading(ada, f"/v1/jobs/{job}/events") as response:
        await response.content.readline()
        await server.admin.must("PATCH", "/v1/users/ada", {"role": "user"})
        await ada.must("POST", f"/v1/jobs/{job}/cancel")
        assert b'"end"' in await response.content.read()


async def test_others_go_on(server: Running) -> None:
    await server.image()
    ada, _ = await server.user("ada"), await server.user("bob")
    worker = await server.worker()
    job = await ada.submit(IMAGE)
    async with _reading(ada, f"/v1/jobs/{job}/events") as response:
        waiting = asyncio.ensure_future(_wait(ada, job))
        ref = (await worker.start()).ref
        await response.content.readline()
        await _new_password(server, "bob")
        await _delete(server, "bob")
        await worker.finish(ref, 7)
        assert (await waiting).json()["result"] == 7
        assert b'"end"' in await response.content.read()
    assert (await server.nobody.login("ada", PASSWORD)).token


async def test_a_worker_that_is_removed_while_it_sends_a_result_has_stored_nothing(server: Running) -> None:
    await server.image()
    worker = await server.worker()
    await server.admin.submit(IMAGE)
    job = await worker.start()
    content = b"x" * 100_000
    begun, removed = asyncio.Event(), asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        yield content[:50_000]
        begun.set()
        await removed.wait()
        yield content[50_000:]

    sha256 = hashlib.sha256(content).hexdigest()
    path = f"/v1/worker/jobs/{job.ref.job}/blobs/{sha256}"
    sending = asyncio.ensure_future(server.nobody.call("PUT", path, body=pieces(), headers=worker.http))
    await begun.wait()
    await server.admin.must("DELETE", "/v1/workers/w1")
    removed.set()
    assert (await sending).status == 401
    assert (await server.admin.call("HEAD", f"/v1/blobs/{sha256}")).status == 404


async def test_no_answer_is_kept_or_taken_for_a_page_by_what_lies_in_between(server: Running) -> None:
    """Tokens, results and environments stand in them. Of every kind: JSON, nothing, a stream, an error, a head."""
    await server.image()
    content = b"<script>"
    sha256 = await server.admin.upload(content)
    job = await server.admin.submit(IMAGE, payload={"sha256": sha256, "size": len(content), "kind": "bytes"})
    await server.admin.must("POST", f"/v1/jobs/{job}/cancel")
    asked = [("GET", path) for path in ("/healthz", "/v1/server", "/nowhere", "/openapi.json", "/v1/jobs/none")]
    asked += [("GET", f"/v1/jobs/{job}/{part}") for part in ("payload", "result", "events", "logs")]
    asked += [("HEAD", f"/v1/blobs/{sha256}"), ("HEAD", "/v1/server"), ("PUT", "/v1/server"), ("POST", "/v1/login")]
    for method, path in asked:
        reply = await server.admin.call(method, path)
        found = (reply.headers.get("Cache-Control"), reply.headers.get("X-Content-Type-Options"))
        assert found == ("no-store", "nosniff"), (method, path)


@pytest.mark.parametrize("what", ["making a user", "setting a password"])
async def test_who_loses_his_rights_while_a_password_is_hashed_has_done_nothing(
    server: Running, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Many may wait for that, and for seconds."""
    await server.user("bob")
    second = await server.user("second", Role.ADMIN)
    directory = server.server.parts.directory
    hashed = directory._passwords.hash

    async def slow(*words: str) -> str:
        await server.admin.must("DELETE", "/v1/users/second")
        return await hashed(*words)

    monkeypatch.setattr(directory._passwords, "hash", slow)
    if what == "making a user":
        reply = await second.call("POST", "/v1/users", {"username": "spy", "password": PASSWORD, "role": "admin"})
    else:
        reply = await second.call("PUT", "/v1/users/bob/password", {"password": "another password"})
    assert reply.status == 401
    monkeypatch.undo()
    assert [user["username"] for user in await server.admin.get("/v1/users")] == ["admin", "bob"]
    assert (await server.nobody.login("bob", PASSWORD)).token
