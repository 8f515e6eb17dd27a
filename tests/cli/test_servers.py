"""`hecaton server`: which servers this machine knows, and which one commands mean."""

from __future__ import annotations

import json
import os
import socket
import ssl
import stat
import time
from pathlib import Path

import pytest
from cryptography import x509

from hecaton.cli.hecaton_server.certificate import own_certificate
from hecaton.client import profiles
from hecaton.wire.reach.tls import fingerprint
from tests.cli.conftest import Invoke, Process
from tests.client.certificates import self_signed
from tests.client.scripted import ScriptedServer, error, reply

HEALTHY = reply({"status": "ok", "version": "2.0.0", "server_id": "s", "time": 0.0})


def token(username: str = "admin", role: str = "admin") -> object:
    return {"token": "fresh", "username": username, "role": role, "expires_at": time.time() + 600}


@pytest.fixture
def fresh(server: ScriptedServer) -> ScriptedServer:
    """A server that answers, and that nobody has registered."""
    profiles.remove("my-server")
    server.on("GET", "/healthz", HEALTHY)
    server.on("POST", "/v1/login", reply(token()))
    return server


def test_the_quick_start_registers_logs_in_and_leaves_the_server_active(invoke: Invoke, fresh: ScriptedServer) -> None:
    new = invoke("server", "new", "--ip", fresh.address, "--name", "lab")
    assert (new.code, new.out) == (0, "")
    assert "Warning:" in new.err
    assert "plain HTTP" in new.err
    login = invoke("server", "login", "lab", "--username", "admin", "--password", "mysecurepassword")
    assert (login.code, login.out) == (0, "")
    assert fresh.seen[-1].json() == {"username": "admin", "password": "mysecurepassword"}
    active = profiles.active()
    assert active == profiles.Profile("lab", fresh.address, "http", None, "admin", "fresh")


def test_the_warning_about_plain_http_comes_once(invoke: Invoke, fresh: ScriptedServer) -> None:
    invoke("server", "new", "--ip", fresh.address, "--name", "lab")
    assert "Warning" not in invoke("server", "login", "lab", "--username", "a", "--password", "b").err


def test_a_server_that_is_down_is_registered_with_a_warning(invoke: Invoke) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody else gets the port, nobody answers
        port = taken.getsockname()[1]
        ended = invoke("server", "new", "--ip", f"localhost:{port}", "--name", "later")
    assert ended.code == 0
    assert "Warning: no server answers" in ended.err
    assert profiles.get("later").scheme is None


def test_its_scheme_is_found_out_when_it_answers_for_the_first_time(invoke: Invoke, fresh: ScriptedServer) -> None:
    profiles.add(profiles.Profile("later", fresh.address))
    ended = invoke("server", "login", "later", "--username", "a", "--password", "b")
    assert ended.code == 0
    assert "plain HTTP" in ended.err
    assert profiles.get("later").scheme == "http"


def test_a_name_is_registered_once(invoke: Invoke, fresh: ScriptedServer) -> None:
    arguments = ("server", "new", "--ip", fresh.url, "--name", "lab")
    assert invoke(*arguments).code == 0
    again = invoke(*arguments)
    assert again.code == 7
    assert "hecaton server update lab" in again.err


def test_a_wrong_password_is_told_as_such(invoke: Invoke, fresh: ScriptedServer) -> None:
    invoke("server", "new", "--ip", fresh.url, "--name", "lab")
    fresh.on("POST", "/v1/login", error(401, "unauthenticated", "wrong user name or password"))
    ended = invoke("server", "login", "lab", "--username", "admin", "--password", "guess")
    assert ended.code == 5
    assert ended.err == "Error: wrong user name or password\nCheck the name and the password, and try again.\n"
    assert profiles.get("lab").token is None


def test_the_login_can_come_from_the_environment(invoke: Invoke, fresh: ScriptedServer) -> None:
    invoke("server", "new", "--ip", fresh.url, "--name", "lab")
    os.environ["HECATON_USERNAME"], os.environ["HECATON_PASSWORD"] = "ann", "hunter2"
    try:
        assert invoke("server", "login", "lab").code == 0
    finally:
        del os.environ["HECATON_USERNAME"], os.environ["HECATON_PASSWORD"]
    assert fresh.seen[-1].json() == {"username": "ann", "password": "hunter2"}


def test_without_a_terminal_a_missing_option_is_an_error_that_says_how_to_give_it(hecaton: Process) -> None:
    done = hecaton("server", "login", "lab", "--username", "admin")
    assert done.returncode == 2
    assert done.stderr.splitlines()[0] == (
        "Error: --password is missing: give it as an option or in the environment as HECATON_PASSWORD "
        "(there is no terminal to ask on)"
    )


