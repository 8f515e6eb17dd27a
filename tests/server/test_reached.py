"""How the server is reached: below a path, by both families of addresses, and by a proxy that does not pass all on."""

from __future__ import annotations

import socket
from pathlib import Path

import aiohttp
import pytest

from hecaton.client import Client
from hecaton.wire.channel import PATH
from tests.e2e.commands import Person as Typist
from tests.server.people import Person
from tests.server.running import IMAGE, PASSWORD, Running, running
from tests.server.server_process import ServerProcess


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
async def test_the_workers_connection_without_an_upgrade_says_what_it_is(server: Running, method: str) -> None:
    reply = await server.nobody.call(method, PATH)
    assert (reply.status, reply.headers["Upgrade"]) == (426, "websocket")
    if method != "HEAD":
        assert reply.json()["error"]["code"] == "no_upgrade"
        assert "proxy_set_header Upgrade $http_upgrade" in reply.json()["error"]["hint"]


async def test_what_is_live_asks_proxies_not_to_keep_it_back(server: Running) -> None:
    job = await server.admin.submit(await server.image())
    headers = {"Authorization": f"Bearer {server.admin.token}"}
    async with server.session.get(f"{server.url}/v1/jobs/{job}/events", headers=headers) as reply:
        assert reply.headers["X-Accel-Buffering"] == "no"
    async with server.session.get(f"{server.url}/openapi.json") as reply:
        assert "X-Accel-Buffering" not in reply.headers, "what has an end a proxy may take at once"


async def test_below_a_path_the_server_answers_with_it_and_without_it(tmp_path: Path) -> None:
    async with running(tmp_path, root_path="/gpu/hecaton") as server:
        passed_on = Person(server.session, f"{server.url}/gpu/hecaton")
        for person in (passed_on, server.nobody):
            assert (await person.get("/healthz"))["status"] == "ok"
            assert (await person.call("GET", "/gpu/hecatonia/healthz")).status == 404
            assert (await person.get("/openapi.json"))["servers"] == [{"url": "/gpu/hecaton"}]
        worker = await server.enrol("w1")
        async with server.session.ws_connect(f"{passed_on.url}{PATH}") as channel:
            assert not channel.closed
        await worker.connect()
    async with running(tmp_path / "other") as server:
        assert "servers" not in await server.nobody.get("/openapi.json")


async def test_all_addresses_of_ipv6_are_those_of_ipv4_too(tmp_path: Path) -> None:
    process = ServerProcess(tmp_path / "home", "--host", "::", "--port", "0")
    try:
        url = process.ready()
        assert "(IPv6 and IPv4)" in process.said
        port = int(url.rpartition(":")[2])
        async with aiohttp.ClientSession() as session:
            for host in ("127.0.0.1", "[::1]"):
                there = Person(session, f"http://{host}:{port}")
                assert (await there.call("POST", "/v1/login", {"username": "ada", "password": PASSWORD})).status == 401
        assert "address=127.0.0.1 " in process.said, "not that of IPv6 that stands for it"
        assert "address=::1 " in process.said
    finally:
        process.stop()


def test_an_address_of_ipv6_works_wherever_one_is_named(tmp_path: Path) -> None:
    process = ServerProcess(tmp_path / "home", "--host", "::1", "--port", "0")
    try:
        place = process.ready().removeprefix("http://")
        assert place.startswith("[::1]:")
        person = Typist(tmp_path / "person").logs_in(place, "admin", PASSWORD)
        named = {"HECATON_SERVER": place, "HECATON_TOKEN": person.types("hecaton server token").out.strip()}
        person.types("hecaton job list", named)
        client = Client(f"http://{place}")
        client.login("admin", PASSWORD)
        client.add_image(IMAGE, verify=False)
        handler = person.write("handler.py", "")
        with person.starts(
            f"hecaton-gpu run {place} --name one --runtime process --handler {IMAGE}={handler}",
            {"HECATON_USERNAME": "admin", "HECATON_PASSWORD": PASSWORD},
        ) as worker:
            worker.until("Connected to the server")
            assert worker.stop() == 0
    finally:
        process.stop()


def test_a_port_that_is_taken_is_named_with_both_families_too(tmp_path: Path) -> None:
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as taken:
        port = taken.getsockname()[1]
        said = ServerProcess(tmp_path / "home", "--host", "::", "--port", str(port)).refused()
    assert f"cannot listen on :: port {port}" in said
