"""`hecaton-server` as a process: starts, refusals, signals, kill -9, and what it leaves on the disk."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import sqlite3
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import aiohttp
import pytest
import trustme

from hecaton.client import Client
from hecaton.core.errors import BadRequest, Unauthenticated
from hecaton.core.model import Reason
from hecaton.server.private_files import require_private
from hecaton.wire.channel import Held
from tests.server.people import Person
from tests.server.running import IMAGE, PASSWORD
from tests.server.scripted_worker import ScriptedWorker, holding
from tests.server.server_process import COMMAND, ServerProcess

Start = Callable[..., ServerProcess]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts servers, all with the same home unless told otherwise; kills what a test leaves."""
    started = []

    def begin(*options: str, home: str = "home", **more: object) -> ServerProcess:
        process = ServerProcess(tmp_path / home, *options, **more)  # type: ignore[arg-type]
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()


async def _login(session: aiohttp.ClientSession, url: str) -> Person:
    return await Person(session, url).login("admin", PASSWORD)


async def _worker(admin: Person) -> ScriptedWorker:
    made = await admin.must("POST", "/v1/workers", {"name": "w1"})
    return ScriptedWorker(admin.session, admin.url, made["token"])


def _free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return str(listener.getsockname()[1])


# -- the way in ------


def test_a_lost_password_is_replaced_at_the_server_s_machine(start: Start, tmp_path: Path) -> None:
    server = start()
    server.ready()
    command = [str(COMMAND), "admin-password"]
    environment = {**os.environ, "HECATON_HOME": str(server.home)}

    def run(*more: str, **extra: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *more], env={**environment, **extra}, capture_output=True, text=True, check=False, timeout=60
        )

    running = run()
    assert (running.returncode, "already uses" in running.stderr) == (1, True)
    server.stop()
    assert "there is no user" in run("--username", "nobody").stderr
    assert "HECATON_ADMIN_PASS: a password has" in run(HECATON_ADMIN_PASS="short").stderr
    made = run()
    assert made.returncode == 0
    password = made.stderr.split("once:\n  ")[1].strip()
    again = start()
    with Client(again.ready()) as client:
        assert client.login("admin", password).role == "admin"
        with pytest.raises(Unauthenticated):
            client.login("admin", PASSWORD)
    assert "HECATON_ADMIN_PASS is not used: there is an admin already" in again.said


def test_the_password_of_every_start_is_no_mistake_while_it_is_right(start: Start) -> None:
    for _ in range(2):
        server = start()
        server.ready()
        server.stop()
        assert "not used" not in server.said


# -- first start -----------------------------------------------------------------------------------


async def test_the_first_start_makes_the_admin_and_says_what_a_user_needs(start: Start, tmp_path: Path) -> None:
    server = start()
    url = server.ready()
    assert str(tmp_path / "home/server") in server.said
    assert "/openapi.json" in server.said
    assert "hecaton server new --ip" in server.said
    assert PASSWORD not in server.said
    async with aiohttp.ClientSession() as session:
        assert (await (await _login(session, url)).get("/v1/server"))["username"] == "admin"


async def test_without_a_password_one_is_made_up_shown_once_and_stored_only_as_a_hash(
    start: Start, tmp_path: Path
) -> None:
    server = start(password=None)
    url = server.ready()
    shown = re.search(r"shown only this once:\n  (\S{12,})\n", server.said)
    assert shown, server.said
    async with aiohttp.ClientSession() as session:
        await Person(session, url).login("admin", shown[1])
    server.stop()
    files = [path for path in (tmp_path / "home").rglob("*") if path.is_file()]
    assert files
    assert [path for path in files if shown[1].encode() in path.read_bytes()] == []
    again = start(password=None)
    again.ready()
    assert "shown only this once" not in again.said


async def test_a_later_start_does_not_change_the_admins_password(start: Start) -> None:
    first = start()
    first.ready()
    first.stop()
    url = start(password="anotherpassword").ready()
    async with aiohttp.ClientSession() as session:
        await _login(session, url)


