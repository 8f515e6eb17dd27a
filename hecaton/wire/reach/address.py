"""The address of a server as people write it, and which scheme to speak there. For client, CLI and worker.

`http://` and `https://` are taken literally. Without a scheme TLS is tried first; plain HTTP is accepted, with a
warning, on this machine and on private networks only. A path is where a proxy in front has the server:
`https://host/hecaton`.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import socket
import ssl
import time
from typing import NoReturn

import msgspec

from hecaton.core.errors import BadRequest, Unreachable
from hecaton.wire.reach import proxies, tls

DEFAULT_PORT = 8181
"""For addresses without a scheme; `http://host` means port 80 and `https://host` 443, as everywhere."""

_SCHEME_PORT = {"http": 80, "https": 443}
_HOST_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_.])?")
_PREFIX = re.compile(r"(/(?!\.{1,2}(/|$))[A-Za-z0-9._~-]+)*")
_EXAMPLES = "Write host:port (gpu.example.com:8181, 192.168.1.5:8181, [::1]:8181), https://host or https://host/path."
IS_IT_RUNNING = "Is hecaton-server running there, is the port right, and does no firewall stop it?"

_LOCAL_NETWORKS = tuple(
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/32",  # connects to this machine
        "127.0.0.0/8",
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "169.254.0.0/16",
        "100.64.0.0/10",  # overlay networks such as Tailscale
        "::/128",
        "::1/128",
        "fc00::/7",
        "fe80::/10",
    )
)


class Place(msgspec.Struct, frozen=True):
    """A parsed address. `scheme` is None when it was not written. `prefix`: the path below which the server is, such as
    `/hecaton`; empty where it is all that is there."""

    scheme: str | None
    host: str  # IPv6 literals without brackets
    port: int
    prefix: str = ""

    @property
    def authority(self) -> str:
        host = f"[{self.host.replace('%', '%25')}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def url(self, scheme: str) -> str:
        return f"{scheme}://{self.authority}{self.prefix}"


class Address(msgspec.Struct, frozen=True):
    """Where to connect. `warning`: what a person has to be told about this connection, once."""

    url: str  # scheme://host:port[/path], no slash at the end
    scheme: str
    warning: str | None = None


def parse(address: str) -> Place:
    """Raises BadRequest, naming the address, for anything that is not [http[s]://]host[:port][/path][/]."""
    if "@" in address:
        # Not repeated in the message: it may hold a password.
        raise BadRequest("an address with a user name or password in it is not supported", _EXAMPLES)
    scheme, separator, rest = address.strip().rpartition("://")
    scheme = scheme.lower()
    if separator and scheme not in _SCHEME_PORT:
        raise BadRequest(f"the address {address!r} starts with neither http:// nor https://", _EXAMPLES)
    authority, slash, path = rest.partition("/")
    prefix = (slash + path).rstrip("/")
    if not is_prefix(prefix):
        raise BadRequest(f"the address {address!r} has a path that no server is below", _EXAMPLES)
    host, port = _split_port(address, authority)
    return Place(scheme or None, _host(address, host), port or _SCHEME_PORT.get(scheme, DEFAULT_PORT), prefix)


def is_prefix(path: str) -> bool:
    """Whether a server may be below this path: nothing, or names of letters, digits and `._~-`, with a slash before
    each."""
    return _PREFIX.fullmatch(path) is not None


def _split_port(address: str, authority: str) -> tuple[str, int | None]:
    """(host without brackets, port or None). A bare IPv6 literal has no port."""
    if authority.startswith("["):
        host, bracket, rest = authority[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")) or ":" not in host:
            raise BadRequest(f"the address {address!r} has an incomplete IPv6 literal", _EXAMPLES)
        port = rest[1:]
        has_port = bool(rest)
    elif authority.count(":") > 1:
        return authority, None
    else:
        host, colon, port = authority.partition(":")
        has_port = bool(colon)
    if not has_port:
        return host, None
    if not (port.isascii() and port.isdigit() and 0 < int(port[:6]) <= 65535):
        raise BadRequest(f"the address {address!r} has no valid port: {port!r} is not 1 to 65535", _EXAMPLES)
    return host, int(port)


def _host(address: str, host: str) -> str:
    if ":" in host:
        with contextlib.suppress(ValueError):
            return str(ipaddress.IPv6Address(host.replace("%25", "%")))
    else:
        with contextlib.suppress(UnicodeError):
            plain = host.encode("idna").decode("ascii")
            if _HOST_NAME.fullmatch(plain):
                return plain.lower()
    raise BadRequest(f"the address {address!r} names no host", _EXAMPLES)


def is_local(address: str) -> bool:
    """True for IP addresses that plain HTTP may be spoken with unasked: loopback, private (RFC 1918, fc00::/7),
    link-local and overlay (100.64.0.0/10)."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped
    return any(ip.version == network.version and ip in network for network in _LOCAL_NETWORKS)


def resolve(
    address: str,
    ca_file: str | os.PathLike[str] | None = None,
    pinned_scheme: str | None = None,
    *,
    timeout: float = 5.0,
) -> Address:
    """Decide how to speak with the server at `address`; connects only when no scheme is written or pinned.

    `pinned_scheme`: what was found before and remembered: "https" never becomes "http" again. `timeout` is in
    seconds and holds for each of the at most two connections.
    Raises BadRequest (malformed address, public address without TLS) and Unreachable (nobody there, certificate
    not trusted).
    """
    place = parse(address)
    if place.scheme:
        return Address(place.url(place.scheme), place.scheme)
    if pinned_scheme == "https":
        return Address(place.url("https"), "https")
    if proxies.proxy_for(place.url("https")) is not None or proxies.proxy_for(place.url("http")) is not None:
        return _through_proxy(place, pinned_scheme, ca_file, timeout)
    addresses = _look_up(place)
    if pinned_scheme == "http":
        _require_local(place, addresses)
        return Address(place.url("http"), "http")
    if _answers_tls(place, ca_file, timeout):
        return Address(place.url("https"), "https")
    _require_local(place, addresses)
    if not _answers_http(place, timeout):
        raise Unreachable(f"what answers at {place.authority} speaks neither TLS nor HTTP", IS_IT_RUNNING)
    return Address(
        place.url("http"),
        "http",
        f"{place.authority} does not speak TLS: using plain HTTP, unencrypted. That is acceptable on this machine or "
        "a private network; elsewhere start hecaton-server with --ssl-keyfile and --ssl-certfile.",
    )


def introduction(address: str, *, timeout: float = 5.0) -> str | None:
    """The certificate (PEM) of a server that nobody but itself vouches for, to be trusted from its first sight on, as
    ssh does: on this machine and private networks, where plain HTTP would be spoken too, without a proxy in between,
    and if it may sign no other. None: there is none such."""
    place = parse(address)
    if place.scheme is not None or proxies.proxy_for(place.url("https")) is not None:
        return None
    try:
        if not all(is_local(one) for one in _look_up(place)):
            return None
        certificate = shown_by(place, timeout=timeout)
    except Unreachable:
        return None
    return certificate if tls.is_pin(certificate) else None


def shown_by(place: Place, *, timeout: float = 5.0) -> str:
    """The certificate (PEM) of whoever answers there, by way of the proxy if there is one: trusted by nobody yet.
    Unreachable if nobody does with TLS."""
    proxy = proxies.proxy_for(place.url("https"))
    unproven = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    unproven.check_hostname, unproven.verify_mode = False, ssl.CERT_NONE
    door = place if proxy is None else Place("http", proxy.host, proxy.port)
    with _connect(door, timeout, None if proxy is None else f"{proxy} does not answer") as connection:
        if proxy is not None and not opened(connection, place, proxy):
            raise Unreachable(f"{proxy} gives no way to {place.authority}", proxies.AROUND)
        try:
            with unproven.wrap_socket(connection, server_hostname=_server_name(place)) as secured:
                certificate = secured.getpeercert(binary_form=True)
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise Unreachable(f"no server answers at {place.authority} with TLS: {why}", IS_IT_RUNNING) from error
    assert certificate is not None
    return ssl.DER_cert_to_PEM_cert(certificate)


def explain(error: ssl.SSLError, place: Place, ca_file: str | os.PathLike[str] | None) -> Unreachable:
    """As `tls.explain`; of a certificate that nobody but itself vouches for with its fingerprint."""
    explained = tls.explain(error, place.authority, ca_file)
    if not isinstance(explained, tls.SelfSigned):
        return explained
    try:
        return tls.introduced(explained, place.authority, shown_by(place))
    except Unreachable:
        return explained


def _through_proxy(
    place: Place, pinned_scheme: str | None, ca_file: str | os.PathLike[str] | None, timeout: float
) -> Address:
    """Where the server is, only the proxy may know: whether it is private nobody can say, so plain HTTP is written."""
    if pinned_scheme == "http":
        return Address(place.url("http"), "http")
    proxy = proxies.proxy_for(place.url("https"))
    spelled_out = f"Write {place.url('https')}, or {place.url('http')} to accept plain HTTP. {proxies.AROUND}"
    if proxy is None:
        other = proxies.proxy_for(place.url("http"))
        raise BadRequest(f"{place.authority} is reached by way of {other}, if it speaks plain HTTP", spelled_out)
    context = tls.context(ca_file)
    with _connect(Place("http", proxy.host, proxy.port), timeout, f"{proxy} does not answer") as connection:
        try:
            if opened(connection, place, proxy) and _handshake(connection, context, place, time.monotonic() + timeout):
                return Address(place.url("https"), "https")
        except ssl.SSLError as error:
            raise explain(error, place, ca_file) from error
    raise BadRequest(f"{place.authority} does not speak TLS, by way of {proxy}", spelled_out)


def opened(connection: socket.socket, place: Place, proxy: proxies.Proxy) -> bool:
    """Whether the proxy has made a way to the place."""
    headers = {"Host": place.authority, **proxy.headers}
    lines = [f"CONNECT {place.authority} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    answer = b""
    try:
        connection.sendall("\r\n".join(lines).encode())
        while b"\r\n\r\n" not in answer and len(answer) < 65536:  # byte by byte: what follows is the server's
            byte = connection.recv(1)
            if not byte:
                break
            answer += byte
    except OSError:
        return False
    return answer.split(b"\r\n")[0].split(b" ")[1:2] == [b"200"]


def _look_up(place: Place) -> list[str]:
    try:
        found = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise Unreachable(f"cannot find the host {place.host!r}: {reason}", "Check the name for typos.") from error
    return [str(entry[4][0]) for entry in found]


def _require_local(place: Place, addresses: list[str]) -> None:
    public = [address for address in addresses if not is_local(address)]
    if public:
        raise BadRequest(
            f"{place.authority} does not speak TLS and has a public address ({public[0]}): passwords and payloads "
            "would travel unencrypted",
            f"Start hecaton-server with --ssl-keyfile and --ssl-certfile, or write {place.url('http')} to accept it.",
        )


def _connect(place: Place, timeout: float, silent: str | None = None) -> socket.socket:
    """`silent`: what to say of one that does not answer."""
    try:
        return socket.create_connection((place.host, place.port), timeout)
    except OSError as error:
        if silent is not None:
            raise Unreachable(f"{silent}: {error.strerror or error}", proxies.AROUND) from error
        if isinstance(error, TimeoutError):
            raise Unreachable(f"no answer from {place.authority} within {timeout:g} s", IS_IT_RUNNING) from error
        _raise_unreachable(place, error)


def _raise_unreachable(place: Place, error: OSError) -> NoReturn:
    reason = (error.strerror or str(error)).lower()
    raise Unreachable(f"no server answers at {place.authority}: {reason}", IS_IT_RUNNING) from error


def _answers_tls(place: Place, ca_file: str | os.PathLike[str] | None, timeout: float) -> bool:
    """True: a trusted server. False: whoever is there does not speak TLS. Everything between is raised."""
    context = tls.context(ca_file)
    with _connect(place, timeout) as connection:
        try:
            return _handshake(connection, context, place, time.monotonic() + timeout)
        except ssl.SSLError as error:
            raise explain(error, place, ca_file) from error


def _server_name(place: Place) -> str:
    """Without the zone of an IPv6 address, which is this machine's affair."""
    return place.host.partition("%")[0]


def _handshake(connection: socket.socket, context: ssl.SSLContext, place: Place, deadline: float) -> bool:
    """The handshake by hand, because only the raw bytes tell a TLS server that refuses from one that speaks no TLS."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = context.wrap_bio(incoming, outgoing, server_hostname=_server_name(place))
    answered = False
    while True:
        try:
            session.do_handshake()
        except ssl.SSLWantReadError:
            pass
        else:
            return True
        try:
            connection.settimeout(max(deadline - time.monotonic(), 0.001))
            connection.sendall(outgoing.read())
            data = connection.recv(16384)
        except OSError:
            data = b""
        if not answered and data[:1] not in {b"\x16", b"\x15"}:  # a TLS record: handshake, alert
            return False
        if not data:
            raise Unreachable(f"{place.authority} broke off the TLS handshake", IS_IT_RUNNING)
        answered = True
        incoming.write(data)


def _answers_http(place: Place, timeout: float) -> bool:
    request = f"GET {place.prefix}/healthz HTTP/1.1\r\nHost: {place.authority}\r\nConnection: close\r\n\r\n"
    deadline = time.monotonic() + timeout
    answer = b""
    with _connect(place, timeout) as connection:
        try:
            connection.sendall(request.encode())
            while len(answer) < 5:
                connection.settimeout(max(deadline - time.monotonic(), 0.001))
                data = connection.recv(4096)
                if not data:
                    break
                answer += data
        except OSError:
            return False
    return answer.startswith(b"HTTP/")
