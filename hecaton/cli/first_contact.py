"""The first time that this machine sees a server: how to speak with it, and whom to trust from then on. And the lines
that say both, with a key to come in."""

from __future__ import annotations

import os

import msgspec

from hecaton.cli import output
from hecaton.core.errors import BadRequest
from hecaton.core.model import KeyScope
from hecaton.wire.reach.address import Address, introduction, parse, resolve, shown_by
from hecaton.wire.reach.tls import SelfSigned, Untrusted, fingerprint

_HASH = "SHA256:"
_WHERE_LINES_COME_FROM = "Paste all of what `hecaton up` has printed: ADDRESS/FINGERPRINT/KEY."


class JoinLine(msgspec.Struct, frozen=True):
    """What is pasted on a machine that joins. `pin`: the fingerprint of the server's own certificate; None: others
    vouch for it, or there is no TLS."""

    address: str
    pin: str | None
    scope: KeyScope
    key: str

    def __str__(self) -> str:
        pin = self.pin.removeprefix(_HASH) if self.pin else "-"
        return f"{self.address}/{pin}/{self.scope}.{self.key}"


def is_line(text: str) -> bool:
    """Whether that is meant to be one, and no address."""
    return text.strip().rpartition("/")[2].partition(".")[0] in set(KeyScope)


def read_line(text: str) -> JoinLine:
    """BadRequest for what is no such line."""
    address, _, rest = text.strip().rpartition("/")
    address, slash, pin = address.rpartition("/")
    word, dot, key = rest.partition(".")
    if not (slash and dot and key and pin and word in set(KeyScope)):
        raise BadRequest(f"{text[:40]!r} is no line to join with", _WHERE_LINES_COME_FROM)
    parse(address)
    return JoinLine(address, None if pin == "-" else _HASH + pin, KeyScope(word), key)


def meet(server: str, ca_file: str | os.PathLike[str] | None) -> tuple[Address, str | None]:
    """And the certificate (PEM) to keep, where nobody but itself vouches for it: its fingerprint is shown, as ssh does,
    and from then on it is the one. What cannot be trusted so raises as `resolve` does."""
    try:
        return resolve(server, ca_file), None
    except SelfSigned:
        certificate = introduction(server)
        if certificate is None:
            raise
    place = parse(server)
    output.say(
        f"{place.authority} shows a certificate of its own, seen here for the first time. Its fingerprint is\n"
        f"  {fingerprint(certificate)}\n"
        "The server prints the same at its start. It is kept: any other is refused from now on."
    )
    return Address(place.url("https"), "https"), certificate


def follow(line: JoinLine) -> tuple[Address, str | None]:
    """As `meet`, by what the line says: Untrusted if the server shows another certificate."""
    if line.pin is None:
        return resolve(line.address), None
    place = parse(line.address)
    certificate = shown_by(place)
    if fingerprint(certificate) != line.pin:
        raise Untrusted(
            f"{place.authority} shows another certificate ({fingerprint(certificate)}) than the line says",
            "It is another server, it has a new certificate, or somebody in between answers in its place. A new line: "
            "hecaton up, on the server's machine.",
        )
    return Address(place.url("https"), "https"), certificate
