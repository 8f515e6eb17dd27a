"""The worker's connection: how it comes back, whom it trusts, and when it gives up."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from hecaton.cli.hecaton_server.certificate import own_certificate
from hecaton.core.model import JobId, Reason
from hecaton.wire.channel import (
    CLOSE_REPLACED,
    CLOSE_UNAUTHENTICATED,
    OLDEST,
    PROTOCOL,
    Accepted,
    Hello,
    Log,
    Outcome,
    Results,
    Started,
    ToWorker,
    Warm,
    Welcome,
    WorkerBeat,
)
from hecaton.worker.app import serve
from hecaton.worker.brain.settings import WorkerSettings
from hecaton.worker.link import link as module
from hecaton.worker.link import reaching
from hecaton.worker.link.bodies import Bodies, BodyRefused
from hecaton.worker.link.link import ServerLink, reconnect_delay
from hecaton.worker.link.notify import notify
from hecaton.worker.link.registration import WorkerConfig
from hecaton.worker.runtimes.process import ProcessRuntime
from tests.worker.brain import ref
from tests.worker.scripted_server import PATIENCE, ScriptedServer

Run = Callable[[WorkerConfig], "asyncio.Task[int]"]


@pytest.fixture
async def run() -> AsyncIterator[Run]:
    """Starts workers that have no work, and ends them."""
    tasks: list[asyncio.Task[int]] = []

    def start(config: WorkerConfig) -> asyncio.Task[int]:
        tasks.append(asyncio.create_task(serve(config, ProcessRuntime(config.worker_id, {}), (), WorkerSettings())))
        return tasks[-1]

    yield start
    for task in tasks:
        task.cancel()
        await asyncio.wait([task])


class Nobody:
    """Listens to a link, and has nothing to say."""

    def __init__(self) -> None:
        self.welcomed = asyncio.Event()
        self.accepted = asyncio.Event()
        self.at_welcome: Callable[[], object] = lambda: None

    def hello(self) -> Hello:
        return Hello(PROTOCOL, "2.0.0", "process", (), ())

    def welcome(self, message: Welcome) -> None:
        self.welcomed.set()
        self.at_welcome()

    def assured(self, at: float) -> None: ...

    def hear(self, message: ToWorker) -> None:
        if isinstance(message, Accepted):
            self.accepted.set()

    def lost(self) -> None: ...
    def dismissed(self, code: int, message: str) -> None: ...


async def until_logged(logs: Sequence[Mapping[str, Any]], text: str) -> None:
    async with asyncio.timeout(PATIENCE):
        while not any(text in f"{entry['event']} {entry.get('error', '')}" for entry in logs):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def until_counted(logs: Sequence[Mapping[str, Any]], count: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while len(logs) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_server_that_is_too_old_is_named_as_what_to_upgrade(run: Run, tmp_path: Path) -> None:
    async with ScriptedServer() as server:
        server.protocol = OLDEST - 1
        with capture_logs() as logs:
            run(server.config(tmp_path / "state"))
            await until_logged(logs, "upgrade the server")


async def test_it_waits_for_a_server_that_is_not_there_yet(run: Run, tmp_path: Path) -> None:
    server = ScriptedServer()
    await server.start()
    config = server.config(tmp_path / "state")
    await server.stop()
    with capture_logs() as logs:
        run(config)
        await until_logged(logs, "Cannot connect: trying again in")
    await server.start()
    await server.connected()
    await server.stop()


@pytest.fixture
def failures(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tries in a row had failed before each pause; the pauses themselves are left out."""
    counted: list[int] = []

    def no_pause(count: int, generator: random.Random) -> float:
        counted.append(count)
        return 0.0

    monkeypatch.setattr(module, "reconnect_delay", no_pause)
    return counted


async def test_a_broken_connection_is_opened_again_at_once(run: Run, tmp_path: Path, failures: list[int]) -> None:
    async with ScriptedServer(heartbeat=0.1) as server:
        run(server.config(tmp_path / "state"))
        for times in range(1, 4):
            await server.connected(times)
            await server.message(WorkerBeat, len(server.all(WorkerBeat)) + 2)
            await server.cut()
        await server.connected(4)
    assert failures[:3] == [0, 0, 0]


async def test_a_server_that_says_welcome_and_can_store_no_result_is_asked_ever_more_seldom(
    tmp_path: Path, failures: list[int]
) -> None:
    async with ScriptedServer() as server:
        server.cannot_store = 4
        config, listener = server.config(tmp_path / "state"), Nobody()
        async with reaching.session(config) as session:
            link = ServerLink(config, session)
            listener.at_welcome = lambda: link.send(_result("a"))  # as the brain does: it goes until it is accepted
            running = asyncio.create_task(link.run(listener))
            await asyncio.wait_for(listener.accepted.wait(), PATIENCE)
            await server.cut()
            await server.connected(6)
            running.cancel()
            await asyncio.wait([running])
    assert failures == [1, 2, 3, 4, 0]


