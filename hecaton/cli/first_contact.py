"""The first time that this machine sees a server: how to speak with it, and whom to trust from then on."""

from __future__ import annotations

import os

from hecaton.cli import output
from hecaton.wire.address import Address, introduction, parse, resolve
from hecaton.wire.tls import SelfSigned, fingerprint


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
