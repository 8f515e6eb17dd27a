"""Requests that make no sense: every one gets an answer that says so, none an error of the server; and what is accepted
can be read back."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings

from hecaton.wire import api
from hecaton.wire.api import UserChange
from tests.faults.figures import figure
from tests.server.people import Person
from tests.server.running import IMAGE, Running, running

pytestmark = pytest.mark.full

LEAK = re.compile(rb"Traceback|sqlite|File \"|/site-packages/")

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=20,
)
ROUTES_WITH_BODY: dict[str, type[msgspec.Struct]] = {
    "POST /v1/jobs": api.NewJob,
    "POST /v1/batches": api.NewBatch,
    "POST /v1/batches/1/items": api.NewItems,
    "POST /v1/login": api.Login,
    "POST /v1/users": api.NewUser,
    "PUT /v1/users/admin2/password": api.NewPassword,
    "PATCH /v1/users/admin2": UserChange,
    "POST /v1/images": api.NewImage,
    f"PATCH /v1/images/{IMAGE}": api.ImageChange,
    "POST /v1/workers": api.NewWorker,
}


class Shared:
    """One server in a loop of its own, because Hypothesis calls a plain function many times."""

    def __init__(self, runner: asyncio.Runner, admin: Person) -> None:
        self._runner, self.admin = runner, admin

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        self._runner.run(work)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    stack = AsyncExitStack()

    async def begin() -> Running:
        started = await stack.enter_async_context(running(tmp_path_factory.mktemp("shared") / "server"))
        await started.image()
        await started.user("admin2", role="admin")
        return started

    with asyncio.Runner() as runner:
        yield Shared(runner, runner.run(begin()).admin)
        runner.run(stack.aclose())


@pytest.fixture
async def ready(server: Running) -> Running:
    await server.image()
    await server.user("admin2", role="admin")
    return server


def _check(reply: Any, what: Any) -> None:
    assert reply.status < 500, (what, reply.status, reply.body)
    assert not LEAK.search(reply.body), (what, reply.body)
    if reply.status >= 400:
        error = reply.json()["error"]
        assert error["code"]
        assert error["message"]


BAD_BODIES = [
    b"", b"{", b"[]", b"null", b"1", b'"x"', b"\xff", b"\xef\xbb\xbf{}", b"{}{}", b"{'a':1}", b"NaN",
    b'{"image":"team/app:1","input":NaN}', b'{"image":"team/app:1","input":"\xff"}',
    b'{"image":"team/app:1","input":"\\ud800"}', b'{"image":"team/app:1","input":1e999}',
    b'{"image":"team/app:1","input":}',
    b'{"image":5}', b'{"image":"team/app:1","retires":1}', b'{"image":"team/app:1","retries":-1}',
    b'{"image":"team/app:1","retries":1e30}', b'{"image":"team/app:1","retries":99999999999999999999999}',
    b'{"image":"team/app:1","priority":1001}', b'{"image":"team/app:1","timeout":0}',
    b'{"image":"team/app:1","timeout":-1}', b'{"image":"team/app:1","timeout":1e300}',
    b'{"image":"team/app:1","queue_ttl":0}', b'{"image":"team/app:1","input":1,"text":"x"}',
    b'{"image":"team/app:1","base64":"***"}', b'{"image":"team/app:1","base64":"\xc3\xa4"}',
    b'{"image":"team/app:1","mode":"privileged"}',
    b'{"image":"team/app:1","mode":"script"}', b'{"image":"team/app:1","file":"x"}',
    b'{"image":"team/app:1","file":""}',
    b'{"image":"team/app:1","args":["x"]}',
    b'{"image":"team/app:1","mode":"script","file":"' + b"0" * 64 + b'","args":["\\u0000"]}',
    b'{"image":"team/app:1","mode":"script","file":"' + b"0" * 64 + b'","file_name":"../x"}',
    b'{"image":"team/app:1","payload":{"sha256":"../../etc/passwd","size":1}}',
    b'{"image":"team/app:1","payload":{"sha256":"x"}}', b'{"image":"team/app:1","privileged":true}',
    b'{"image":"team/app:1","input":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    b'{"image":"' + b"x" * 100_000 + b'"}', b'{"image":"\\u0000"}', b'{"image":"team/app:1\\n"}',
]  # fmt: skip


@pytest.mark.parametrize("route", ROUTES_WITH_BODY)
async def test_bodies_that_make_no_sense_are_refused_in_words(ready: Running, route: str) -> None:
    method, _, path = route.partition(" ")
    for body in BAD_BODIES:
        reply = await ready.admin.call(method, path, body=body)
        _check(reply, body[:200])
        assert 400 <= reply.status < 500, (body[:200], reply.status)


async def test_a_misspelt_option_is_named(ready: Running) -> None:
    reply = await ready.admin.call("POST", "/v1/jobs", {"image": IMAGE, "retires": 3})
    assert "retires" in reply.message


@pytest.mark.parametrize("bomb", [b"\x1f\x8b\x08" + b"\0" * 100])
async def test_compressed_requests_are_refused(ready: Running, bomb: bytes) -> None:
    reply = await ready.admin.call("POST", "/v1/jobs", body=bomb, headers={"Content-Encoding": "gzip"})
    assert reply.status == 400


PATHS = [
    "/v1/jobs/%00", "/v1/jobs/%ff%fe", "/v1/jobs/..", "/v1/jobs/%2e%2e%2f", "/v1/jobs/" + "9" * 400,
    "/v1/jobs/" + "x" * 5000,
    "/v1/jobs/%F0%9F%92%A9", "/v1/jobs/-1", "/v1/jobs/0", "/v1/jobs/%D9%A1", "/v1/jobs/1'--", "/v1/jobs/%%%",
    "/v1/jobs?limit=0", "/v1/jobs?limit=x", "/v1/jobs?limit=1e400", "/v1/jobs?before=-1", "/v1/jobs?before=1e18",
    "/v1/jobs?state=%00", "/v1/jobs?state=IN_QUEUE'", "/v1/jobs?" + "a=b&" * 2000, "/v1/jobs?limit=%ff",
    "/v1/images/", "/v1/images//", "/v1/images/%00", "/v1/images/..%2f..%2fetc", "/v1/workers?x=\u20ac",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
async def test_addresses_that_make_no_sense_are_refused_in_words(ready: Running, path: str) -> None:
    _check(await ready.admin.call("GET", path), path)


async def _raw(server: Running, request: bytes) -> bytes:
    """The first line of the answer to bytes that no client would send."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(server.url.rsplit(":", 1)[1]))
    writer.write(request)
    writer.write_eof()
    try:
        return await asyncio.wait_for(reader.readline(), 10)
    finally:
        writer.close()


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # a TLS hello
        b"GARBAGE\r\n\r\n",
        b"GET /v1/jobs\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET http://evil/../v1/users HTTP/1.1\r\nHost: a@b\r\n\r\n",
        b"GET /v1/users HTTP/1.1\r\nHost: evil/../healthz\r\n\r\n",
        b"GET /v1/users HTTP/1.1\r\nHost: a/healthz?x=\r\n\r\n",
        b"GET /v1/users HTTP/1.1\r\nHost: a/healthz#\r\n\r\n",
        b"GET @evil/healthz HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /v1/login HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/login HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{}",
        b"POST /v1/login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /v1/worker/channel HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        b"GET /v1/worker/channel HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v1/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: " + b"x" * 200_000 + b"\r\n\r\n",
    ],
)
async def test_no_bytes_open_anything_or_break_the_server(ready: Running, request_bytes: bytes) -> None:
    line = await _raw(ready, request_bytes)
    assert not re.match(rb"HTTP/1.1 [25]", line), line
    assert (await ready.nobody.get("/healthz"))["status"] == "ok"