async def test_nor_does_the_answer_to_a_beat_make_such_a_server_welcome(tmp_path: Path, failures: list[int]) -> None:
    """It takes its time until it refuses."""
    async with ScriptedServer(heartbeat=0.02) as server:
        server.accepts = False
        config, listener = server.config(tmp_path / "state"), Nobody()
        async with reaching.session(config) as session:
            link = ServerLink(config, session)
            listener.at_welcome = lambda: link.send(_result("a"))
            running = asyncio.create_task(link.run(listener))
            for times in range(1, 4):
                await server.connected(times)
                await server.message(Results, times)
                await server.message(WorkerBeat, len(server.all(WorkerBeat)) + 3)
                await server.cut()
            await server.connected(4)
            running.cancel()
            await asyncio.wait([running])
    assert failures[:3] == [1, 2, 3]


def test_however_long_the_server_was_away_the_next_try_is_soon() -> None:
    generator = random.Random(1)
    pauses = [reconnect_delay(failures, generator) for failures in (1, 2, 10, 5000) for _ in range(100)]
    assert max(pauses) <= 5.0
    assert len(set(pauses)) > 200  # workers do not come in waves
    assert reconnect_delay(0, generator) == 0.0


async def test_each_connection_of_a_process_has_a_higher_number(run: Run, tmp_path: Path) -> None:
    async with ScriptedServer() as server:
        run(server.config(tmp_path / "state"))
        for times in (1, 2):
            await server.connected(times)
            await server.cut()
        await server.connected(3)
    assert len({hello.started for hello in server.hellos}) == 1
    numbers = [hello.connection for hello in server.hellos]
    assert numbers == sorted(set(numbers))


async def test_a_worker_whose_connection_was_replaced_by_its_own_comes_back(run: Run, tmp_path: Path) -> None:
    async with ScriptedServer() as server:
        task = run(server.config(tmp_path / "state"))
        await server.connected()
        await server.close(CLOSE_REPLACED)
        await server.connected(2)
        assert not task.done()


async def test_results_that_come_while_earlier_ones_are_being_stored_go_together(tmp_path: Path) -> None:
    async with ScriptedServer() as server, _connected(server, tmp_path) as link:
        server.accepts = False
        link.send(_result("a"))
        await server.message(Results)
        for name in ("b", "c"):
            link.send(Started((ref(name),)))
            link.send(_result(name))
            await asyncio.sleep(0)
        link.send(Log(ref("b"), 0, b"said"))  # what waits for nothing takes along what waits
        await server.message(Results, 2)
        link.send(_result("d"))
        await asyncio.sleep(0.1)
        assert len(server.all(Results)) == 2
        await server.say(Accepted((ref("a"), ref("b")), fenced=(ref("c"),)))
        await server.message(Results, 3)
    said = [message for message in server.heard if isinstance(message, Results | Started | Log)]
    assert said == [
        _result("a"),
        Started((ref("b"), ref("c"))),
        Log(ref("b"), 0, b"said"),
        Results((*_result("b").outcomes, *_result("c").outcomes)),
        _result("d"),
    ]


async def test_many_results_leave_although_earlier_ones_are_still_being_stored(tmp_path: Path) -> None:
    async with ScriptedServer(heartbeat=3600) as server, _connected(server, tmp_path) as link:
        server.accepts = False
        link.send(_result("first"))
        await server.message(Results)
        for number in range(module.MANY):
            link.send(_result(f"{number}"))
        await server.message(Results, 2)
    assert [len(results.outcomes) for results in server.all(Results)] == [1, module.MANY]


async def test_the_end_of_a_job_says_that_it_has_started_where_both_go_together(tmp_path: Path) -> None:
    async with ScriptedServer() as server, _connected(server, tmp_path) as link:
        link.send(Started((ref("ran"), ref("runs"), ref("never"))))
        link.send(_result("ran", ran=0.1))
        link.send(_result("never"))
        await server.message(Results)
    assert server.all(Started) == [Started((ref("runs"), ref("never")))]


async def test_what_a_container_runs_is_said_in_front_of_the_start_of_its_job(tmp_path: Path) -> None:
    async with ScriptedServer() as server, _connected(server, tmp_path) as link:
        link.send(Started((ref("a"),)))
        link.send(Warm(0, None, None, "sha256:1f3c9e"))
        await server.message(Started)
    assert [type(message) for message in server.heard if isinstance(message, Started | Warm)] == [Warm, Started]


