"""Which proxy a connection to a server goes through: one rule for client, command line and worker.

As with curl: HTTPS_PROXY for https://, HTTP_PROXY for http://, ALL_PROXY for both, in small letters too, which count
first; what NO_PROXY names is reached directly, and so is this machine itself.
"""

from __future__ import annotations

import base64
import ipaddress
import os
import re
from urllib.parse import quote, unquote, urlsplit

import msgspec

from hecaton.core.errors import BadRequest


class Proxy(msgspec.Struct, frozen=True):
    """`login`: name and password. `variable`: who named it."""

    host: str
    port: int
    variable: str
    login: tuple[str, str] | None = None

    @property
    def _place(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """Without the login."""
        return f"http://{self._place}"

    @property
    def url_with_login(self) -> str:
        login = "" if self.login is None else ":".join(quote(part, safe="") for part in self.login) + "@"
        return f"http://{login}{self._place}"

    @property
    def headers(self) -> dict[str, str]:
        if self.login is None:
            return {}
        return {"Proxy-Authorization": "Basic " + base64.b64encode(":".join(self.login).encode()).decode()}

    def __str__(self) -> str:
        return f"the proxy {self.url} ({self.variable})"


AROUND = "To go past it, name the server in NO_PROXY."


def proxy_for(url: str) -> Proxy | None:
    """For a server's URL with its scheme. None: directly. BadRequest for a variable that names no HTTP proxy."""
    place = urlsplit(url)
    host, port = place.hostname or "", place.port or {"http": 80, "https": 443}[place.scheme]
    names = (f"{place.scheme}_proxy", f"{place.scheme}_proxy".upper(), "all_proxy", "ALL_PROXY")
    variable = next((name for name in names if os.environ.get(name)), None)
    if variable is None or _is_this_machine(host) or _is_excepted(host, port):
        return None
    return _parsed(variable, os.environ[variable].strip())


def _parsed(variable: str, value: str) -> Proxy:
    try:
        named = urlsplit(value if "://" in value else f"http://{value}")
        port = named.port or 80
    except ValueError:
        named, port = urlsplit(""), 0
    if named.scheme != "http" or not named.hostname:
        shown = re.sub(r"//[^/]*@", "//...@", value)
        raise BadRequest(
            f"{variable}={shown} names no proxy that can be used: only HTTP proxies can",
            f"Write http://HOST:PORT. {AROUND}",
        )
    login = None if named.username is None else (unquote(named.username), unquote(named.password or ""))
    return Proxy(named.hostname, port, variable, login)


def _is_this_machine(host: str) -> bool:
    address = _address(host)
    return address.is_loopback if address is not None else host == "localhost" or host.endswith(".localhost")


def _is_excepted(host: str, port: int) -> bool:
    """NO_PROXY has names (with what is below them), addresses and networks, each with or without a port; or `*`."""
    address = _address(host)
    for entry in re.split(r"[,\s]+", os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""):
        name, colon, its_port = entry.rpartition(":")
        if not (colon and its_port.isdigit() and (":" not in name or name.endswith("]"))):
            name = entry
        elif its_port != str(port):
            continue
        name = name.strip("[]").removeprefix("*.").lstrip(".").lower()
        if entry == "*" or (name and (host == name or host.endswith(f".{name}"))):
            return True
        if address is not None and "/" in name and _is_within(address, name):
            return True
    return False


def _is_within(address: ipaddress.IPv4Address | ipaddress.IPv6Address, network: str) -> bool:
    try:
        return address in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