def test_a_password_that_is_too_short_is_refused_in_one_line_and_the_next_start_works(start: Start) -> None:
    refusal = start(password="short").refused()
    assert refusal == "Error: HECATON_ADMIN_PASS: a password has 8 to 128 characters, this one has 5\n"
    start().ready()


def test_secrets_and_data_are_for_their_owner_alone(start: Start, tmp_path: Path) -> None:
    start().ready()
    folder = tmp_path / "home/server"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "secret").stat().st_mode & 0o777 == 0o600
    assert len((folder / "secret").read_bytes()) == 32
    open_to_others = [path for path in folder.rglob("*") if path.stat().st_mode & 0o077]
    assert open_to_others == []


def test_two_installations_have_different_secrets(start: Start, tmp_path: Path) -> None:
    for home in ("one", "two"):
        start(home=home).ready()
    assert (tmp_path / "one/server/secret").read_bytes() != (tmp_path / "two/server/secret").read_bytes()


# -- refusals --------------------------------------------------------------------------------------


def _one_line(text: str, *parts: str) -> None:
    assert "Traceback" not in text
    assert all(part in text for part in parts), text
    assert len(text.strip().splitlines()) <= 4, text  # the error, a hint, at most two lines of usage


def test_a_second_server_on_the_same_folder_is_refused(start: Start, tmp_path: Path) -> None:
    first = start()
    first.ready()
    folder = str(tmp_path / "home/server")
    _one_line(start().refused(), f"another server (process {first.process.pid}) already uses {folder}")
    first.kill()
    start().ready()  # the lock goes with the process


def test_a_port_that_is_taken_is_refused(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        _one_line(start("--port", port).refused(), f"cannot listen on 127.0.0.1 port {port}", "--port chooses another")


def test_a_database_of_a_newer_version_or_with_damage_is_refused(start: Start, tmp_path: Path) -> None:
    first = start()
    first.ready()
    first.stop()
    database = tmp_path / "home/server/hecaton.db"
    connection = sqlite3.connect(database)
    connection.execute("PRAGMA user_version = 9999")
    connection.close()
    _one_line(start().refused(), str(database), "9999")
    database.write_bytes(b"this is no database" * 1000)
    _one_line(start().refused(), str(database))


def test_a_damaged_secret_is_refused(start: Start, tmp_path: Path) -> None:
    first = start()
    first.ready()
    first.stop()
    (tmp_path / "home/server/secret").write_bytes(b"short")
    _one_line(start().refused(), "secret is damaged (5 bytes, not 32)", "Remove it: all users log in again.")


# -- TLS -------------------------------------------------------------------------------------------


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path, ssl.SSLContext]:
    """key.pem, cert.pem, and a context that trusts them."""
    ca = trustme.CA()
    issued = ca.issue_cert("localhost", "127.0.0.1")
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    issued.private_key_pem.write_to_path(str(key))
    key.chmod(0o640)
    issued.cert_chain_pems[0].write_to_path(str(certificate))
    trusting = ssl.create_default_context()
    ca.configure_trust(trusting)
    return key, certificate, trusting


async def test_the_server_speaks_tls_to_people_and_workers(
    start: Start, pair: tuple[Path, Path, ssl.SSLContext]
) -> None:
    key, certificate, trusting = pair
    server = start("--port", "0", "--ssl-keyfile", str(key), "--ssl-certfile", str(certificate))
    url = server.ready()
    assert url.startswith("https://")
    assert "Warning" not in server.said
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusting)) as session:
        admin = await _login(session, url)
        worker = await _worker(admin)
        await worker.connect()
        await admin.must("POST", "/v1/images", {"name": IMAGE, "verify": False})
        job_id = await admin.submit(IMAGE)
        await worker.finish((await worker.start()).ref, "over TLS")
        assert (await admin.ended(job_id))["result"] == "over TLS"
        await worker.gone()


