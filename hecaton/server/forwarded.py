"""Whose request a proxy has passed on, where the proxy is one that is believed (`--trusted-proxy`)."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_HEADER = b"x-forwarded-for"


class Proxies:
    """The proxies that are believed. `networks`: addresses too, as they are written on a command line."""

    def __init__(self, networks: Iterable[str] = ()) -> None:
        self._networks: list[Network] = [ipaddress.ip_network(text, strict=False) for text in networks]

    def trusts(self, address: str) -> bool:
        found = _parsed(address)
        return found is not None and any(found in network for network in self._networks)

    def client(self, peer: str, headers: Iterable[tuple[bytes, bytes]]) -> str:
        """The address that a request comes from: the last one that a believed proxy has seen, and believes not itself.
        What stands before it in the header is the client's own word, and nobody's else."""
        if not self.trusts(peer):
            return peer
        passed = b",".join(value for name, value in headers if name == _HEADER).decode("latin-1")
        client = peer
        while passed:
            passed, _, text = passed.rpartition(",")
            found = _parsed(text)
            if found is None:
                break
            client = str(found)
            if not self.trusts(client):
                break
        return client


def plain(address: str) -> str:
    """An IPv4 address as it is written, where a socket that hears both families gives it as `::ffff:10.0.0.7`."""
    return address.removeprefix("::ffff:") if "." in address else address


def _parsed(text: str) -> Address | None:
    """An address, also with a port behind it, as some proxies write it."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found
