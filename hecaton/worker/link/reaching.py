"""How the worker reaches its server: whom it trusts, by which way it goes, and in words why it does not get there."""

from __future__ import annotations

import ssl

import aiohttp

from hecaton.core.errors import NoUpgrade
from hecaton.wire import channel
from hecaton.wire.errors import IN_NGINX, STATUS, from_reply
from hecaton.wire.reach import proxies, tls
from hecaton.worker.link.registration import WorkerConfig

TCP_SECONDS = 5.0
"""A black hole swallows a handshake, and the kernel repeats it ever more seldom: a new one is sooner through."""


class Unwelcome(Exception):
    """The server answered and will not have this worker now: try again slowly."""


UNAUTHENTICATED = (
    "the server does not know this worker's token (was the worker removed?). "
    "Register it again: hecaton-gpu uninstall, then hecaton-gpu install SERVER"
)


def too_old(protocol: int) -> str:
    spoken = f"it speaks protocol {protocol}, this worker {channel.OLDEST} to {channel.PROTOCOL}"
    return f"the server is too old for this worker: upgrade the server ({spoken})"


def no_channel(status: int, by: str | None) -> str:
    """What it means that a handshake is answered with this status. `by`: the answer's header `Server`."""
    if status in (401, 403, 407, 429) or status >= 500:
        return str(from_reply(status, b"", by)).replace("\n", ". ")
    if status == STATUS[NoUpgrade]:
        named = f" ({by[:60]})" if by else ""
        return f"the proxy in front of the server{named} does not pass Upgrade on. {IN_NGINX}"
    named = f" by {by[:60]!r}" if by else ""
    return f"the WebSocket was answered with status {status}{named}: a proxy in between has to pass it on. {IN_NGINX}"


def by_way_of(url: str) -> str:
    proxy = proxies.proxy_for(url)
    return "" if proxy is None else f", by way of {proxy}. {proxies.AROUND}"


def untrusted(error: aiohttp.ClientConnectorCertificateError, ca_file: str | None) -> str:
    cause = error.certificate_error
    if isinstance(cause, ssl.SSLError):
        return str(tls.explain(cause, f"{error.host}:{error.port}", ca_file))
    return str(error)


def session(config: WorkerConfig) -> aiohttp.ClientSession:
    """For channel and bodies. The CA is the one pinned at registration; there is no way back to plain HTTP. Nothing is
    taken from the environment but the proxy, by our own rule: no logins of netrc."""
    ca = None if config.ca_file is None else str(config.ca_file)
    trust = tls.context(ca) if config.url.startswith("https://") else False
    proxy = proxies.proxy_for(config.url)
    return aiohttp.ClientSession(
        trust_env=False,
        proxy=None if proxy is None else proxy.url_with_login,
        headers={"Authorization": f"Bearer {config.token}"},
        connector=aiohttp.TCPConnector(ssl=trust, limit=8),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=TCP_SECONDS, sock_read=60),
    )
