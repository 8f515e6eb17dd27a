"""A client behind a proxy: by way of it, past it, and what it says of one that does not work."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from hecaton.client import BadRequest, Client, Unreachable
from hecaton.wire.reach.address import resolve
from tests.client.certificates import server_context
from tests.client.scripted import ScriptedServer, reply
from tests.wire.forwarding import ForwardingProxy

HEALTH = reply({"status": "ok", "version": "2.0.0", "server_id": "s", "time": 1.0})
HOST = "hecaton.invalid"


@pytest.fixture(autouse=True)
def _nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)


@pytest.fixture
def proxy() -> Iterator[ForwardingProxy]:
    with ForwardingProxy() as running:
        yield running


@pytest.fixture
def closed() -> Iterator[str]:
    """Of a port where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


def test_plain_http_goes_by_way_of_http_proxy(
    server: ScriptedServer, proxy: ForwardingProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://ada:secret@{proxy.address}")
    server.on("GET", "/healthz", HEALTH)
    with Client(f"http://{HOST}:{server.port}") as client:
        assert client.health().status == "ok"
        with Client(f"http://{HOST}:{server.port}/hecaton") as below:
            server.on("GET", "/hecaton/healthz", HEALTH)
            assert below.health().status == "ok"
    asked = [f"GET http://{HOST}:{server.port}{path}/healthz HTTP/1.1" for path in ("", "/hecaton")]
    assert proxy.asked == asked
    assert set(proxy.logins) == {"Basic YWRhOnNlY3JldA=="}


@pytest.mark.parametrize("scheme", ["https://", ""])
def test_tls_goes_through_a_tunnel_also_where_no_scheme_is_written(
    proxy: ForwardingProxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, scheme: str
) -> None:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)
    with ScriptedServer(server_context(ca, HOST)) as server:
        server.on("GET", "/healthz", HEALTH)
        with Client(f"{scheme}{HOST}:{server.port}", ca_file=tmp_path / "ca.pem") as client:
            assert client.health().status == "ok"
        assert {line.rpartition(" ")[0] for line in proxy.asked} == {f"CONNECT {HOST}:{server.port}"}


def test_whether_a_server_behind_a_proxy_is_private_nobody_can_say(
    server: ScriptedServer, proxy: ForwardingProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)
    with pytest.raises(BadRequest, match=r"does not speak TLS, by way of the proxy .*HTTPS_PROXY") as refused:
        resolve(f"{HOST}:{server.port}")
    assert f"http://{HOST}:{server.port}" in (refused.value.hint or "")
    monkeypatch.delenv("HTTPS_PROXY")
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    with pytest.raises(BadRequest, match="HTTP_PROXY"):
        resolve(f"{HOST}:{server.port}")


@pytest.mark.parametrize("address", ["http://gpu.invalid:8181", "https://gpu.invalid:8181", "gpu.invalid:8181"])
def test_a_proxy_that_does_not_answer_is_named_with_its_variable(
    monkeypatch: pytest.MonkeyPatch, closed: str, address: str
) -> None:
    monkeypatch.setenv("ALL_PROXY", closed)
    with Client(address, patient=False) as client, pytest.raises(Unreachable) as refused:
        client.health()
    assert f"the proxy {closed} (ALL_PROXY)" in refused.value.message
    assert "NO_PROXY" in (refused.value.hint or "")


def test_this_machine_and_what_no_proxy_names_are_reached_directly(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, closed: str
) -> None:
    monkeypatch.setenv("HTTP_PROXY", closed)
    server.on("GET", "/healthz", HEALTH)
    with Client(server.url) as client:
        assert client.health().status == "ok"
    monkeypatch.setenv("NO_PROXY", "invalid")
    told = pytest.raises(Unreachable, match=f"cannot find the host '{HOST}'")
    with Client(f"http://{HOST}:{server.port}", patient=False) as client, told:
        client.health()


def test_logins_in_netrc_are_for_others(
    server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("default login ada password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    server.on("GET", "/healthz", HEALTH)
    for token in (None, "t0ken"):
        with Client(server.url, token=token) as client:
            client.health()
    assert [seen.headers.get("authorization") for seen in server.seen] == [None, "Bearer t0ken"]
