"""Machines that join with one line: a laptop, and another machine with cards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from cryptography import x509

from hecaton.cli.first_contact import JoinLine, follow, is_line, read_line
from hecaton.cli.hecaton_gpu.main import _main as hecaton_gpu
from hecaton.cli.hecaton_server.certificate import own_certificate
from hecaton.client import Client, profiles
from hecaton.core.errors import BadRequest
from hecaton.core.model import KeyScope
from hecaton.wire.reach.tls import SelfSigned, Untrusted, fingerprint
from hecaton.worker.link import registration
from tests.cli.conftest import Ended, Invoke
from tests.server.running import PASSWORD
from tests.server.server_process import ServerProcess
from tests.wire.forwarding import ForwardingProxy


class Site:
    """A server with a certificate of its own making, and its admin."""

    def __init__(self, url: str, certificate: Path) -> None:
        self.address = url.removeprefix("https://")
        self.pin = fingerprint(certificate.read_text())
        self.admin = Client(url, ca_file=certificate)
        self.admin.login("admin", PASSWORD)

    def line(self, scope: KeyScope) -> JoinLine:
        return JoinLine(self.address, self.pin, scope, self.admin.make_key(scope).key)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    certificate, key = own_certificate(folder, ["gpu.example.com"])
    files = "--ssl-certfile", str(certificate), "--ssl-keyfile", str(key)
    server = ServerProcess(folder / "home", "--port", "0", *files)
    try:
        site = Site(server.ready(), certificate)
        assert f"certificate      {site.pin}" in server.said
        yield site
        site.admin.close()
    finally:
        server.kill()


def test_a_machine_may_be_called_what_no_certificate_can_have(tmp_path: Path) -> None:
    names = ["büro-pc", "ü" * 70, "a..b", "10.0.0.1", "gpu.example.com"]
    certificate, _ = own_certificate(tmp_path, names)
    parsed = x509.load_pem_x509_certificate(certificate.read_bytes())
    listed = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert listed.get_values_for_type(x509.DNSName) == ["xn--bro-pc-3ya", "gpu.example.com"]
    assert list(map(str, listed.get_values_for_type(x509.IPAddress))) == ["10.0.0.1"]


def test_a_line_is_what_it_is_made_of() -> None:
    for address in ("gpu.example.com:8181", "[::1]:8181", "https://example.com/hecaton"):
        for pin in (None, "SHA256:" + "a-_9" * 10 + "abc"):
            line = JoinLine(address, pin, KeyScope.ENROL, "kEy_-1")
            assert read_line(f" {line}\n") == line
            assert is_line(str(line))
    for wrong in ("gpu.example.com:8181", "a:1/-/login", "a:1/-/other.key", "-/login.key", "a b/-/login.key"):
        with pytest.raises(BadRequest):
            read_line(wrong)


def test_a_laptop_joins_with_one_line_that_nobody_can_use_again(invoke: Invoke, site: Site) -> None:
    line = str(site.line(KeyScope.LOGIN))
    joined = invoke("join", line)
    assert joined == Ended(0, "", "Joined 127.0.0.1: logged in as admin (admin). Next: hecaton run train.py\n")
    with Client.from_profile("127.0.0.1") as client:
        assert [user.username for user in client.users()] == ["admin"]
    again = invoke("join", line)
    assert again.code == 5
    assert "for one use, within an hour" in again.err
    assert "hecaton up" in again.err
    assert invoke("join", str(site.line(KeyScope.LOGIN)), "--name", "lab").code == 0
    names = [known.name for known in profiles.all_servers() if known.address == site.address]
    assert names == ["127.0.0.1", "lab"]


def test_a_laptop_behind_a_proxy_joins_by_way_of_it(
    invoke: Invoke, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = site.line(KeyScope.LOGIN)
    away = msgspec.structs.replace(line, address=f"hecaton.invalid:{line.address.rpartition(':')[2]}")
    with ForwardingProxy() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        assert invoke("join", str(away), "--name", "away").code == 0
        assert invoke("user", "list").code == 0
        assert {asked.split()[1] for asked in proxy.asked} == {away.address}
    refused = invoke("join", str(away))
    assert refused.code == 4
    assert f"the proxy {proxy.url} (HTTPS_PROXY) does not answer" in refused.err


@pytest.mark.parametrize("scheme", ["", "https://"])
def test_who_has_not_joined_hears_the_fingerprint_and_how_to(
    invoke: Invoke, site: Site, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    monkeypatch.setenv("HECATON_SERVER", f"{scheme}{site.address}")
    refused = invoke("ps")
    assert refused.code == 4
    with Client(f"{scheme}{site.address}") as client, pytest.raises(SelfSigned) as caught:
        client.health()
    for said in (refused.err, str(caught.value)):
        assert f"is self-signed and not known here: {site.pin}" in said
        assert "`hecaton join LINE`" in said
        assert f"`hecaton server new --ip {site.address} --name NAME`" in said


def test_whoever_answers_in_the_servers_place_hears_no_key(invoke: Invoke, site: Site) -> None:
    line = site.line(KeyScope.LOGIN)
    wrong = msgspec.structs.replace(line, pin="SHA256:" + "A" * 43)
    with pytest.raises(Untrusted, match="another certificate"):
        follow(wrong)
    assert invoke("join", str(wrong)).code == 4
    assert invoke("join", str(line)).code == 0  # it is not used up


def test_a_machine_with_cards_joins_with_a_line_of_its_own(
    invoke: Invoke, site: Site, capfd: pytest.CaptureFixture[str]
) -> None:
    line = str(site.line(KeyScope.ENROL))
    other = invoke("join", line)
    assert other.code == 2
    assert f"sudo hecaton-gpu install {line}" in other.err
    assert hecaton_gpu(["run", str(site.line(KeyScope.LOGIN)), "--name", "box"]) == 2
    assert "hecaton join" in capfd.readouterr().err
    parsed = read_line(line)
    server, certificate = follow(parsed)
    assert certificate is not None
    kept = registration.keep_certificate("box", certificate)
    config = registration.register(server, "box", key=parsed.key, ca_file=kept)
    assert registration.still_known(config)
    assert [worker.name for worker in site.admin.workers()] == ["box"]
