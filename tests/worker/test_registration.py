"""Registration: a login becomes a worker's own token, and only that is kept."""

from __future__ import annotations

import json
import os
import ssl
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme

from hecaton.core.errors import BadRequest, Conflict, Forbidden, Unauthenticated, Unreachable
from hecaton.wire.reach.address import resolve
from hecaton.worker.link import registration
from hecaton.worker.link.registration import WorkerConfig, load, matches, register, still_known


class Server:
    """The other side of the wire: knows one user, remembers what it was sent."""

    def __init__(self) -> None:
        self.taken: set[str] = set()
        self.role = "worker"
        self.knows_worker = True
        self.unknown = b'{"error": {"code": "unauthenticated", "message": "this needs a token"}}'
        self.requests: list[tuple[str, dict[str, Any], str | None]] = []

    def answer(self, path: str, body: dict[str, Any], authorization: str | None) -> tuple[int, dict[str, Any]]:
        self.requests.append((path, body, authorization))
        if path == "/v1/login":
            if body != {"username": "w", "password": "secret password"}:
                return 401, {"error": {"code": "unauthenticated", "message": "wrong user name or password"}}
            return 200, {"token": "user token", "username": "w", "role": self.role, "expires_at": 1.0}
        if authorization != "Bearer user token":
            return 401, {"error": {"code": "unauthenticated", "message": "the token does not hold"}}
        if self.role == "user":
            return 403, {"error": {"code": "forbidden", "message": "the role user may not add workers"}}
        if body["name"] in self.taken:
            return 409, {"error": {"code": "conflict", "message": "taken"}}
        self.taken.add(body["name"])
        return 201, {"id": "worker-id-1", "name": body["name"], "token": "worker token"}


@pytest.fixture
def server() -> Server:
    return Server()


def serving(server: Server, authority: trustme.CA | None = None) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            """The probe of the address, and of a worker's token."""
            self.send_response(404 if server.knows_worker else 401)
            data = b"" if server.knows_worker else server.unknown
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, reply = server.answer(self.path, body, self.headers.get("Authorization"))
            data = json.dumps(reply).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if authority is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        listener.socket = context.wrap_socket(listener.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.05}).start()
    return listener


@pytest.fixture
def address(server: Server) -> Iterator[str]:
    listener = serving(server)
    yield f"127.0.0.1:{listener.server_port}"
    listener.shutdown()
    listener.server_close()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HECATON_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HECATON_CA_FILE", raising=False)
    return tmp_path / "home"


def test_a_login_is_exchanged_for_a_token_and_not_kept(server: Server, address: str, home: Path) -> None:
    config = register(resolve(address), "box", username="w", password="secret password")
    assert config == WorkerConfig("box", f"http://{address}", "worker-id-1", "worker token", home / "worker/box")
    assert [request[0] for request in server.requests] == ["/v1/login", "/v1/workers"]
    assert load("box") == config
    kept = b"".join(path.read_bytes() for path in home.rglob("*") if path.is_file())
    assert b"worker token" in kept
    assert b"secret password" not in kept
    assert b"user token" not in kept


def test_a_users_token_does_instead_of_a_login(server: Server, address: str) -> None:
    register(resolve(address), "box", token="user token")
    assert [(path, body) for path, body, _ in server.requests] == [("/v1/workers", {"name": "box"})]


def test_what_is_kept_is_private_whatever_the_umask(address: str, home: Path) -> None:
    before = os.umask(0)
    try:
        register(resolve(address), "box", token="user token")
    finally:
        os.umask(before)
    assert stat.S_IMODE((home / "worker/box").stat().st_mode) == 0o700
    assert stat.S_IMODE((home / "worker/box/worker.json").stat().st_mode) == 0o600


def test_two_workers_on_one_host_have_folders_of_their_own(address: str, home: Path) -> None:
    first = register(resolve(address), "first", token="user token")
    second = register(resolve(address), "second", token="user token")
    assert first.folder != second.folder
    assert registration.registered() == ["first", "second"]
    registration.forget("first")
    assert load("first") is None
    assert load("second") == second


