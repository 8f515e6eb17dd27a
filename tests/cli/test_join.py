"""Machines that join with one line: a laptop, and another machine with cards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from hecaton.cli.first_contact import JoinLine, follow, is_line, read_line
from hecaton.cli.hecaton_gpu.main import _main as hecaton_gpu
from hecaton.cli.hecaton_server.certificate import own_certificate
from hecaton.client import Client, profiles
from hecaton.core.errors import BadRequest
from hecaton.core.model import KeyScope
from hecaton.wire.reach.tls import Untrusted, fingerprint
from hecaton.worker.link import registration
from tests.cli.conftest import Ended, Invoke
from tests.server.running import PASSWORD
from tests.server.server_process import ServerProcess


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