@settings(max_examples=figure(40, 60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=JSON)
def test_every_accepted_input_comes_back_unchanged(shared: Shared, value: Any) -> None:
    text = json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")

    async def ask() -> None:
        reply = await shared.admin.call("POST", "/v1/jobs", body=b'{"image":"%s","input":%s}' % (IMAGE.encode(), text))
        _check(reply, value)
        if reply.status == 201:
            shown = await shared.admin.call("GET", f"/v1/jobs/{reply.json()['id']}")
            assert shown.status == 200
            assert json.loads(shown.body)["payload"] == json.loads(text)

    shared.run(ask())


@settings(max_examples=figure(80, 150), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_body_of_any_shape_makes_the_server_fail(shared: Shared, data: st.DataObject) -> None:
    route = data.draw(st.sampled_from(sorted(set(ROUTES_WITH_BODY) - {"POST /v1/login"})))
    fields = [field.name for field in msgspec.structs.fields(ROUTES_WITH_BODY[route])]
    value = data.draw(st.dictionaries(st.sampled_from(fields), JSON, max_size=len(fields)) | JSON)
    if isinstance(value, dict) and "image" in value and data.draw(st.booleans()):
        value["image"] = IMAGE
    if isinstance(value, dict) and route == "POST /v1/images":
        value["verify"] = False
    method, _, path = route.partition(" ")

    async def ask() -> None:
        _check(await shared.admin.call(method, path, body=json.dumps(value).encode()), (route, value))

    shared.run(ask())
