"""A server on this machine, as its administrator sees it: its certificate, its admin, and the lines to join it."""

from __future__ import annotations

import os
import shlex
import socket
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from hecaton.cli import output
from hecaton.cli.first_contact import JoinLine
from hecaton.cli.hecaton.demo.engine import NoEngine
from hecaton.cli.hecaton_server.admin import IGNORED, VARIABLE, token_here
from hecaton.cli.hecaton_server.certificate import own_certificate
from hecaton.cli.hecaton_server.main import seen_from_elsewhere
from hecaton.client import Client
from hecaton.client.http import may_pass
from hecaton.core.errors import BadRequest, HecatonError, TooMany, Unauthenticated
from hecaton.core.model import KeyScope
from hecaton.wire.reach.address import parse
from hecaton.wire.reach.tls import CA_ENVIRONMENT, fingerprint
from hecaton.worker.cards import discovery

START_PATIENCE = 60.0
"""Seconds for the server to answer, on a slow machine with a cold disk."""

_POLL = 0.1


class OwnServer(msgspec.Struct, frozen=True):
    """`home`: its HECATON_HOME. `address`: by which other machines reach it."""

    home: Path
    port: int
    address: str
    certificate: Path
    key: Path

    @property
    def flags(self) -> list[str]:
        """Of `hecaton-server`."""
        files = ["--ssl-certfile", str(self.certificate), "--ssl-keyfile", str(self.key)]
        return ["--port", str(self.port), *files]

    @property
    def pin(self) -> str:
        return fingerprint(self.certificate.read_text())

    def line(self, client: Client, scope: KeyScope, address: str | None = None) -> JoinLine:
        return JoinLine(address or self.address, self.pin, scope, client.make_key(scope).key)

    @property
    def local(self) -> str:
        """Its address on this machine itself."""
        return f"localhost:{self.port}"

    def local_line(self, client: Client, scope: KeyScope) -> JoinLine:
        """For this machine itself."""
        return self.line(client, scope, self.local)

    @property
    def worker_secrets(self) -> dict[str, str]:
        """For the environment of this machine's own worker until it is registered: a command line is read by all."""
        return {"HECATON_TOKEN": token_here(self.home / "server"), CA_ENVIRONMENT: str(self.certificate)}


def site_in(home: Path, port: int, ip: str | None) -> OwnServer:
    """With a certificate that is made where there is none. BadRequest for what is no address."""
    host = ip or seen_from_elsewhere("0.0.0.0")
    place = parse(f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}")
    names = "localhost", "127.0.0.1", "::1", socket.gethostname(), place.host
    certificate, key = own_certificate(certificate_in(home).parent, names)
    return OwnServer(home, port, place.authority, certificate, key)


def certificate_in(home: Path) -> Path:
    return home / "server" / "tls" / "cert.pem"


def admin_of(site: OwnServer, still_there: Callable[[], None]) -> Client:
    """A client of the server, as soon as it answers, with an admin's rights: whoever may read its folder has them.
    `still_there`: raises when nobody need be waited for any more. HecatonError at once for what does not pass by
    itself, such as another server at its port."""
    deadline = time.monotonic() + START_PATIENCE
    url = f"https://localhost:{site.port}"
    with Client(url, ca_file=site.certificate, patient=False) as stranger:
        while True:
            try:
                stranger.health()
                break
            except HecatonError as error:
                still_there()
                if not may_pass(error) or time.monotonic() > deadline:
                    raise
            time.sleep(_POLL)
    return Client(url, token_here(site.home / "server"), ca_file=site.certificate)


def tell_cards() -> None:
    """What there is to compute with, and what is missing for more."""
    found = discovery.discover()
    for card in found.gpus:
        output.say(f"  card     {card.name}, {card.memory >> 30} GiB")
    if not found.gpus:
        output.say(f"  card     none ({found.reason}): jobs run on the CPU. For a card, install its driver.")


def tell_no_engine(engine: NoEngine) -> None:
    output.say(f"  worker   none, because {engine.why}. {engine.do}, then: hecaton up")


def tell_ignored_password(site: OwnServer) -> None:
    """HECATON_ADMIN_PASS, to an admin who has another one."""
    given = os.environ.get(VARIABLE)
    if given is None:
        return
    with Client(f"https://{site.local}", ca_file=site.certificate, patient=False) as stranger:
        try:
            stranger.login("admin", given)
        except (Unauthenticated, BadRequest, TooMany):
            output.say("\n".join(IGNORED))


def tell_lines(site: OwnServer, client: Client) -> None:
    """Fresh ones: on stdout, for they are the result."""
    laptop = shlex.quote(str(site.line(client, KeyScope.LOGIN)))
    machine = shlex.quote(str(site.line(client, KeyScope.ENROL)))
    output.print_lines(
        [
            "On a laptop, to send jobs:",
            f"  hecaton join {laptop}",
            "On another GPU machine, to run them:",
            f'  sudo "$(command -v hecaton-gpu)" install {machine}',
            "Each line is for one use, within an hour. More of them: hecaton up",
        ]
    )
