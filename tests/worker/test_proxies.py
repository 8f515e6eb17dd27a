"""A worker behind a proxy: registration, connection and bodies follow the same rule as the client."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
from pathlib import Path

import msgspec
import pytest
import trustme
from structlog.testing import capture_logs

from hecaton.core.errors import Unreachable
from hecaton.core.model import JobId
from hecaton.wire.reach.address import Address, resolve
from hecaton.worker.link import reaching
from hecaton.worker.link.bodies import Bodies
from hecaton.worker.link.link import ServerLink
from hecaton.worker.link.registration import register
from tests.client.certificates import server_context
from tests.client.scripted import ScriptedServer as PlainServer
from tests.client.scripted import reply
from tests.wire.forwarding import ForwardingProxy
from tests.worker.scripted_server import ScriptedServer
from tests.worker.test_link import Nobody, until_logged


@pytest.fixture(autouse=True)
def _nothing_is_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HECATON_HOME", str(tmp_path / "home"))


def test_registration_goes_by_way_of_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    with PlainServer() as server, ForwardingProxy() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        server.on("POST", "/v1/workers", reply({"id": "w", "name": "box", "token": "t"}, 201))
        url = f"http://hecaton.invalid:{server.port}"
        assert register(Address(url, "http"), "box", token="user token").worker_id == "w"
        assert proxy.asked == [f"POST {url}/v1/workers HTTP/1.1"]


async def test_connection_and_bodies_go_by_way_of_the_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ForwardingProxy() as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://ada:secret@{proxy.address}")
        async with ScriptedServer() as server:
            url = f"http://hecaton.invalid:{server.port}"
            config = msgspec.structs.replace(server.config(tmp_path / "state"), url=url)
            (tmp_path / "body").write_bytes(b"body")
            name = hashlib.sha256(b"body").hexdigest()
            async with reaching.session(config) as session:
                running = asyncio.create_task(ServerLink(config, session).run(Nobody()))
                await server.connected()
                await Bodies(config.url, session).store(JobId("a"), name, tmp_path / "body")
                running.cancel()
                await asyncio.wait([running])
        assert server.blobs[name] == b"body"
        assert [line.split()[0] for line in proxy.asked] == ["GET", "PUT"]
        assert set(proxy.logins) == {"Basic YWRhOnNlY3JldA=="}


async def test_a_proxy_that_does_not_answer_is_named_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv("http_proxy", closed)
        url = "http://hecaton.invalid:8181"
        with pytest.raises(Unreachable) as refused:
            register(Address(url, "http"), "box", token="user token")
        assert f"the proxy {closed} (http_proxy)" in str(refused.value)
        assert "NO_PROXY" in str(refused.value)
        config = msgspec.structs.replace(ScriptedServer().config(tmp_path / "state"), url=url)
        async with reaching.session(config) as session:
            with capture_logs() as logs:
                running = asyncio.create_task(ServerLink(config, session).run(Nobody()))
                await until_logged(
                    logs, f"by way of the proxy {closed} (http_proxy). To go past it, name the server in NO_PROXY"
                )
                running.cancel()
                await asyncio.wait([running])


@pytest.mark.parametrize("by_proxy", [False, True])
async def test_a_server_below_a_path_is_registered_with_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_proxy: bool
) -> None:
    with PlainServer() as server, ForwardingProxy() as proxy:
        host = "127.0.0.1"
        if by_proxy:
            monkeypatch.setenv("http_proxy", proxy.url)
            host = "hecaton.invalid"
        server.on("POST", "/hecaton/v1/workers", reply({"id": "w", "name": "box", "token": "t"}, 201))
        found = resolve(f"http://{host}:{server.port}/hecaton")
        assert register(found, "box", token="user token").url == f"http://{host}:{server.port}/hecaton"
        assert len(proxy.asked) == by_proxy


@pytest.mark.parametrize("host", ["hecaton.invalid", "2001:db8::7"])
def test_a_server_with_tls_is_registered_with_through_a_tunnel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    with PlainServer(server_context(ca, host)) as server, ForwardingProxy() as proxy:
        monkeypatch.setenv("https_proxy", f"http://ada:secret@{proxy.address}")
        server.on("POST", "/v1/workers", reply({"id": "w", "name": "box", "token": "t"}, 201))
        place = f"{f'[{host}]' if ':' in host else host}:{server.port}"
        made = register(resolve(place, tmp_path / "ca.pem"), "box", token="user token", ca_file=tmp_path / "ca.pem")
        assert made.url == f"https://{place}"
        assert server.seen[-1].headers["host"] == place
        assert {line.rpartition(" ")[0] for line in proxy.asked} == {f"CONNECT {place}"}
        assert set(proxy.logins) == {"Basic YWRhOnNlY3JldA=="}


async def test_logins_in_netrc_are_for_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """aiohttp and requests read them, and cannot have them beside a token: the worker would never connect."""
    (tmp_path / "netrc").write_text("default login ada password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with PlainServer() as plain:
        plain.on("POST", "/v1/workers", reply({"id": "w", "name": "box", "token": "t"}, 201))
        register(Address(plain.url, "http"), "box", token="user token")
        assert [seen.headers["authorization"] for seen in plain.seen] == ["Bearer user token"]
    async with ScriptedServer() as server:
        config = server.config(tmp_path / "state")
        (tmp_path / "body").write_bytes(b"body")
        name = hashlib.sha256(b"body").hexdigest()
        async with reaching.session(config) as session:
            running = asyncio.create_task(ServerLink(config, session).run(Nobody()))
            await server.connected()
            await Bodies(config.url, session).store(JobId("a"), name, tmp_path / "body")
            running.cancel()
            await asyncio.wait([running])
        assert server.blobs[name] == b"body"