def test_a_name_that_is_taken_says_what_to_do(server: Server, address: str, home: Path) -> None:
    server.taken.add("box")
    with pytest.raises(Conflict, match="'box'") as conflict:
        register(resolve(address), "box", token="user token")
    assert "--name" in str(conflict.value)
    assert "hecaton worker remove box" in str(conflict.value)
    assert load("box") is None


def test_who_may_not_is_told_by_the_server(server: Server, address: str) -> None:
    with pytest.raises(Unauthenticated, match="wrong user name or password"):
        register(resolve(address), "box", username="w", password="wrong")
    server.role = "user"
    with pytest.raises(Forbidden, match="the role user may not add workers"):
        register(resolve(address), "box", username="w", password="secret password")


def test_a_server_that_is_away_is_one_sentence() -> None:
    with pytest.raises(Unreachable, match=r"no Hecaton server answers at 127\.0\.0\.1:9"):
        register(resolve("http://127.0.0.1:9"), "box", token="x")


def test_the_scheme_and_the_ca_are_pinned(server: Server, home: Path, tmp_path: Path) -> None:
    authority = trustme.CA()
    listener = serving(server, authority)
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    address = f"127.0.0.1:{listener.server_port}"
    try:
        with pytest.raises(Unreachable, match="signed by a CA that is not known here"):
            register(resolve(f"https://{address}"), "box", token="user token")
        assert server.requests == []
        config = register(resolve(address, ca_file), "box", token="user token", ca_file=ca_file)
    finally:
        listener.shutdown()
        listener.server_close()
    ca_file.unlink()  # the worker has its own copy
    assert config.url == f"https://{address}"
    assert config.ca_file is not None
    assert config.ca_file.read_bytes() == authority.cert_pem.bytes()
    assert load("box") == config


def test_knows_its_server_by_any_way_to_write_it(tmp_path: Path) -> None:
    config = WorkerConfig("box", "https://gpu.example.com:8181", "id", "token", tmp_path)
    assert matches(config, "gpu.example.com")
    assert matches(config, "GPU.example.com:8181")
    assert matches(config, "https://gpu.example.com:8181")
    assert not matches(config, "http://gpu.example.com:8181")  # never a step down to plain HTTP
    assert not matches(config, "gpu.example.com:8182")
    assert not matches(config, "gpu.example.com:8181/hecaton")
    assert not matches(config, "other.example.com")


def test_a_damaged_file_is_named(address: str, home: Path) -> None:
    register(resolve(address), "box", token="user token")
    path = home / "worker/box/worker.json"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(BadRequest, match=str(path)):
        load("box")


@pytest.mark.parametrize("name", ["", "../box", "a b", ".hidden", "-x", "a/b", "x" * 65])
def test_what_is_no_name_is_refused_before_anything_happens(server: Server, address: str, name: str) -> None:
    with pytest.raises(BadRequest, match="is not a name for a worker"):
        register(resolve(address), name, token="user token")
    assert [path for path, _, _ in server.requests] == []


def test_the_hosts_name_is_a_name() -> None:
    registration.folder_of(registration.default_name())


def test_knows_whether_the_server_still_knows_it(server: Server, address: str) -> None:
    config = register(resolve(address), "box", token="user token")
    assert still_known(config)
    server.knows_worker = False
    assert not still_known(config)
    server.unknown = b"<html>Log in</html>"
    assert still_known(config), "a proxy in between said so"
    assert still_known(WorkerConfig("box", "http://127.0.0.1:9", "id", "token", config.folder)), "nobody said otherwise"


def test_one_worker_runs_once(address: str, home: Path) -> None:
    config = register(resolve(address), "box", token="user token")
    other = (
        "from hecaton.worker.link import registration as r\n"
        "try:\n    with r.exclusive(r.load('box')): print('ran')\n"
        "except Exception as error: print(error.message)"
    )

    def run() -> str:
        return subprocess.run([sys.executable, "-c", other], stdout=subprocess.PIPE, text=True, check=True).stdout

    with registration.exclusive(config):
        assert run() == f"the worker 'box' runs on this machine already (process {os.getpid()})\n"
    assert run() == "ran\n"


@pytest.mark.usefixtures("home")
def test_without_a_home_of_its_own_root_keeps_workers_where_the_service_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HECATON_HOME")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert registration.worker_home() == Path("/var/lib/hecaton")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert registration.worker_home() != Path("/var/lib/hecaton")