def test_list_marks_the_active_one_and_never_shows_a_token(invoke: Invoke, server: ScriptedServer) -> None:
    profiles.add(profiles.Profile("other", "https://gpu.example.com"))
    ended = invoke("server", "list")
    assert [line.split() for line in ended.out.splitlines()] == [
        ["ACTIVE", "NAME", "ADDRESS", "USER"],
        ["*", "my-server", server.url, "ann"],
        ["-", "other", "https://gpu.example.com", "not", "logged", "in"],
    ]
    assert "secret" not in ended.out + invoke("server", "list", "--json").out


def test_connect_and_disconnect_change_the_active_server(invoke: Invoke, server: ScriptedServer) -> None:
    profiles.add(profiles.Profile("other", "https://gpu.example.com"))
    assert invoke("server", "connect", "other").code == 0
    assert json.loads(invoke("server", "list", "--json").out)[1]["active"] is True
    assert invoke("server", "disconnect").code == 0
    assert invoke("server", "show").code == 6
    unknown = invoke("server", "connect", "nowhere")
    assert unknown.code == 6
    assert "my-server, other" in unknown.err


def test_show_asks_the_server_what_it_is(invoke: Invoke, server: ScriptedServer) -> None:
    info = {"version": "2.0.1", "username": "ann", "role": "user", "max_payload": 268435456, "max_result": 1024}
    server.on("GET", "/v1/server", reply(info))
    shown = invoke("server", "show").out
    assert "2.0.1" in shown
    assert "256.0 MiB" in shown
    server.stop()
    down = invoke("server", "show", "my-server")
    assert down.code == 0
    assert "no server answers" in down.out


def test_update_changes_the_address_and_asks_to_log_in_again(invoke: Invoke, server: ScriptedServer) -> None:
    with ScriptedServer() as other:
        other.on("GET", "/healthz", HEALTHY)
        ended = invoke("server", "update", "my-server", "--ip", other.address)
        assert ended.code == 0
        assert "hecaton server login my-server" in ended.err
        assert profiles.get("my-server") == profiles.Profile("my-server", other.address, "http")
    assert invoke("server", "update", "my-server").code == 2


def test_token_prints_the_token_and_nothing_else(invoke: Invoke, server: ScriptedServer) -> None:
    assert invoke("server", "token").out == "secret\n"
    assert invoke("server", "token", profiles.get("my-server").address).out == "secret\n"
    profiles.set_token("my-server", None)
    none = invoke("server", "token", "my-server")
    assert (none.code, none.out) == (5, "")
    assert "hecaton server login my-server" in none.err


def test_remove_asks_first(invoke: Invoke, hecaton: Process, server: ScriptedServer) -> None:
    refused = hecaton("server", "remove", "my-server")
    assert refused.returncode == 2
    assert "--yes" in refused.stderr
    assert invoke("server", "remove", "my-server", "--yes").code == 0
    assert profiles.all_servers() == []


def test_the_file_with_the_tokens_is_private(invoke: Invoke, server: ScriptedServer, home: Path) -> None:
    assert stat.S_IMODE((home / "client" / "servers.json").stat().st_mode) == 0o600


def test_a_certificate_of_the_servers_own_making_is_shown_once_and_kept(
    invoke: Invoke, fresh: ScriptedServer, tmp_path: Path
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate, key = own_certificate(tmp_path / "first", ["gpu.example.com"])
    context.load_cert_chain(certificate, key)
    with ScriptedServer(context) as server:
        server.on("GET", "/healthz", HEALTHY)
        server.on("POST", "/v1/login", reply(token()), reply(token()))
        new = invoke("server", "new", "--ip", f"127.0.0.1:{server.port}", "--name", "lab")
        assert (new.code, new.err.count(fingerprint(certificate.read_text()))) == (0, 1)
        login = "server", "login", "lab", "--username", "admin", "--password", "mysecurepassword"
        again = invoke(*login)
        assert (again.code, "SHA256" in again.err) == (0, False)
        context.load_cert_chain(*own_certificate(tmp_path / "second", ["gpu.example.com"]))
        changed = invoke(*login)
        assert changed.code == 4
        assert "has changed" in changed.err
        assert fingerprint(certificate.read_text()) in changed.err


@pytest.mark.parametrize("scheme", ["", "https://"])
def test_a_self_signed_certificate_is_accepted_only_when_it_is_named(
    invoke: Invoke, tmp_path: Path, scheme: str
) -> None:
    context, certificate = self_signed(tmp_path, x509.DNSName("localhost"))
    with ScriptedServer(context) as server:
        server.on("GET", "/healthz", HEALTHY)
        arguments = ("server", "new", "--ip", f"{scheme}localhost:{server.port}", "--name", "lab")
        refused = invoke(*arguments)
        assert refused.code == 4
        assert "self-signed" in refused.err
        assert "--ca-file" in refused.err
        assert profiles.all_servers() == []
        trusted = invoke(*arguments, "--ca-file", str(certificate))
        assert trusted.code == 0
        assert "Warning" not in trusted.err
        assert profiles.get("lab").scheme == "https"
