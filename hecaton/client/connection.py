"""One pooled HTTP(S) connection to one server, and what its failures mean. The only module that knows urllib3, whose
import costs 70 ms: `http` loads it with the first request.
"""

from __future__ import annotations

import os
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import urllib3
from urllib3 import exceptions
from urllib3.response import BaseHTTPResponse

from hecaton.core.errors import HecatonError, Unreachable
from hecaton.wire.reach import proxies, tls
from hecaton.wire.reach.address import IS_IT_RUNNING, explain, parse

CONNECT_LIMIT = 10.0
"""Seconds for the connection itself, within the deadline of the whole call."""

PIECE = 256 * 1024


class Fault(Exception):
    """A try that failed on the way. `sent`: the server may have acted on it. `taken`: somebody took the connection, and
    with TLS has shown who he is. `after`: seconds that the server asks to wait."""

    def __init__(self, error: HecatonError, *, sent: bool, taken: bool | None = None, after: float = 0.0) -> None:
        super().__init__(error)
        self.error = error
        self.sent = sent
        self.taken = sent if taken is None else taken
        self.after = after


class Connection:
    """Thread-safe; up to 64 connections are kept open for reuse."""

    def __init__(self, url: str, ca_file: str | os.PathLike[str] | None) -> None:
        self.url = url
        place = parse(url)
        self._where = place.authority
        trust = tls.context(ca_file) if url.startswith("https://") else None
        self._ca_file = ca_file
        # Who is pinned has no name: urllib3 would look for one where the context does not.
        trusting: dict[str, Any] = {"ssl_context": trust} if trust else {}
        if trust is not None and not trust.check_hostname:
            trusting["assert_hostname"] = False
        self._proxy = proxies.proxy_for(url)
        if self._proxy is not None:
            given: dict[str, Any] = {"proxy_headers": self._proxy.headers, "maxsize": 64, **trusting}
            through = urllib3.ProxyManager(self._proxy.url, **given)
            self._base, self._close = url, through.clear
            self._urlopen: Callable[..., BaseHTTPResponse] = through.urlopen
        else:
            direct = urllib3.connection_from_url(url, maxsize=64, block=False, **trusting)
            self._base, self._close = place.prefix, direct.close
            self._urlopen = direct.urlopen

    def send(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes | Iterable[bytes] | None,
        *,
        limit: float,
    ) -> BaseHTTPResponse:
        """The head of the answer, whatever its status. `limit`: seconds for each step. Raises Fault or Untrusted."""
        timeout = urllib3.Timeout(connect=min(limit, CONNECT_LIMIT), read=limit)
        try:
            response: BaseHTTPResponse = self._urlopen(
                method, self._base + target, redirect=False,
                body=body, headers=headers, retries=False, preload_content=False, timeout=timeout,
            )  # fmt: skip
        except exceptions.HTTPError as error:
            raise self._fault(error, limit) from error
        return response

    def pieces(self, response: BaseHTTPResponse, deadline: float | None = None) -> Iterator[bytes]:
        """The body as it arrives. `deadline`: by time.monotonic(). Raises Fault when it breaks off."""
        process = os.getpid()
        try:
            # Only with a number does urllib3 notice that a body ends too early.
            while piece := response.read1(PIECE):
                yield piece
                if os.getpid() != process:  # what comes next is for the parent
                    forked = Unreachable(f"the connection to {self.url} is that of the parent process")
                    raise Fault(forked, sent=True)
                if deadline is not None and time.monotonic() > deadline:
                    late = Unreachable(f"the answer of {self.url} took too long", "Try again, or allow more time.")
                    raise Fault(late, sent=True)
        except (exceptions.HTTPError, OSError) as error:
            raise self._fault(error, None) from error
        finally:
            # Read to its end the connection is back in the pool already; else nobody can use it any more.
            if response.connection is not None:
                response.close()

    def wait_up_to(self, response: BaseHTTPResponse, seconds: float) -> None:
        """For each further piece of an answer."""
        sock = getattr(response.connection, "sock", None)
        if sock is not None:
            sock.settimeout(max(seconds, 0.001))

    def close(self) -> None:
        self._close()

    def _fault(self, error: Exception, limit: float | None) -> Exception:
        cause = error.__cause__ or error.__context__
        tls_error = next((e for e in (*error.args, cause) if isinstance(e, ssl.SSLError)), None)
        if tls_error is not None:
            explained = explain(tls_error, parse(self.url), self._ca_file)
            return explained if isinstance(explained, tls.Untrusted) else Fault(explained, sent=True, taken=False)
        if isinstance(error, exceptions.ProxyError) and self._proxy is not None:
            why = str(getattr(cause, "strerror", None) or cause or error).lower()
            refused = Unreachable(f"{self._proxy} gives no way to {self._where}: {why}", proxies.AROUND)
            return Fault(refused, sent=False)
        if isinstance(cause, socket.gaierror):
            host = self._where.rpartition(":")[0]
            unknown = Unreachable(f"cannot find the host {host!r}: {cause.strerror}", "Check the name for typos.")
            return Fault(unknown, sent=False)
        if isinstance(error, exceptions.ConnectTimeoutError | exceptions.NewConnectionError):
            reason = (getattr(cause, "strerror", None) or "no answer in time").lower()
            return Fault(Unreachable(f"no server answers at {self.url}: {reason}", IS_IT_RUNNING), sent=False)
        if isinstance(error, exceptions.ReadTimeoutError | TimeoutError):
            within = f" within {limit:.3g} s" if limit else ""
            return Fault(
                Unreachable(f"{self.url} took the request, but did not answer{within}", IS_IT_RUNNING), sent=True
            )
        return Fault(Unreachable(f"the connection to {self.url} broke off", self._broken_hint()), sent=True)

    def _broken_hint(self) -> str:
        if self.url.startswith("http://"):
            return f"If the server speaks TLS, write {parse(self.url).url('https')}. {IS_IT_RUNNING}"
        return IS_IT_RUNNING