def test_tls_files_that_cannot_be_used_are_refused(
    start: Start, pair: tuple[Path, Path, ssl.SSLContext], tmp_path: Path
) -> None:
    key, certificate, _ = pair
    other = tmp_path / "other.pem"
    trustme.CA().issue_cert("localhost").private_key_pem.write_to_path(str(other))
    other.chmod(0o640)
    certificate.chmod(0o600)
    missing = str(tmp_path / "missing.pem")
    for key_file, cert_file, problem in (
        (missing, str(certificate), "No such file"),
        (str(key), missing, "No such file"),
        (str(certificate), str(key), "cannot use"),
        (str(other), str(certificate), "cannot use"),
    ):
        _one_line(start("--ssl-keyfile", key_file, "--ssl-certfile", cert_file).refused(), problem)
    _one_line(start("--ssl-keyfile", str(key)).refused(), "TLS needs both --ssl-keyfile and --ssl-certfile")


def test_a_key_or_secret_that_others_can_read_is_refused(start: Start, pair: tuple[Path, Path, ssl.SSLContext]) -> None:
    key, certificate, _ = pair
    key.chmod(0o644)
    refused = start("--ssl-keyfile", str(key), "--ssl-certfile", str(certificate))
    _one_line(refused.refused(), f"{key} can be read or changed by others (mode 644)", "chmod 600")
    secret = refused.home / "server" / "secret"
    secret.parent.mkdir(parents=True)
    secret.write_bytes(bytes(32))
    secret.chmod(0o640)
    _one_line(start().refused(), f"{secret} can be read or changed by others (mode 640)", "chmod 600")


@pytest.mark.parametrize(("group_may_read", "allowed"), [(False, {0o600, 0o400}), (True, {0o600, 0o400, 0o640, 0o440})])
def test_a_file_with_a_secret_is_its_owners(tmp_path: Path, group_may_read: bool, allowed: set[int]) -> None:
    """A key may be read by a group, as on Debian."""
    path = tmp_path / "key.pem"
    path.touch()
    found = set()
    for mode in (0o600, 0o400, 0o640, 0o440, 0o660, 0o620, 0o604, 0o602, 0o601, 0o644, 0o666):
        path.chmod(mode)
        try:
            require_private(path, group_may_read)
        except BadRequest:
            continue
        found.add(mode)
    assert found == allowed


# -- signals and crashes ---------------------------------------------------------------------------


async def test_sigterm_ends_everything_within_ten_seconds_and_answers_who_waits(start: Start) -> None:
    server = start()
    url = server.ready()
    async with aiohttp.ClientSession() as session:
        admin = await _login(session, url)
        await admin.must("POST", "/v1/images", {"name": IMAGE, "verify": False})
        worker = await _worker(admin)
        await worker.connect()
        job_id = await admin.submit(IMAGE)
        await worker.start()
        waiting = asyncio.create_task(admin.get(f"/v1/jobs/{job_id}?wait=60"))
        headers = {"Authorization": f"Bearer {admin.token}"}
        async with session.get(f"{url}/v1/jobs/{job_id}/events", headers=headers) as events:
            await events.content.readline()
            seconds = await asyncio.to_thread(server.stop)
            assert (await waiting)["state"] in ("ASSIGNED", "IN_PROGRESS")
            await events.read()  # ends cleanly
        assert await worker.closed() in (1001, 1012)
        await worker.gone()
    assert seconds < 10
    assert server.process.returncode == 0
    assert "Traceback" not in server.said


