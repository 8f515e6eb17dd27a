"""An address as people write it, and which scheme is spoken there: against real servers, with and without TLS."""

from __future__ import annotations

import ipaddress
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from hecaton.cli.hecaton_server.certificate import own_certificate
from hecaton.core.errors import BadRequest, Unreachable
from hecaton.wire.reach.address import Address, Place, introduction, is_local, parse, resolve
from hecaton.wire.reach.tls import Untrusted, fingerprint
from tests.client.certificates import self_signed, server_context
from tests.client.scripted import ScriptedServer, serve_text


@pytest.fixture(autouse=True)
def _no_ca_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HECATON_CA_FILE", raising=False)


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(ca: trustme.CA, tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(path)
    return path


@pytest.fixture
def plain() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server


@pytest.fixture
def secure(ca: trustme.CA) -> Iterator[ScriptedServer]:
    with ScriptedServer(server_context(ca, "127.0.0.1", "localhost")) as server:
        yield server


# -- parsing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "scheme", "host", "port"),
    [
        ("localhost:8181", None, "localhost", 8181),
        ("gpu.example.com", None, "gpu.example.com", 8181),
        (" 192.168.1.5:99/ ", None, "192.168.1.5", 99),
        ("http://localhost:8181", "http", "localhost", 8181),
        ("http://gpu", "http", "gpu", 80),
        ("HTTPS://GPU.example.com/", "https", "gpu.example.com", 443),
        ("::1", None, "::1", 8181),
        ("[::1]", None, "::1", 8181),
        ("https://[2001:DB8::5]:9000", "https", "2001:db8::5", 9000),
        ("[fe80::1%eth0]:9", None, "fe80::1%eth0", 9),
        ("bücher.example", None, "xn--bcher-kva.example", 8181),
    ],
)
def test_addresses_work_with_and_without_scheme_and_port(
    written: str, scheme: str | None, host: str, port: int
) -> None:
    assert parse(written) == Place(scheme, host, port)


@pytest.mark.parametrize(
    ("written", "url"),
    [
        ("https://gpu.example.com/hecaton", "https://gpu.example.com:443/hecaton"),
        ("https://gpu.example.com/team/gpu_1~x//", "https://gpu.example.com:443/team/gpu_1~x"),
        ("[::1]:81/hecaton/", "https://[::1]:81/hecaton"),
        ("gpu/.well-known", "https://gpu:8181/.well-known"),
    ],
)
def test_a_server_may_be_below_a_path(written: str, url: str) -> None:
    assert parse(written).url("https") == url
    assert parse(parse(written).url("https")).prefix == parse(written).prefix


@pytest.mark.parametrize(
    "written",
    ["", "http://", "ftp://host", "host:", "host:0", "host:70000", "host:http", "host:-1", "host:٣", "a b", "-host",
     "[::1", "[host]:1", "[::1]8181", "1:2:3", "host/../x", "host/.", "host//x",
     "https://host/a b", "host/x?y", "host/x#y", "host/%2e", "http://http://host", "host?x=1", "a..b", "host\n:1"],
)  # fmt: skip
def test_a_malformed_address_is_refused_with_an_example(written: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse(written)
    assert repr(written) in caught.value.message
    assert "gpu.example.com:8181" in str(caught.value.hint)


def test_a_password_in_an_address_is_refused_and_not_repeated() -> None:
    for written in ("http://admin:hunter2@host", "ftp://admin:hunter2@host"):
        with pytest.raises(BadRequest) as caught:
            parse(written)
        assert "hunter2" not in str(caught.value)


@given(st.text())
def test_any_text_is_an_address_or_a_bad_request(written: str) -> None:
    try:
        place = parse(written)
    except BadRequest:
        return
    assert 0 < place.port < 65536
    assert parse(place.url("https")) == Place("https", place.host, place.port, place.prefix)


@given(st.ip_addresses(), st.integers(1, 65535))
def test_every_ip_address_is_understood(ip: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int) -> None:
    literal = f"[{ip}]" if ip.version == 6 else str(ip)
    assert ipaddress.ip_address(parse(f"{literal}:{port}").host) == ip
    assert parse(f"{literal}:{port}").port == port


# -- which networks may go without TLS ---------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "127.8.8.8", "::1", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.0.9", "169.254.1.1",
     "100.64.0.1", "100.127.255.254", "fd12::1", "fe80::1%eth0", "::ffff:10.0.0.1", "0.0.0.0"],
)  # fmt: skip
def test_this_machine_private_and_overlay_networks_are_local(address: str) -> None:
    assert is_local(address)


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "172.32.0.1", "172.15.0.1", "192.169.0.1", "100.63.255.255", "100.128.0.1", "11.0.0.1", "169.253.0.1",
     "203.0.113.7", "2001:db8::1", "2606:4700::1111", "::ffff:8.8.8.8", "0.0.0.1", "224.0.0.1"],
)  # fmt: skip
def test_everything_else_is_public(address: str) -> None:
    assert not is_local(address)


