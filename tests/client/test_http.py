"""Requests over bad networks and to bad servers: what is tried again, what is not, and what the user is told."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from hecaton.client import (
    BadRequest,
    Client,
    Conflict,
    Forbidden,
    HecatonError,
    NotFound,
    TooLarge,
    TooMany,
    Unauthenticated,
    Unavailable,
    Unreachable,
)
from hecaton.client.http import TRIES
from tests.client.certificates import server_context
from tests.client.scripted import HANG, HTML_502, NO_ANSWER, Answer, ScriptedServer, error, reply, serve_text
from tests.client.views import submitted

HEALTH = reply({"status": "ok", "version": "2.0.0", "server_id": "s", "time": 1.0})
TRUNCATED = Answer(200, HEALTH.body, cut=10)
PASSING = [NO_ANSWER, HTML_502, Answer(503), Answer(504, b"gone"), TRUNCATED, Answer(200, b"<html>Log in</html>")]
NAMES = ["reset", "html-502", "503", "504", "truncated", "html-200"]


def test_a_server_below_a_path_is_asked_there(server: ScriptedServer) -> None:
    server.on("GET", "/team/hecaton/healthz", HEALTH)
    with Client(f"http://127.0.0.1:{server.port}/team/hecaton/") as client:
        assert client.health().status == "ok"


# -- what is tried again ---------------------------------------------------------------------------


@pytest.mark.parametrize("fault", PASSING, ids=NAMES)
def test_a_read_is_tried_again_over_faults_that_pass(server: ScriptedServer, client: Client, fault: Answer) -> None:
    server.on("GET", "/healthz", fault, fault, HEALTH)
    assert client.health().status == "ok"
    assert len(server.seen) == 3


@pytest.mark.parametrize("fault", PASSING, ids=NAMES)
def test_a_submit_is_tried_again_with_the_same_key_and_body(
    server: ScriptedServer, client: Client, fault: Answer
) -> None:
    server.on("POST", "/v1/jobs", fault, fault, submitted(duplicate=True))
    job = client.submit("my/image", {"a": 1})
    assert job.index == 7
    requests = {(seen.headers["idempotency-key"], seen.body) for seen in server.asked("POST", "/v1/jobs")}
    assert len(server.seen) == 3
    assert len(requests) == 1


def test_a_retry_of_a_job_is_sent_again_with_the_same_key(server: ScriptedServer, client: Client) -> None:
    server.on("POST", "/v1/jobs/7/retry", NO_ANSWER, submitted(duplicate=True), submitted())
    client.retry(7)
    client.retry(7)
    first, again, second = (seen.headers["idempotency-key"] for seen in server.asked("POST", "/v1/jobs/7/retry"))
    assert first == again != second


def test_two_submits_have_two_keys_in_the_order_of_time(server: ScriptedServer, client: Client) -> None:
    server.on("POST", "/v1/jobs", submitted())
    client.submit("my/image")
    time.sleep(0.002)  # keys are ordered by the millisecond
    client.submit("my/image")
    first, second = (seen.headers["idempotency-key"] for seen in server.seen)
    assert first < second


@pytest.mark.parametrize("fault", PASSING, ids=NAMES)
def test_what_could_be_done_twice_is_sent_once(server: ScriptedServer, client: Client, fault: Answer) -> None:
    server.on("POST", "/v1/users", fault)
    server.on("DELETE", "/v1/users/bob", fault)
    with pytest.raises((Unreachable, Unavailable)):
        client.create_user("bob", "secret-password")
    assert len(server.seen) == 1


def test_a_lost_answer_to_a_delete_is_not_a_second_delete(server: ScriptedServer, client: Client) -> None:
    server.on("DELETE", "/v1/users/bob", NO_ANSWER)
    with pytest.raises(Unreachable, match="broke off"):
        client.delete_user("bob")
    assert len(server.seen) == 1


def test_a_server_that_stays_broken_is_given_up(server: ScriptedServer, client: Client) -> None:
    server.on("GET", "/healthz", HTML_502)
    with pytest.raises(Unavailable, match="502"):
        client.health()
    assert len(server.seen) == TRIES


def test_a_request_that_never_left_is_tried_again_whatever_it_is() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    client = Client(f"http://127.0.0.1:{port}", timeout=30)
    answers: list[Any] = []
    trying = threading.Thread(target=lambda: answers.append(client.login("ada", "secret")))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("hecaton.client.http.TRIES", 1000)
        trying.start()
        server = ScriptedServer(port=port)
        server.on("POST", "/v1/login", reply({"token": "t", "username": "ada", "role": "user", "expires_at": 1.0}))
        with server:
            trying.join(20)
            client.close()
    assert [token.token for token in answers] == ["t"]


@pytest.mark.parametrize(("status", "code"), [(503, "unavailable"), (429, "too_many")])
def test_retry_after_is_honoured(server: ScriptedServer, client: Client, status: int, code: str) -> None:
    busy = error(status, code, "not now")
    server.on("GET", "/healthz", Answer(status, busy.body, {"Retry-After": "1"}), HEALTH)
    started = time.monotonic()
    client.health()
    assert time.monotonic() - started >= 1.0


def test_a_retry_after_beyond_the_deadline_is_not_waited_for(server: ScriptedServer, client: Client) -> None:
    server.on("GET", "/healthz", Answer(429, error(429, "too_many", "not now").body, {"Retry-After": "60"}))
    started = time.monotonic()
    with pytest.raises(TooMany, match="not now") as caught:
        client.health()
    assert caught.value.retry_after == 60.0
    assert time.monotonic() - started < 20


# -- deadlines -------------------------------------------------------------------------------------


def test_a_server_that_hangs_costs_the_timeout(server: ScriptedServer) -> None:
    server.on("GET", "/healthz", HANG)
    started = time.monotonic()
    with (
        Client(server.url, timeout=0.3) as client,
        pytest.raises(Unreachable, match=r"took the request, but did not answer"),
    ):
        client.health()
    assert time.monotonic() - started < 20


def test_an_answer_that_drips_in_costs_the_timeout() -> None:
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
                try:
                    while not done.wait(0.05):
                        connection.sendall(b" ")
                except OSError:
                    return

        dripping = threading.Thread(target=drip)
        dripping.start()
        started = time.monotonic()
        with (
            Client(f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=0.5) as client,
            pytest.raises(Unreachable, match="too long"),
        ):
            client.health()
        assert time.monotonic() - started < 20
        done.set()
        dripping.join()


# -- what the user is told -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "bad_request", BadRequest),
        (401, "unauthenticated", Unauthenticated),
        (403, "forbidden", Forbidden),
        (404, "not_found", NotFound),
        (409, "conflict", Conflict),
        (413, "too_large", TooLarge),
        (500, "error", HecatonError),
    ],
)
def test_what_the_server_refuses_is_raised_at_once_with_its_words(
    server: ScriptedServer, client: Client, status: int, code: str, kind: type[HecatonError]
) -> None:
    server.on("GET", "/healthz", error(status, code, "no such thing", "look elsewhere"))
    with pytest.raises(HecatonError) as caught:
        client.health()
    assert type(caught.value) is kind
    assert (caught.value.message, caught.value.hint) == ("no such thing", "look elsewhere")
    assert len(server.seen) == 1


def test_an_expired_token_says_how_to_log_in_again(server: ScriptedServer, client: Client) -> None:
    server.on("GET", "/v1/server", error(401, "unauthenticated", "the token has expired"))
    with pytest.raises(Unauthenticated) as caught:
        client.server_info()
    assert "hecaton server login" in str(caught.value.hint)


@pytest.mark.parametrize("token", ["a\nb", "a\r\nX-Evil: 1", "tökén"])
def test_a_token_that_cannot_be_one_is_refused_before_it_is_sent(server: ScriptedServer, token: str) -> None:
    with Client(server.url, token) as client, pytest.raises(Unauthenticated, match="characters"):
        client.server_info()
    assert server.seen == []


def test_a_token_read_from_a_file_may_end_with_a_line_break(server: ScriptedServer) -> None:
    server.on("GET", "/healthz", HEALTH)
    with Client(server.url, "t0ken\n") as client:
        client.health()
    assert server.seen[0].headers["authorization"] == "Bearer t0ken"


def test_no_server_is_one_line_with_the_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with Client(url) as client, pytest.raises(Unreachable) as caught:
        client.health()
    assert caught.value.message == f"no server answers at {url}: connection refused"
    assert "Is hecaton-server running" in str(caught.value.hint)


@pytest.mark.parametrize(("patient", "pauses"), [(True, TRIES - 1), (False, 0)])
def test_only_a_patient_client_gives_a_server_that_is_not_there_time_to_restart(
    monkeypatch: pytest.MonkeyPatch, patient: bool, pauses: int
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody else gets the port, nobody answers
        client = Client(f"http://127.0.0.1:{taken.getsockname()[1]}", "token", patient=patient)
        with pytest.raises(Unreachable):
            client.health()
    assert len(slept) == pauses


def test_an_unknown_host_is_named() -> None:
    with Client("http://gpu.invalid:8181") as client, pytest.raises(Unreachable, match=r"find the host 'gpu\.invalid'"):
        client.health()


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-OpenSSH_9.2\r\n"], ids=["silent", "ssh"])
def test_a_server_of_another_kind_is_an_error_of_ours(answer: bytes) -> None:
    with serve_text(answer) as port, Client(f"http://127.0.0.1:{port}") as client, pytest.raises(Unreachable):
        client.health()


def test_json_of_another_program_is_no_key_error(server: ScriptedServer, client: Client) -> None:
    server.on("GET", "/healthz", reply({"hello": "world"}))
    with pytest.raises(HecatonError, match="missing required field") as caught:
        client.health()
    assert "another program" in str(caught.value.hint)
    assert len(server.seen) == 1


def test_a_page_in_place_of_the_server_is_explained(server: ScriptedServer, client: Client) -> None:
    server.on("GET", "/healthz", Answer(200, b"<html>Log in to the hotel's network</html>"))
    with pytest.raises(Unreachable, match="is not a Hecaton server") as caught:
        client.health()
    assert "proxy" in str(caught.value.hint)


def test_a_redirect_is_not_followed_with_the_token_but_told(server: ScriptedServer, client: Client) -> None:
    server.on("GET", "/healthz", Answer(301, b"", {"Location": "https://gpu.example.com/"}))
    with pytest.raises(HecatonError, match=r"redirects to https://gpu\.example\.com/"):
        client.health()
    assert len(server.seen) == 1


def test_a_reply_with_more_fields_than_we_know_is_fine(server: ScriptedServer, client: Client) -> None:
    server.on("GET", "/healthz", reply({"status": "ok", "version": "9", "server_id": "s", "time": 1, "new": [1]}))
    assert client.health().version == "9"


# -- TLS -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(ca: trustme.CA, tmp_path: Path) -> Path:
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    return tmp_path / "ca.pem"


@pytest.fixture
def secure(ca: trustme.CA) -> Iterator[ScriptedServer]:
    with ScriptedServer(server_context(ca, "127.0.0.1")) as server:
        server.on("GET", "/healthz", HEALTH)
        yield server


Address = Callable[[ScriptedServer], str]


@pytest.mark.parametrize("address", [lambda s: s.url, lambda s: s.address], ids=["https://", "no scheme"])
def test_tls_with_the_right_ca_works(secure: ScriptedServer, ca_file: Path, address: Address) -> None:
    with Client(address(secure), ca_file=ca_file) as client:
        assert client.health().status == "ok"


def test_the_ca_can_come_from_the_environment(
    secure: ScriptedServer, ca_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HECATON_CA_FILE", str(ca_file))
    with Client(secure.url) as client:
        assert client.health().status == "ok"


@pytest.mark.parametrize("address", [lambda s: s.url, lambda s: s.address], ids=["https://", "no scheme"])
def test_an_unknown_ca_is_refused_once_and_explained(secure: ScriptedServer, address: Address) -> None:
    with Client(address(secure), "t0ken") as client, pytest.raises(Unreachable, match="not known here") as caught:
        client.health()
    assert "hecaton server new" in str(caught.value.hint)
    assert secure.seen == []


def test_a_name_that_is_not_in_the_certificate_is_refused(ca: trustme.CA, ca_file: Path) -> None:
    with (
        ScriptedServer(server_context(ca, "gpu.example.com")) as server,
        Client(server.url, ca_file=ca_file) as client,
        pytest.raises(Unreachable, match="made for another name"),
    ):
        client.health()


def test_https_to_a_plain_server_is_explained(server: ScriptedServer) -> None:
    with Client(f"https://{server.address}") as client, pytest.raises(Unreachable, match="does not speak TLS"):
        client.health()


def test_http_to_a_tls_server_is_explained(secure: ScriptedServer) -> None:
    with Client(f"http://{secure.address}") as client, pytest.raises(Unreachable) as caught:
        client.health()
    assert f"https://{secure.address}" in str(caught.value.hint)


def test_an_address_without_scheme_warns_once_when_it_is_plain_http(server: ScriptedServer) -> None:
    server.on("GET", "/healthz", HEALTH)
    with Client(server.address) as client:
        with pytest.warns(UserWarning, match="unencrypted"):
            client.health()
        client.health()


def test_tls_below_1_2_is_not_spoken(ca: trustme.CA, ca_file: Path) -> None:
    context = server_context(ca, "127.0.0.1")
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        ScriptedServer(context) as server,
        Client(server.url, ca_file=ca_file) as client,
        pytest.raises(Unreachable, match="TLS handshake"),
    ):
        client.health()


# -- connections -----------------------------------------------------------------------------------


def test_calls_share_one_connection(server: ScriptedServer, client: Client) -> None:
    server.on("GET", "/healthz", HEALTH)
    for _ in range(5):
        client.health()
    assert len({seen.client_port for seen in server.seen}) == 1


def test_a_connection_that_the_server_closed_meanwhile_is_no_fault(server: ScriptedServer, client: Client) -> None:
    server.on("GET", "/healthz", HEALTH)
    server.on("POST", "/v1/users", reply({"username": "bob", "role": "user", "created_at": 1.0}, 201))
    client.health()
    server.cut_connections()
    assert client.create_user("bob", "secret-password").username == "bob"


def test_one_client_serves_many_threads(server: ScriptedServer, client: Client) -> None:
    server.on("GET", "/healthz", HEALTH)
    failures: list[Exception] = []

    def ask() -> None:
        try:
            for _ in range(10):
                client.health()
        except Exception as fault:
            failures.append(fault)

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(server.seen) == 160


def test_a_closed_client_ends_whoever_still_waits_with_it(server: ScriptedServer, client: Client) -> None:
    server.on("GET", "/healthz", HTML_502)
    client.close()
    with pytest.raises(HecatonError, match="closed"):
        client.health()
    assert server.seen == []