async def test_a_start_waits_a_moment_for_the_end_of_its_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "START_SECONDS", 3600.0)
    async with ScriptedServer() as server, _connected(server, tmp_path) as link:
        link.send(Started((ref("short"),)))
        await asyncio.sleep(0.05)  # a frame of its own would have left in the next turn of the loop
        link.send(_result("short", ran=0.01))
        await server.message(Results)
    assert server.all(Started) == []


async def test_a_start_whose_job_goes_on_is_said_by_itself(tmp_path: Path) -> None:
    async with ScriptedServer(heartbeat=3600) as server, _connected(server, tmp_path) as link:
        for count, name in enumerate(("a", "b"), 1):
            link.send(Started((ref(name),)))
            await server.message(Started, count)
    assert server.all(Started) == [Started((ref("a"),)), Started((ref("b"),))]


async def test_an_answer_that_never_comes_holds_results_up_no_longer_than_a_heartbeat(tmp_path: Path) -> None:
    async with ScriptedServer(heartbeat=0.2) as server, _connected(server, tmp_path) as link:
        server.accepts = False
        for count, name in enumerate(("a", "b"), 1):
            link.send(_result(name))
            await server.message(Results, count)


def _result(name: str, ran: float | None = None) -> Results:
    return Results((Outcome(ref(name), Reason.OK, ran=ran),))


@asynccontextmanager
async def _connected(server: ScriptedServer, tmp_path: Path) -> AsyncIterator[ServerLink]:
    config = server.config(tmp_path / "state")
    listener = Nobody()
    async with reaching.session(config) as session:
        link = ServerLink(config, session)
        running = asyncio.create_task(link.run(listener))
        await asyncio.wait_for(listener.welcomed.wait(), PATIENCE)
        yield link
        running.cancel()
        await asyncio.wait([running])


async def test_an_idle_worker_sends_heartbeats(run: Run, tmp_path: Path) -> None:
    async with ScriptedServer(heartbeat=0.1) as server:
        run(server.config(tmp_path / "state"))
        await server.message(WorkerBeat, 2)


async def test_a_server_that_falls_silent_is_left_for_a_new_connection(run: Run, tmp_path: Path) -> None:
    async with ScriptedServer(heartbeat=0.1) as server:
        server.beats = False
        run(server.config(tmp_path / "state"))
        await server.connected(2)


async def test_a_token_that_is_not_known_is_said_clearly_and_tried_again(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "UNWELCOME_DELAY", 0.1)
    async with ScriptedServer() as server:
        known, server.tokens = server.tokens, set()
        with capture_logs() as logs:
            task = run(server.config(tmp_path / "state"))
            await until_logged(logs, "does not know this worker's token")
            server.tokens = known
            await server.connected()
            await server.close(CLOSE_UNAUTHENTICATED)
            await server.connected(2)
        assert not task.done()


async def test_a_body_is_tried_again_until_the_server_can_give_and_take_it(tmp_path: Path) -> None:
    async with ScriptedServer() as server:
        config = server.config(tmp_path / "state")
        name = server.keep(b"x" * 3_000_000)
        async with reaching.session(config) as session:
            bodies = Bodies(config.url, session)
            for transfer in (bodies.fetch, bodies.store):
                server.refuse_blobs = 503
                with capture_logs() as logs:
                    done = asyncio.create_task(transfer(JobId("a"), name, tmp_path / "body"))
                    await until_logged(logs, "trying again")
                server.refuse_blobs = 0
                await asyncio.wait_for(done, PATIENCE)
    assert (tmp_path / "body").read_bytes() == b"x" * 3_000_000
    assert server.blobs == {name: b"x" * 3_000_000}


async def test_containers_that_fetch_the_same_file_at_once_do_not_take_it_from_each_other(tmp_path: Path) -> None:
    async with ScriptedServer() as server:
        config = server.config(tmp_path / "state")
        name = server.keep(b"x" * 3_000_000)
        async with reaching.session(config) as session:
            bodies = Bodies(config.url, session)
            fetching = [bodies.fetch(JobId("a"), name, tmp_path / "file", lasting=True) for _ in range(4)]
            await asyncio.wait_for(asyncio.gather(*fetching), PATIENCE)
    assert (tmp_path / "file").read_bytes() == b"x" * 3_000_000
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".part")]


