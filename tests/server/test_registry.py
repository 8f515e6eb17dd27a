"""Questions to a registry that means no good: how long they may take, whom they reach, who sees a token."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme

from hecaton.core.references import parse
from hecaton.server.accounts import questions
from hecaton.server.accounts.questions import Unanswered, ask
from hecaton.server.accounts.registry import check, may_give_tokens
from tests.client.certificates import server_context
from tests.client.scripted import Answer, ScriptedServer, Seen, reply
from tests.wire.forwarding import ForwardingProxy

DIGEST = "sha256:" + "ab" * 32
MANIFEST = "/v2/team/app/manifests/1"
FOUND = Answer(200, b"", {"Docker-Content-Digest": DIGEST})


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)


@pytest.fixture
def told() -> Iterator[ScriptedServer]:
    with ScriptedServer() as scripted:
        yield scripted


@asynccontextmanager
async def _dripping(beginning: bytes) -> AsyncIterator[str]:
    """Says that, and then a byte more now and then, until nobody listens."""

    def drip() -> None:
        with listener.accept()[0] as connection, contextlib.suppress(OSError):
            connection.sendall(beginning)
            while True:
                connection.sendall(b"x")
                time.sleep(0.01)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        dripping = threading.Thread(target=drip)
        dripping.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        await asyncio.to_thread(dripping.join)


@pytest.mark.parametrize("beginning", [b"HTTP/1.1 200 O", b"HTTP/1.1 200 OK\r\nX: "])
async def test_who_answers_byte_by_byte_is_given_up_in_time(beginning: bytes) -> None:
    async with _dripping(beginning) as address:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await ask("HEAD", f"http://{address}/", {}, private=True)


async def test_an_answer_without_end_is_given_up(told: ScriptedServer) -> None:
    told.on("GET", "/long", Answer(200, b"x" * questions.MAX_ANSWER))
    told.on("GET", "/head", Answer(200, b"", {"X": "x" * questions.MAX_ANSWER}))
    for path in ("/long", "/head"):
        with pytest.raises(Unanswered, match="more than 65536 bytes"):
            await ask("GET", told.url + path, {}, private=True)


async def test_answers_may_end_with_their_connection_and_have_hints_before_them(told: ScriptedServer) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nX: y\r\n\r\nall of it")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        said = await ask("GET", url, {}, private=True)
        assert (said.status, said.headers["x"], said.body, said.public) == (200, "y", b"all of it", False)
        assert (await ask("HEAD", url, {}, private=True)).status == 200
    upgrade = Answer(101, b"", {"Connection": "upgrade", "Upgrade": "x"})
    told.on("GET", "/other", upgrade)
    with pytest.raises(Unanswered):
        await ask("GET", f"{told.url}/other", {}, private=True)
    told.on("GET", "/", Answer(200, b"cut", cut=1))
    with pytest.raises(Unanswered, match="broke off"):
        await ask("GET", f"{told.url}/", {}, private=True)


@pytest.mark.parametrize(
    ("host", "private"),
    [
        ("169.254.169.254", True), ("[fe80::1]", True), ("[::ffff:169.254.169.254]", True), ("0.0.0.0", True),
        ("[::]", True), ("224.0.0.1", True),
        ("127.0.0.1", False), ("localhost", False), ("10.1.2.3", False), ("192.168.1.1", False), ("[::1]", False),
        ("[::ffff:127.0.0.1]", False), ("[fd00:ec2::254]", False), ("100.100.100.200", False),
    ],
)  # fmt: skip
async def test_addresses_of_no_part_of_the_internet_are_not_asked(
    told: ScriptedServer, host: str, private: bool
) -> None:
    with pytest.raises(Unanswered, match="is an address that this server does not ask"):
        await ask("GET", f"http://{host}:{told.port}/", {}, private=private)
    assert told.seen == []


@pytest.mark.parametrize(
    "realm",
    [
        "http://127.0.0.2:{port}/token", "http://localhost:{port}/token", "http://user:word@{own}/token",
        "https://169.254.169.254/latest/meta-data", "http://{own}@127.0.0.2:{port}/token", "file:///etc/passwd",
        "https://[", "http://127.0.0.2:{port}/\r\nX: y",
    ],
)  # fmt: skip
async def test_a_registry_leads_to_no_other_machine_that_it_names(told: ScriptedServer, realm: str) -> None:
    with ScriptedServer(host="127.0.0.2") as trap:
        trap.on("GET", "/token", reply({"token": "secret of the trap"}))
        named = realm.format(port=trap.port, own=told.address)
        told.on(
            "HEAD", MANIFEST, Answer(401, b"", {"WWW-Authenticate": f'Bearer realm="{named}"'.replace("\r\n", "\\")})
        )
        checked = await check(parse(f"{told.address}/team/app:1"))
        assert (checked.digest, checked.wants_login) == (None, True)
        assert trap.seen == []
    assert [seen.headers.get("authorization") for seen in told.seen] == [None]


@pytest.mark.parametrize("token", ["a\r\nX-Forged: 1", "a b", "", "\u00fc", "x" * 20_000])
async def test_what_is_no_token_is_shown_to_nobody(told: ScriptedServer, token: str) -> None:
    realm = {"WWW-Authenticate": f'Bearer realm="{told.url}/token"'}
    told.on("HEAD", MANIFEST, lambda seen: FOUND if "authorization" in seen.headers else Answer(401, b"", realm))
    told.on("GET", "/token", reply({"token": token}))
    checked = await check(parse(f"{told.address}/team/app:1"))
    assert (checked.digest, checked.wants_login) == (None, True)
    assert [seen.method for seen in told.seen] == ["HEAD", "GET"]


@pytest.mark.parametrize(
    ("registry", "realm"),
    [
        ("https://registry-1.docker.io", "https://auth.docker.io/token"),
        ("https://ghcr.io", "https://ghcr.io/token"),
        ("https://registry.gitlab.com", "https://gitlab.com/jwt/auth"),
        ("https://lscr.io", "https://ghcr.io/token"),
        ("https://nvcr.io", "https://authn.nvidia.com/token"),
        ("https://git.lab.example:5050", "https://git.lab.example/jwt/auth"),
        ("https://10.0.0.5:5000", "https://10.0.0.5:5001/auth"),
        ("https://registry.team.co.uk", "https://auth.team.co.uk/token"),
        ("http://localhost:5000", "http://localhost:5000/token"),
        ("http://localhost:5000", "https://localhost:5001/token"),
    ],
)
def test_who_may_give_out_the_tokens_of_a_registry(registry: str, realm: str) -> None:
    assert may_give_tokens(realm, registry)


@pytest.mark.parametrize(
    ("registry", "realm"),
    [
        ("https://ghcr.io", "http://ghcr.io/token"),
        ("https://ghcr.io", "https://evil.example/token"),
        ("https://ghcr.io", "https://ghcr.io.evil.example/token"),
        ("https://ghcr.io", "https://ghcr.io@evil.example/token"),
        ("https://ghcr.io", "https://notghcr.io/token"),
        ("https://shop.co.uk", "https://bank.co.uk/token"),
        ("https://one.team.co.uk", "https://one.other.co.uk/token"),
        ("https://10.0.0.5:5000", "https://1.0.0.5/auth"),
        ("https://10.0.0.5:5000", "https://10.0.0.6/auth"),
        ("http://localhost:5000", "http://localhost:5001/token"),
        ("https://localhost:5000", "http://localhost:5000/token"),
        ("https://ghcr.io", "https://io/token"),
    ],
)
def test_who_may_not(registry: str, realm: str) -> None:
    assert not may_give_tokens(realm, registry)


async def test_registries_are_asked_by_way_of_the_proxy_and_with_nothing_of_netrc(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    (tmp_path / "netrc").write_text("default login ada password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    questions._trust.cache_clear()

    def manifest(seen: Seen) -> Answer:
        realm = f'Bearer realm="https://auth.team.invalid:{registry.port}/token"'
        known = seen.headers.get("authorization") == "Bearer t0ken"
        return FOUND if known else Answer(401, b"", {"WWW-Authenticate": realm})

    with ScriptedServer(server_context(ca, "*.team.invalid")) as registry, ForwardingProxy() as proxy:
        registry.on("HEAD", MANIFEST, manifest)
        registry.on("GET", "/token", reply({"token": "t0ken"}))
        monkeypatch.setenv("HTTPS_PROXY", f"http://us:er@{proxy.address}")
        name = f"images.team.invalid:{registry.port}"
        assert (await check(parse(f"{name}/team/app:1"))).digest == DIGEST
        assert [line.split()[1] for line in proxy.asked] == [
            name, f"auth.team.invalid:{registry.port}", name,
        ]  # fmt: skip
        assert set(proxy.logins) == {"Basic dXM6ZXI="}
        assert [seen.headers.get("authorization") for seen in registry.seen] == [None, None, "Bearer t0ken"]
        monkeypatch.setenv("HTTPS_PROXY", "socks5://nowhere")
        assert "names no proxy" in str((await check(parse(f"{name}/team/app:1"))).warning)
    questions._trust.cache_clear()


async def test_questions_go_on_while_all_other_threads_of_the_server_are_busy(told: ScriptedServer) -> None:
    done = threading.Event()
    with ThreadPoolExecutor(1) as one:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(one)
        busy = loop.run_in_executor(None, done.wait)
        told.on("HEAD", MANIFEST, FOUND)
        try:
            assert (await check(parse(f"localhost:{told.port}/team/app:1"))).digest == DIGEST
        finally:
            done.set()
            await busy
