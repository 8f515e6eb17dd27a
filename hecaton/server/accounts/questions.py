"""One question over HTTP to somebody who is not trusted, such as a registry: bounded in time and bytes, and asked only
where it may go.

A client of its own, on the loop: with urllib3 a machine that sends its answer byte by byte holds a thread for as long
as it likes, and a small compressed answer fills the memory.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar
from urllib.parse import SplitResult, urlsplit

import httptools
import msgspec

from hecaton import __version__
from hecaton.core.errors import BadRequest
from hecaton.wire.reach.proxies import Proxy, proxy_for

T = TypeVar("T")

MAX_ANSWER = 64 * 1024
"""Bytes, with its head."""

_CONNECT_SECONDS = 2.0  # for each address of a name
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Looking up a name cannot be ended from outside. Here a slow name server keeps nobody but other questions waiting.
_names = ThreadPoolExecutor(2, thread_name_prefix="names")


class Unanswered(Exception):
    """The message says why, in words that go behind 'could not check ...: '."""


class HttpAnswer(msgspec.Struct, frozen=True):
    """`headers` with names in small letters. `public`: who answered has an address that the whole internet can reach;
    None where a proxy knows that and this server does not."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    public: bool | None


async def ask(method: str, url: str, headers: Mapping[str, str], *, private: bool) -> HttpAnswer:
    """`url` in ASCII, without blanks. `private`: networks that are no part of the internet may be asked, and this
    machine itself; what reaches along one cable only (link-local) never may: there clouds keep their machines' keys.

    Redirects are answers. As long as the caller waits. Raises Unanswered."""
    try:
        return await _ask(method, urlsplit(url), headers, private)
    except ssl.SSLError as error:
        raise Unanswered(f"TLS failed: {getattr(error, 'verify_message', None) or error.reason or error}") from None
    except OSError as error:
        raise Unanswered((error.strerror or str(error) or "no answer").lower()) from None
    except (httptools.HttpParserError, httptools.HttpParserUpgrade, BadRequest, ValueError) as error:
        raise Unanswered(str(error)) from None


async def _ask(method: str, url: SplitResult, headers: Mapping[str, str], private: bool) -> HttpAnswer:
    host, secure = url.hostname or "", url.scheme == "https"
    port = url.port or (443 if secure else 80)
    proxy = proxy_for(url.geturl())
    public = _is_public(known) if (known := _literal(host)) is not None else None
    if proxy is None:
        reader, writer, public = await _connect(host, port, private)
    elif known is not None and not _may_ask(known, private):
        raise Unanswered(_elsewhere(host))
    else:
        reader, writer, _ = await _connect(proxy.host, proxy.port, True)
    target = (url.path or "/") + (f"?{url.query}" if url.query else "")
    said = {"Host": url.netloc, "User-Agent": f"hecaton/{__version__}", "Accept-Encoding": "identity", **headers}
    try:
        if proxy is not None and secure:
            await _open_tunnel(reader, writer, f"{_bracketed(host)}:{port}", proxy)
        elif proxy is not None:
            target, said = f"http://{url.netloc}{target}", {**said, **proxy.headers}
        if secure:
            await writer.start_tls(await _off_the_loop(_trust), server_hostname=host)
        writer.write(_request(method, target, {**said, "Connection": "close"}))
        status, answered, body = await _read(reader, head_only=method == "HEAD")
    finally:
        writer.transport.abort()  # whatever is on its way: nobody waits for it
    return HttpAnswer(status, answered, body, public)


async def _connect(host: str, port: int, private: bool) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, bool]:
    """And whether its address is public. The name is looked up once, so that what was judged is what is asked."""
    known = _literal(host)
    addresses = [known] if known is not None else await _off_the_loop(_look_up, host, port)
    allowed = [address for address in addresses if _may_ask(address, private)]
    if not allowed:
        raise Unanswered(_elsewhere(host))
    failure: OSError = ConnectionError("no answer")
    for address in allowed:
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                reader, writer = await asyncio.open_connection(str(address), port, limit=MAX_ANSWER)
        except OSError as error:
            failure = error
        else:
            return reader, writer, _is_public(address)
    raise failure


async def _off_the_loop(function: Callable[..., T], *arguments: object) -> T:
    return await asyncio.get_running_loop().run_in_executor(_names, function, *arguments)


def _look_up(host: str, port: int) -> list[_Address]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(ipaddress.ip_address(str(place[0]).partition("%")[0]) for *_, place in found))


@cache
def _trust() -> ssl.SSLContext:
    return ssl.create_default_context()


def _literal(host: str) -> _Address | None:
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _real(address: _Address) -> _Address:
    """::ffff:169.254.169.254 leads where 169.254.169.254 does."""
    return getattr(address, "ipv4_mapped", None) or address


def _is_public(address: _Address) -> bool:
    return _real(address).is_global


def _may_ask(address: _Address, private: bool) -> bool:
    address = _real(address)
    if address.is_link_local or address.is_multicast or address.is_unspecified:
        return False
    return private or address.is_global


def _elsewhere(host: str) -> str:
    return f"{host} is an address that this server does not ask"


async def _open_tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, place: str, proxy: Proxy) -> None:
    writer.write(_request("CONNECT", place, {"Host": place, **proxy.headers}))
    status, _, _ = await _read(reader, head_only=True)
    if not 200 <= status < 300:
        raise Unanswered(f"{proxy} gives no way there (status {status})")


def _request(method: str, target: str, headers: Mapping[str, str]) -> bytes:
    lines = (f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", "")
    return "\r\n".join(lines).encode("ascii")


async def _read(reader: asyncio.StreamReader, *, head_only: bool) -> tuple[int, Mapping[str, str], bytes]:
    """Status, headers and body of an answer, of which no more than MAX_ANSWER is taken."""
    reply = _AnswerParser(head_only)
    size = 0
    while not reply.complete and (data := await reader.read(MAX_ANSWER)):
        size += len(data)
        if size > MAX_ANSWER:
            raise Unanswered(f"its answer has more than {MAX_ANSWER} bytes")
        reply.feed(data)
    if not reply.complete and not reply.may_end_here:
        raise Unanswered("the connection broke off")
    return reply.status, reply.headers, b"".join(reply.body)


class _AnswerParser:
    """What httptools calls. `head_only`: no body follows, whatever the head says of one."""

    def __init__(self, head_only: bool) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body: list[bytes] = []
        self.complete = False
        self._head_only = head_only
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        self._parser.feed_data(data)

    @property
    def may_end_here(self) -> bool:
        return self.status >= 200 and not {"content-length", "transfer-encoding"} & self.headers.keys()

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        self.complete = self._head_only and self.status >= 200

    def on_body(self, data: bytes) -> None:
        self.body.append(data)

    def on_message_complete(self) -> None:
        """Of "103 Early Hints", too, behind which the answer comes."""
        self.complete = self.status >= 200
