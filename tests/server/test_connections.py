"""Who opens connections and says nothing, or opens as many as he can: others still get in."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from hecaton.cli.hecaton_server.certificate import own_certificate
from hecaton.core.errors import Unavailable
from hecaton.server import connections
from hecaton.server.connections import (
    CONNECTION_MEMORY,
    MAX_KEPT_OF_ONE,
    Connections,
    Seat,
    Standing,
    memory_here,
    memory_of_groups,
    room,
)
from hecaton.server.forwarded import Proxies
from hecaton.server.settings import Settings
from hecaton.server.web.handshake import Handshakes
from hecaton.server.web.protocol import patient
from hecaton.wire.reach import tls
from tests.server.people import Person
from tests.server.running import PASSWORD
from tests.server.scripted_worker import ScriptedWorker
from tests.server.server_process import ServerProcess

# -- seats -----------------------------------------------------------------------------------------


class Gone(list[str]):
    """Whom the place was taken away, in order."""

    def enter(self, connections: Connections, peer: str, name: str = "") -> Seat:
        return connections.enter(peer, lambda: self.append(name or peer))


def test_the_stranger_who_has_been_there_longest_makes_room() -> None:
    connections, gone = Connections(8, Proxies()), Gone()
    seats = [gone.enter(connections, f"10.0.0.{n}") for n in range(8)]
    seats[0].rise(Standing.KNOWN, "ada")
    seats[1].leave()
    gone.enter(connections, "10.0.1.1")
    assert gone == []
    gone.enter(connections, "10.0.1.2")
    gone.enter(connections, "10.0.1.3")
    assert gone == ["10.0.0.2", "10.0.0.3"]
    assert len(connections) == 8


def test_an_address_has_a_share_and_makes_room_itself() -> None:
    connections, gone = Connections(16, Proxies()), Gone()
    other = gone.enter(connections, "10.0.0.2")
    seats = [gone.enter(connections, "2001:db8::1", f"{n}") for n in range(connections.share)]
    gone.enter(connections, "2001:db8::2", "last")
    assert gone == ["0"]
    for seat in seats[1:]:
        seat.rise(Standing.KNOWN, "ada")
    gone.enter(connections, "2001:db8::3")
    assert gone == ["0", "last"]
    with contextlib.ExitStack() as stack:
        stack.enter_context(pytest.raises(Unavailable, match="has 4 connections"))
        seat = gone.enter(connections, "2001:db8::4", "newest")
        seat.rise(Standing.KNOWN, "bob")
        gone.enter(connections, "2001:db8::5")
    seats[1].leave()
    seats[1].leave()
    gone.enter(connections, "2001:db8::5")
    assert not other.left


def test_workers_and_admins_do_not_count_to_their_address_and_always_have_room() -> None:
    connections, gone = Connections(64, Proxies()), Gone()
    for number in range(60):
        gone.enter(connections, "10.0.0.1").rise(Standing.KEPT, f"w{number}")
    assert gone == []
    for number in range(10):
        gone.enter(connections, f"10.0.1.{number}")
    assert len(gone) == 6
    connections, gone = Connections(64, Proxies()), Gone()
    for number in range(56):
        gone.enter(connections, f"10.0.0.{number}").rise(Standing.KNOWN, f"u{number}")
    with pytest.raises(Unavailable, match="as many connections as it has room for"):
        gone.enter(connections, "10.0.1.1").rise(Standing.KNOWN, "ada")
    for number in range(8):
        gone.enter(connections, f"10.0.2.{number}").rise(Standing.KEPT, f"w{number}")
    with pytest.raises(Unavailable, match="there are 64 connections"):
        gone.enter(connections, "10.0.3.1")


def test_one_worker_does_not_have_the_room_that_is_for_all_of_them() -> None:
    connections, gone = Connections(4 * MAX_KEPT_OF_ONE, Proxies()), Gone()
    for number in range(2 * MAX_KEPT_OF_ONE):
        gone.enter(connections, f"10.0.0.{number}").rise(Standing.KEPT, "evil")
    with pytest.raises(Unavailable, match="you have 64 connections"):
        gone.enter(connections, "10.0.1.1").rise(Standing.KEPT, "evil")


def test_a_proxy_that_is_believed_has_as_many_as_there_are() -> None:
    connections, gone = Connections(16, Proxies(["10.0.0.1"])), Gone()
    for number in range(14):
        gone.enter(connections, "10.0.0.1").rise(Standing.KNOWN, number % 2)
    assert gone == []


def test_there_are_no_more_than_there_is_memory_for() -> None:
    assert room(65_024, 2 << 30) == (1 << 30) // CONNECTION_MEMORY == 4096
    assert room(512, 2 << 30) == 512
    assert room(512, None) == 512


@pytest.mark.parametrize(
    ("own", "limits", "found"),
    [
        ("0::/system.slice/hecaton-server.service\n", {
            "memory.max": "900", "system.slice/memory.max": "max",
            "system.slice/hecaton-server.service/memory.max": "400", "system.slice/other.service/memory.max": "1",
        }, [400, 900]),
        ("0::/a/b\n", {"a/memory.max": "300", "a/b/memory.max": "max"}, [300]),
        ("4:cpu,cpuacct:/x\n3:memory:/system.slice/s.service\n1:name=systemd:/system.slice/s.service\n0::/\n", {
            "memory/memory.limit_in_bytes": "9223372036854771712", "memory/x/memory.limit_in_bytes": "1",
            "memory/system.slice/s.service/memory.limit_in_bytes": "500",
        }, [500, 9223372036854771712]),
        ("3:memory:/docker/0123\n0::/../..\n", {"memory/memory.limit_in_bytes": "700"}, [700]),  # in a container
        ("", {"memory.max": "600"}, [600]),
        ("nonsense\n", {}, []),
    ],
)  # fmt: skip
def test_memory_is_what_the_group_of_the_service_and_those_around_it_may_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str, limits: dict[str, str], found: list[int]
) -> None:
    (tmp_path / "own").write_text(own)
    for name, limit in limits.items():
        path = tmp_path / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(limit + "\n")
    assert sorted(set(memory_of_groups(tmp_path / "own", tmp_path / "groups"))) == found
    monkeypatch.setattr(connections, "_OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(connections, "_GROUPS", tmp_path / "groups")
    assert not found or memory_here() == found[0]
    assert list(memory_of_groups(tmp_path / "missing", tmp_path / "nowhere")) == []


# -- proxies ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("192.0.2.1", ["198.51.100.1"], "192.0.2.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["6.6.6.6, 198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["6.6.6.6", "198.51.100.1,10.9.9.9"], "198.51.100.1"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", ["198.51.100.1:4711"], "198.51.100.1"),
        ("::ffff:10.0.0.1", ["[2001:db8::1]:4711"], "2001:db8::1"),
        ("fd00::1", ["fe80::1%eth0"], "fe80::1"),
        ("10.0.0.1", ["198.51.100.1, nonsense"], "10.0.0.1"),
        ("10.0.0.1", ["nonsense, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", ["," * 1000], "10.0.0.1"),
        ("unknown", ["198.51.100.1"], "unknown"),
    ],
)
def test_only_what_a_believed_proxy_has_seen_counts(peer: str, forwarded: list[str], client: str) -> None:
    headers = [(b"x-forwarded-for", value.encode()) for value in forwarded]
    assert Proxies(["10.0.0.0/8", "fd00::1"]).client(peer, headers) == client


async def _login(session: aiohttp.ClientSession, url: str, password: str, forwarded: str) -> int:
    body = {"username": "admin", "password": password}
    headers = {"X-Forwarded-For": forwarded}
    return (await Person(session, url).call("POST", "/v1/login", body, headers=headers)).status


async def test_guesses_count_for_the_client_behind_the_proxy_and_for_nobody_else_there(tmp_path: Path) -> None:
    server = ServerProcess(
        tmp_path / "home", "--port", "0", "--trusted-proxy", "127.0.0.1", "--trusted-proxy", "10.0.0.0/8"
    )
    try:
        url = server.ready()
        async with aiohttp.ClientSession() as session:
            wrong = [await _login(session, url, "wrong password", f"6.6.6.{n}, 198.51.100.1") for n in range(11)]
            assert wrong == [401] * 10 + [429]
            assert await _login(session, url, PASSWORD, "198.51.100.1, 10.1.2.3") == 429
            assert await _login(session, url, PASSWORD, "198.51.100.2") == 200
        elsewhere = aiohttp.TCPConnector(local_addr=("127.0.0.5", 0))
        async with aiohttp.ClientSession(connector=elsewhere) as session:
            claimed = [await _login(session, url, "wrong password", f"203.0.113.{n}") for n in range(11)]
            assert claimed == [401] * 10 + [429]
    finally:
        server.kill()


# -- a server --------------------------------------------------------------------------------------

FILES = 256
"""A server that may have so many open has room for 128 connections: 32 of one address, 16 for workers and admins."""


@pytest.fixture
def crowded(tmp_path: Path) -> Iterator[Crowd]:
    with Crowd(tmp_path / "home") as crowd:
        yield crowd


class Crowd:
    """A small server, and connections to it that stay open."""

    def __init__(self, home: Path, *options: str) -> None:
        self._server = ServerProcess(home, "--port", "0", *options, files=FILES)
        self.url = self._server.ready()
        self._address = ("127.0.0.1", int(self.url.rpartition(":")[2]))
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Crowd:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        self._server.kill()

    def connect(self, own: str) -> socket.socket:
        made = socket.create_connection(self._address, 10, source_address=(own, 0))
        return self._stack.enter_context(made)

    def ask(self, made: socket.socket, path: str, token: str | None = None) -> tuple[int, bytes]:
        """The status and the body; the connection stays open."""
        bearer = f"Authorization: Bearer {token}\r\n" if token else ""
        made.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n{bearer}\r\n".encode())
        answer = b""
        while not (found := re.match(rb"HTTP/1.1 (\d+) .*?content-length: (\d+)\r\n.*?\r\n\r\n(.*)", answer, re.S)) or (
            len(found[3]) < int(found[2])
        ):
            piece = made.recv(65536)
            assert piece, answer
            answer += piece
        return int(found[1]), found[3]

    def session(self, own: str) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(local_addr=(own, 0)))

    async def user(self, admin: Person, name: str) -> str:
        await admin.must("POST", "/v1/users", {"username": name, "password": PASSWORD})
        token = (await admin.login(name, PASSWORD)).token
        assert token is not None
        return token

    async def everybody_gets_in(self, own: str, worker: str) -> None:
        """Somebody without a token, an admin, and a worker, from an address of their own."""
        async with self.session(own) as session:
            assert (await Person(session, self.url).get("/healthz"))["status"] == "ok"
            admin = await Person(session, self.url).login("admin", PASSWORD)
            made: Any = await admin.must("POST", "/v1/workers", {"name": worker})
            connected = ScriptedWorker(session, self.url, made["token"])
            await connected.connect()  # and is welcome
            await connected.gone()


async def test_idle_connections_from_one_address_keep_nobody_out(crowded: Crowd) -> None:
    idle = [crowded.connect("127.0.0.2") for _ in range(3 * FILES)]
    await crowded.everybody_gets_in("127.0.0.9", "w1")
    assert crowded.ask(crowded.connect("127.0.0.2"), "/healthz")[0] == 200
    assert b"503 Service Unavailable" in idle[0].recv(1000)
    assert json.loads(crowded.ask(idle[-1], "/healthz")[1])["status"] == "ok"


def _certificate(folder: Path) -> tuple[Path, Path, ssl.SSLContext]:
    """Its files, and who trusts it."""
    issued, key, certificate = (ca := trustme.CA()).issue_cert("127.0.0.1"), folder / "key.pem", folder / "cert.pem"
    issued.private_key_pem.write_to_path(str(key))
    key.chmod(0o600)
    issued.cert_chain_pems[0].write_to_path(str(certificate))
    trusting = ssl.create_default_context()
    ca.configure_trust(trusting)
    return certificate, key, trusting


async def test_nor_do_those_that_never_end_the_handshake_of_tls(tmp_path: Path) -> None:
    certificate, key, trusting = _certificate(tmp_path)
    with Crowd(tmp_path / "home", "--ssl-keyfile", str(key), "--ssl-certfile", str(certificate)) as crowded:
        for host in range(10, 30):
            for _ in range(20):
                crowded.connect(f"127.0.0.{host}")
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusting)) as session:
            admin = await Person(session, crowded.url).login("admin", PASSWORD)
            made: Any = await admin.must("POST", "/v1/workers", {"name": "w1"})
            worker = ScriptedWorker(session, crowded.url, made["token"])
            await worker.connect()
            await worker.gone()


def test_who_gives_way_under_tls_and_says_nothing_loses_the_connection_itself(tmp_path: Path) -> None:
    """A polite end of TLS would wait for his: half a minute for each, and more of them than there are files."""
    certificate, key, trusting = _certificate(tmp_path)
    secure = "--ssl-keyfile", str(key), "--ssl-certfile", str(certificate)
    with Crowd(tmp_path / "home", *secure) as crowded, contextlib.ExitStack() as stack:
        first, *_ = [
            stack.enter_context(trusting.wrap_socket(crowded.connect("127.0.0.2"), server_hostname="127.0.0.1"))
            for _ in range(FILES)
        ]
        bare = stack.enter_context(socket.socket(fileno=first.detach()))
        bare.settimeout(15)
        with contextlib.suppress(ConnectionResetError):
            while bare.recv(4096):
                pass


@pytest.fixture
def own(tmp_path: Path) -> tuple[str, ...]:
    """Of a server with a certificate of its own."""
    certificate, key = own_certificate(tmp_path, ["gpu.example.com"])
    return "--ssl-keyfile", str(key), "--ssl-certfile", str(certificate)


def test_tls_and_plain_http_are_spoken_on_one_port(tmp_path: Path, own: tuple[str, ...]) -> None:
    with Crowd(tmp_path / "home", *own) as server:
        assert server.ask(server.connect("127.0.0.2"), "/healthz")[0] == 200
        trusting = tls.context(tmp_path / "cert.pem")
        with trusting.wrap_socket(server.connect("127.0.0.2"), server_hostname="any.name.at.all") as secure:
            assert server.ask(secure, "/healthz")[0] == 200


def test_who_says_nothing_at_all_makes_room_on_such_a_port_too(tmp_path: Path, own: tuple[str, ...]) -> None:
    with Crowd(tmp_path / "home", *own) as server:
        silent = [server.connect("127.0.0.2") for _ in range(FILES)]
        assert server.ask(server.connect("127.0.0.2"), "/healthz")[0] == 200
        assert silent[0].recv(1) == b""


async def test_plain_http_from_elsewhere_is_not_looked_at_where_tls_is_spoken(tmp_path: Path) -> None:
    asked = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        asked.append(scope["path"])

    seats = Connections(8, Proxies(()))
    protocol = patient(Settings(tmp_path), seats)
    config = uvicorn.Config(application, http=protocol, lifespan="off", log_config=None)
    config.load()
    certificate, key = own_certificate(tmp_path, ["gpu.example.com"])
    handshakes = Handshakes(str(certificate), str(key), seats)
    here, there = socket.socketpair()
    with here:
        here.sendall(b"GET /v1/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer secret\r\n\r\n")
        state = ServerState()
        handshakes.greet(there, "203.0.113.5", lambda: protocol(config, state, {}))
        reader, writer = await asyncio.open_connection(sock=here)
        answer = await reader.read(1000)
        writer.close()
    assert b"400 Bad Request" in answer
    assert b"https://" in answer
    assert asked == []
    assert len(seats) == 0


async def test_nor_do_those_from_many_addresses(crowded: Crowd) -> None:
    for host in range(10, 30):
        for _ in range(20):
            crowded.connect(f"127.0.0.{host}").sendall(b"GET /healthz HTTP/1.1\r\n")
    await crowded.everybody_gets_in("127.0.0.9", "w1")
    assert crowded.ask(crowded.connect("127.0.0.10"), "/healthz")[0] == 200


async def test_one_user_has_a_share_and_all_of_them_leave_room_for_admins_and_workers(crowded: Crowd) -> None:
    async with crowded.session("127.0.0.9") as session:
        admin = await Person(session, crowded.url).login("admin", PASSWORD)
        tokens = [await crowded.user(admin, f"user{n}") for n in range(5)]
    for number, token in enumerate(tokens[:4]):
        wanted = 33 if number == 0 else 26
        answers = [
            crowded.ask(crowded.connect(f"127.0.1.{number * 20 + n % 20}"), "/v1/jobs", token) for n in range(wanted)
        ]
        taken = 32 if number == 0 else 26
        assert [status for status, _ in answers] == [200] * taken + [503] * (wanted - taken)
    assert b"you have 32 connections" in crowded.ask(crowded.connect("127.0.1.90"), "/v1/jobs", tokens[0])[1]
    for _ in range(2):
        assert crowded.ask(crowded.connect("127.0.1.91"), "/v1/jobs", tokens[4])[0] == 200
    status, why = crowded.ask(crowded.connect("127.0.1.92"), "/v1/jobs", tokens[4])
    assert (status, b"as many connections as it has room for" in why) == (503, True)
    await crowded.everybody_gets_in("127.0.0.9", "w1")