# -- the scheme ------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_written_scheme_is_taken_literally_without_connecting(scheme: str) -> None:
    assert resolve(f"{scheme}://203.0.113.7:81") == Address(f"{scheme}://203.0.113.7:81", scheme)


def test_a_written_scheme_beats_a_pinned_one() -> None:
    assert resolve("http://203.0.113.7", pinned_scheme="https").url == "http://203.0.113.7:80"


def test_without_a_scheme_a_plain_server_on_this_machine_is_used_with_a_warning(plain: ScriptedServer) -> None:
    found = resolve(plain.address)
    assert (found.url, found.scheme) == (plain.url, "http")
    assert "unencrypted" in str(found.warning)


def test_without_a_scheme_a_tls_server_is_used_without_a_word(secure: ScriptedServer, ca_file: Path) -> None:
    assert resolve(secure.address, ca_file) == Address(secure.url, "https")
    assert secure.seen == [], "a plain request reached a TLS server"


def test_the_ca_file_can_come_from_the_environment(
    secure: ScriptedServer, ca_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HECATON_CA_FILE", str(ca_file))
    assert resolve(secure.address).scheme == "https"


def test_an_unknown_ca_is_an_error_and_never_a_reason_to_fall_back(secure: ScriptedServer) -> None:
    with pytest.raises(Unreachable, match="signed by a CA that is not known") as caught:
        resolve(secure.address)
    assert "--ca-file" in str(caught.value.hint)
    assert "HECATON_CA_FILE" in str(caught.value.hint)


def test_a_self_signed_certificate_gets_a_clear_message_and_works_as_its_own_ca(tmp_path: Path) -> None:
    context, cert_file = self_signed(tmp_path, x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    with ScriptedServer(context) as server:
        with pytest.raises(Unreachable, match="self-signed") as caught:
            resolve(server.address)
        assert f"hecaton server new --ip {server.address}" in str(caught.value.hint)
        assert "--ca-file" in str(caught.value.hint)
        assert resolve(server.address, cert_file).scheme == "https"


def _own_server(folder: Path) -> ScriptedServer:
    certificate, key = own_certificate(folder, ["gpu.example.com"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return ScriptedServer(context)


def test_a_certificate_that_signs_no_other_pins_a_server_under_every_address(tmp_path: Path) -> None:
    with _own_server(tmp_path) as server:
        address = server.address  # it is made for gpu.example.com
        assert resolve(address, tmp_path / "cert.pem").scheme == "https"
        assert introduction(address) == (tmp_path / "cert.pem").read_text()


@pytest.mark.parametrize("other", [True, False], ids=["another of its own", "of a CA"])
def test_a_changed_certificate_is_refused_in_words(tmp_path: Path, ca: trustme.CA, other: bool) -> None:
    pinned, _ = own_certificate(tmp_path / "before", ["gpu.example.com"])
    context = server_context(ca, "127.0.0.1")
    with _own_server(tmp_path / "now") if other else ScriptedServer(context) as server:
        with pytest.raises(Untrusted, match="has changed") as caught:
            resolve(server.address, pinned)
        assert fingerprint(pinned.read_text()) in caught.value.message
        assert server.seen == []


def test_who_may_sign_others_or_is_named_with_a_scheme_is_not_trusted_at_first_sight(tmp_path: Path) -> None:
    context, _ = self_signed(tmp_path, x509.DNSName("localhost"))
    with ScriptedServer(context) as server:
        assert introduction(server.address) is None
    with _own_server(tmp_path / "own") as server:
        assert introduction(f"https://{server.address}") is None


def test_a_certificate_for_another_name_is_explained(ca: trustme.CA, ca_file: Path) -> None:
    with (
        ScriptedServer(server_context(ca, "gpu.example.com")) as server,
        pytest.raises(Unreachable, match="another name") as caught,
    ):
        resolve(server.address, ca_file)
    assert "subjectAltName" in str(caught.value.hint)


def test_an_expired_certificate_is_explained(ca: trustme.CA, ca_file: Path) -> None:
    with (
        ScriptedServer(server_context(ca, "127.0.0.1", expired=True)) as server,
        pytest.raises(Unreachable, match="expired, or the clock"),
    ):
        resolve(server.address, ca_file)


def test_a_server_that_speaks_another_version_of_tls_is_no_reason_to_fall_back(ca: trustme.CA, ca_file: Path) -> None:
    context = server_context(ca, "127.0.0.1")
    context.set_ciphers("PSK-AES128-GCM-SHA256")  # none that a client without a pre-shared key has
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with ScriptedServer(context) as server, pytest.raises(Unreachable, match=r"handshake .* failed"):
        resolve(server.address, ca_file)


def test_a_pinned_https_never_becomes_http(plain: ScriptedServer) -> None:
    assert resolve(plain.address, pinned_scheme="https") == Address(f"https://{plain.address}", "https")
    assert plain.seen == []


def test_a_pinned_http_asks_nobody_again(plain: ScriptedServer) -> None:
    assert resolve(plain.address, pinned_scheme="http") == Address(plain.url, "http")
    assert plain.seen == []


def test_plain_http_to_a_public_address_is_refused_unless_spelled_out() -> None:
    with pytest.raises(BadRequest, match=r"public address \(203\.0\.113\.7\)") as caught:
        resolve("203.0.113.7:8181", pinned_scheme="http")
    assert "http://203.0.113.7:8181" in str(caught.value.hint)


def test_a_name_with_one_public_address_counts_as_public(
    plain: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, plain.port)) for ip in ("127.0.0.1", "203.0.113.7")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    with pytest.raises(BadRequest, match="public address"):
        resolve(f"gpu.example.com:{plain.port}")
    assert [seen.path for seen in plain.seen] == [], "something was sent in plain"


# -- nobody there ----------------------------------------------------------------------------------


def test_no_server_is_one_line_with_the_address_and_a_question() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(Unreachable, match=rf"no server answers at 127\.0\.0\.1:{port}: connection refused") as caught:
        resolve(f"127.0.0.1:{port}")
    assert "Is hecaton-server running" in str(caught.value.hint)
    assert "\n" not in caught.value.message


def test_an_unknown_host_is_named() -> None:
    with pytest.raises(Unreachable, match=r"cannot find the host 'gpu\.invalid'"):
        resolve("gpu.invalid:8181")


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-OpenSSH_9.2\r\n"])
def test_a_server_of_another_kind_is_recognised(answer: bytes) -> None:
    with serve_text(answer) as port, pytest.raises(Unreachable, match="neither TLS nor HTTP"):
        resolve(f"127.0.0.1:{port}")


def test_a_silent_server_costs_the_time_limit_and_no_more() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        pytest.raises(Unreachable, match="neither TLS nor HTTP"),
    ):
        resolve(f"127.0.0.1:{listener.getsockname()[1]}", timeout=0.1)


# -- CA files --------------------------------------------------------------------------------------


def test_a_missing_ca_file_is_named(secure: ScriptedServer, tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match=r"missing\.pem: No such file"):
        resolve(secure.address, tmp_path / "missing.pem")


def test_a_ca_file_without_certificates_is_named(secure: ScriptedServer, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("hello")
    with pytest.raises(BadRequest, match=r"wrong\.pem holds no certificate"):
        resolve(secure.address, wrong)