def test_sigterm_ends_handshakes_of_tls_at_once(start: Start, pair: tuple[Path, Path, ssl.SSLContext]) -> None:
    """Not when the last answer is out: who is secure by then would find nobody."""
    key, certificate, trusting = pair
    server = start("--port", "0", "--ssl-certfile", str(certificate), "--ssl-keyfile", str(key))
    address = ("127.0.0.1", int(server.ready().rpartition(":")[2]))
    with (
        socket.create_connection(address, 10) as silent,
        trusting.wrap_socket(socket.create_connection(address, 10), server_hostname="127.0.0.1") as busy,
    ):
        busy.sendall(b"POST /v1/login HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n")
        assert busy.recv(1000).startswith(b"HTTP/1.1 100 ")
        server.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(ConnectionResetError):
            assert silent.recv(1) == b""
        assert server.process.poll() is None
        busy.sendall(b"no JSON..")
        assert busy.recv(1000).startswith(b"HTTP/1.1 400 ")
    assert server.process.wait(20) == 0


async def test_kill_9_loses_nothing_and_running_attempts_go_on(start: Start) -> None:
    port = _free_port()
    server = start("--port", port)
    url = server.ready()
    async with aiohttp.ClientSession() as session:
        admin = await _login(session, url)
        await admin.must("POST", "/v1/images", {"name": IMAGE, "verify": False})
        worker = await _worker(admin)
        await worker.connect()
        running = await admin.submit(IMAGE, "running")
        job = await worker.start()
        waiting = [await admin.submit(IMAGE, number) for number in range(20)]
        server.kill()
        await worker.gone()
        start("--port", port).ready()
        for job_id in (running, *waiting):
            assert await admin.state(job_id) in ("IN_QUEUE", "ASSIGNED", "IN_PROGRESS")  # the old token holds too
        welcome = await worker.connect(held=(holding(job),))
        assert (welcome.keep, welcome.drop) == ((job.ref,), ())
        await worker.finish(job.ref, "survived", ran=5.0)
        view = await admin.ended(running)
        assert (view["attempt"], view["result"]) == (1, "survived")
        for job_id in waiting:
            following = await worker.start()
            assert following.ref.job == job_id
            await worker.finish(following.ref, ran=5.0)
        assert [(await admin.ended(job_id))["attempt"] for job_id in waiting] == [1] * 20
        await worker.gone()


async def test_a_result_that_was_spooled_while_the_server_was_down_is_taken(start: Start) -> None:
    port = _free_port()
    server = start("--port", port)
    async with aiohttp.ClientSession() as session:
        admin = await _login(session, server.ready())
        await admin.must("POST", "/v1/images", {"name": IMAGE, "verify": False})
        worker = await _worker(admin)
        await worker.connect()
        job_id = await admin.submit(IMAGE)
        job = await worker.start()
        server.kill()
        await worker.gone()
        start("--port", port).ready()
        await worker.connect(held=(Held(job.ref, 0, "done", 1.0),))
        await worker.finish(job.ref, "spooled")
        assert (await admin.ended(job_id))["result"] == "spooled"
        await worker.gone()


async def test_back_off_and_leases_survive_a_restart(start: Start) -> None:
    port = _free_port()
    server = start("--port", port, "--lost-after", "1")
    async with aiohttp.ClientSession() as session:
        admin = await _login(session, server.ready())
        await admin.must("POST", "/v1/images", {"name": IMAGE, "verify": False})
        worker = await _worker(admin)
        await worker.connect()
        again = await admin.submit(IMAGE, "again", retries=1)
        await worker.fail((await worker.start()).ref, Reason.HANDLER_ERROR)
        left = await admin.submit(IMAGE, "left")
        job = await worker.start()
        assert job.ref.job == left
        server.kill()
        await worker.gone()
        start("--port", port, "--lost-after", "1").ready()
        # The old worker stays away; its job and the one in back-off both come to the next.
        made = await admin.must("POST", "/v1/workers", {"name": "w2"})
        other = ScriptedWorker(session, admin.url, made["token"])
        await other.connect()
        seen = set()
        for _ in range(2):
            job = await other.start()
            seen.add((job.ref.job, job.ref.attempt))
            await other.finish(job.ref, ran=5.0)
        assert seen == {(again, 2), (left, 2)}
        await other.gone()
