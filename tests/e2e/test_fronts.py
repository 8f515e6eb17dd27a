"""Behind nginx and Caddy as docs/operations.md has them: live, with large bodies, below a path, for people, programs
and workers, and with the addresses that they come from."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from hecaton.client import Client
from hecaton.testing.cluster import PASSWORD, LocalCluster, Process
from tests.e2e import fronts
from tests.e2e.commands import Person, free_port
from tests.e2e.conftest import PATIENCE

IMAGE = "printer"
HANDLER = """\
import os
import time

from hecaton.serverless import ServerLessInput, start


def handle(data: ServerLessInput) -> object:
    order = data.input
    if isinstance(order, dict) and "until" in order:
        print("it has begun", flush=True)
        while not os.path.exists(order["until"]):
            time.sleep(0.02)
    return order


start(handle)
"""
LARGE = "x" * 3 * 1024 * 1024
"""More than nginx takes by itself, and more than what goes into messages."""


@dataclass(frozen=True)
class Site:
    """A server with its fronts: where each has it."""

    cluster: LocalCluster
    certificate: fronts.Certificate
    at: dict[str, str]

    def client(self, front: str) -> Client:
        return Client(self.at[front], self.cluster.client().login("admin", PASSWORD).token, ca_file=self.certificate.ca)

    def joins(self, worker: str, front: str, *, wait: bool = True) -> Process:
        trust = ("--ca-file", str(self.certificate.ca))
        handlers = {IMAGE: self.cluster.folder.with_name("handler.py")}
        return self.cluster.start_worker(worker, handlers=handlers, server=self.at[front], options=trust, wait=wait)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    (folder / "handler.py").write_text(HANDLER)
    certificate = fronts.Certificate(folder)
    with ExitStack() as stack:
        options = ("--trusted-proxy", "127.0.0.1", "--root-path", "/hecaton")
        cluster = stack.enter_context(LocalCluster(folder / "home", server_options=options))
        cluster.register(IMAGE)
        upstream = f"http://127.0.0.1:{cluster.port}"
        below = ("location / {", "location /hecaton/ {")
        changes: dict[str, tuple[tuple[str, str], ...]] = {
            "nginx": (),
            "nginx that takes the path away": (below, (f"{upstream};", f"{upstream}/;")),
            "nginx that passes the path on": (below,),
            "nginx without Upgrade": (
                ("        proxy_set_header Upgrade $http_upgrade;  # which is a WebSocket\n", ""),
                ('        proxy_set_header Connection "upgrade";\n', ""),
            ),
        }
        ports = {name: free_port() for name in changes}
        servers = [
            fronts.nginx_server(certificate, ports[name], cluster.port, *changed) for name, changed in changes.items()
        ]
        stack.enter_context(fronts.nginx(folder, servers))
        at = {name: f"https://localhost:{port}{'/hecaton' if ' path ' in name else ''}" for name, port in ports.items()}
        path = ("    reverse_proxy", "    handle_path /hecaton/* {\n    reverse_proxy"), ("\n}", "\n}\n}")
        at["Caddy"] = stack.enter_context(fronts.caddy(folder, certificate, cluster.port))
        below_caddy = folder / "below"
        below_caddy.mkdir()
        at["Caddy with a path"] = (
            stack.enter_context(fronts.caddy(below_caddy, certificate, cluster.port, *path)) + "/hecaton"
        )
        yield Site(cluster, certificate, at)


WHOLE = ("nginx", "nginx that takes the path away", "nginx that passes the path on", "Caddy", "Caddy with a path")


def test_the_page_has_as_few_lines_as_it_says() -> None:
    assert len(fronts.shown("nginx").splitlines()) <= 16
    assert len(fronts.shown("caddy").splitlines()) <= 16


@pytest.mark.sample(2)
@pytest.mark.parametrize("front", WHOLE)
def test_a_job_is_seen_as_it_runs_and_large_bodies_pass(site: Site, tmp_path: Path, front: str) -> None:
    name = front.replace(" ", "-")
    worker = site.joins(name, front)
    client, gate = site.client(front), tmp_path / "gate"
    job = client.submit(IMAGE, {"until": str(gate)})
    token = client.login("admin", PASSWORD).token
    environment = {
        "HECATON_SERVER": site.at[front],
        "HECATON_TOKEN": token,
        "HECATON_CA_FILE": str(site.certificate.ca),
    }
    person = Person(tmp_path / "person", **environment)
    with person.starts(f"hecaton job logs -f {job.index}") as follower:
        follower.until("it has begun\n")
        gate.touch()  # not before: what is kept back until the end is never seen
        assert follower.process.wait(PATIENCE) == 0
    assert client.submit(IMAGE, LARGE).result(timeout=PATIENCE) == LARGE
    assert worker.stop() == 0
    client.remove_worker(name)


def test_a_worker_whose_upgrade_is_swallowed_says_what_nginx_lacks(site: Site) -> None:
    worker = site.joins("cut-off", "nginx without Upgrade", wait=False)
    said = worker.wait_for(r"the proxy in front of the server \(nginx/[\d.]+\) does not pass Upgrade on[^\n]+")[0]
    assert "proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection" in said
    worker.stop()


def test_who_comes_through_a_trusted_proxy_is_counted_where_he_comes_from(site: Site) -> None:
    place, _, port = site.at["nginx"].removeprefix("https://").partition(":")
    trust = ssl.create_default_context(cafile=str(site.certificate.ca))
    away = http.client.HTTPSConnection(place, int(port), source_address=("127.0.0.2", 0), context=trust)
    guess = msgspec.json.encode({"username": "admin", "password": "not the password"})
    away.request("POST", "/v1/login", guess, {"X-Forwarded-For": "203.0.113.9"})
    assert away.getresponse().status == 401
    away.close()
    assert site.cluster.server is not None
    refused = site.cluster.server.wait_for(r"Audit[^\n]+unauthenticated[^\n]*")[0]
    assert "address=127.0.0.2" in refused