@pytest.mark.parametrize(
    ("status", "headers", "said"),
    [
        (413, {}, "client_max_body_size"),
        (407, {}, "http://USER:PASSWORD@"),
        (403, {}, "does not let this through"),
        (404, {}, "another program, answered"),
        (302, {"Location": "/login"}, "sends elsewhere"),
        (200, {}, "instead"),
    ],
)
async def test_what_a_proxy_says_about_a_body_is_said_once_and_tried_again(
    tmp_path: Path, status: int, headers: dict[str, str], said: str
) -> None:
    async with ScriptedServer() as server:
        config = server.config(tmp_path / "state")
        (tmp_path / "body").write_bytes(b"x" * 100_000)
        name = hashlib.sha256(b"x" * 100_000).hexdigest()
        page = {**headers, "Server": "nginx/1.22.1"}
        server.proxy_says = lambda: web.Response(status=status, headers=page, body=b"<html></html>")
        notes: list[str] = []
        async with reaching.session(config) as session:
            with capture_logs() as logs:
                storing = asyncio.create_task(
                    Bodies(config.url, session).store(JobId("a"), name, tmp_path / "body", say=notes.append)
                )
                await until_logged(logs, "Could not store a result")
                await until_counted(logs, 2)
            server.proxy_says = None
            await asyncio.wait_for(storing, PATIENCE)
    assert server.blobs[name] == b"x" * 100_000
    [note] = notes
    assert f"status {status} " in note
    assert "nginx/1.22.1" in note
    assert said in note


@pytest.mark.parametrize(
    ("status", "said"), [(404, "has to pass it on"), (200, "has to pass it on"), (407, "USER:PASS")]
)
async def test_a_proxy_that_answers_in_place_of_the_channel_is_named(
    run: Run, tmp_path: Path, status: int, said: str
) -> None:
    async with ScriptedServer() as server:
        server.proxy_says = lambda: web.Response(status=status, headers={"Server": "nginx/1.22.1"})
        with capture_logs() as logs:
            run(server.config(tmp_path / "state"))
            await until_logged(logs, said)
            await until_logged(logs, "nginx/1.22.1")
            server.proxy_says = None
            await server.connected()


async def test_a_body_that_the_server_refuses_is_not_tried_again(tmp_path: Path) -> None:
    async with ScriptedServer() as server:
        server.refuse_blobs = 404
        config = server.config(tmp_path / "state")
        async with reaching.session(config) as session:
            with pytest.raises(BodyRefused):
                await Bodies(config.url, session).fetch(JobId("a"), "0" * 64, tmp_path / "body")
    assert not (tmp_path / "body").exists()


async def test_a_body_that_arrives_damaged_is_not_taken(tmp_path: Path) -> None:
    async with ScriptedServer() as server:
        name = server.keep(b"right")
        server.blobs[name] = b"wrong"
        config = server.config(tmp_path / "state")
        async with reaching.session(config) as session:
            with capture_logs() as logs:
                fetching = asyncio.create_task(Bodies(config.url, session).fetch(JobId("a"), name, tmp_path / "body"))
                await until_logged(logs, "its hash is another one")
            server.blobs[name] = b"right"
            await asyncio.wait_for(fetching, PATIENCE)
    assert (tmp_path / "body").read_bytes() == b"right"


def test_outside_of_a_service_nothing_is_told_to_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify("nobody hears this")


class TestTls:
    @pytest.fixture
    def certificate(self, tmp_path: Path) -> Path:
        command = (
            "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
        )
        files = ["-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")]
        subprocess.run([*command.split(), *files], check=True, capture_output=True)
        return tmp_path / "cert.pem"

    def context(self, certificate: Path) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate, certificate.with_name("key.pem"))
        return context

    async def test_the_pinned_certificate_is_trusted(self, run: Run, tmp_path: Path, certificate: Path) -> None:
        async with ScriptedServer(tls=self.context(certificate)) as server:
            run(server.config(tmp_path / "state", certificate))
            await server.connected()

    async def test_one_that_signs_no_other_is_trusted_under_every_address(self, run: Run, tmp_path: Path) -> None:
        certificate, _ = own_certificate(tmp_path, ["gpu.example.com"])
        async with ScriptedServer(tls=self.context(certificate)) as server:
            run(server.config(tmp_path / "state", certificate))
            await server.connected()

    async def test_another_certificate_is_not(self, run: Run, tmp_path: Path, certificate: Path) -> None:
        async with ScriptedServer(tls=self.context(certificate)) as server:
            with capture_logs() as logs:
                run(server.config(tmp_path / "state"))
                await until_logged(logs, "Cannot connect")
            assert server.hellos == []

    async def test_a_server_that_has_lost_its_tls_is_not_spoken_to_in_the_clear(
        self, run: Run, tmp_path: Path, certificate: Path
    ) -> None:
        server = ScriptedServer(tls=self.context(certificate))
        await server.start()
        config = server.config(tmp_path / "state", certificate)
        await server.stop()
        plain = ScriptedServer()
        plain.port = server.port
        async with plain:
            with capture_logs() as logs:
                run(config)
                await until_logged(logs, "Cannot connect")
            assert plain.hellos == []
