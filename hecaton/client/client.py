"""The SDK: one typed method per endpoint. Whatever goes wrong is raised as an error of `hecaton.core.errors`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from hecaton.client import profiles
from hecaton.client.http import Transport
from hecaton.client.nouns.batches import BatchCalls
from hecaton.client.nouns.images import ImageCalls
from hecaton.client.nouns.jobs import JobCalls
from hecaton.client.nouns.users import UserCalls
from hecaton.client.nouns.workers import WorkerCalls
from hecaton.core.errors import NotFound, Unauthenticated
from hecaton.wire import api
from hecaton.wire.api import API, KeyLogin


class Client(JobCalls, BatchCalls, ImageCalls, WorkerCalls, UserCalls):
    """A connection to one server. Thread-safe; connects with the first call.

        with Client("localhost:8181", token) as client:
            job = client.submit("my/image", {"prompt": "a cat"})
            print(job.result(timeout=600))

    `address`: with or without scheme; without one TLS is tried first, and a fall-back to plain HTTP gives a warning.
    `ca_file`: what to trust instead of the system's CAs (also: HECATON_CA_FILE). `timeout`: seconds for one call, its
    retries included; uploads, downloads and waits take as long as they need, but not as long without a sign of life.
    `patient`: a server that cannot be connected to may be restarting, and is tried again for some seconds.
    `uploading`: called while a file is uploaded, with its name, the bytes sent up to now, and its size.
    `follow`: the connection of a submission may be kept for its end, so that `submit(...).result()` is one round trip;
    without it waits are requests of their own.

    Every method raises Unreachable when no server answers, Unauthenticated when the token does not hold, Forbidden
    when the role does not suffice, and NotFound, Conflict or BadRequest by what was asked.
    """

    def __init__(
        self,
        address: str,
        token: str | None = None,
        *,
        ca_file: str | os.PathLike[str] | None = None,
        timeout: float = 30.0,
        patient: bool = True,
        uploading: Callable[[str, int, int], None] | None = None,
        follow: bool = True,
    ) -> None:
        self._transport = Transport(address, token, ca_file=ca_file, timeout=timeout, patient=patient)
        self._transport.uploading = uploading
        self._transport.may_follow = follow

    @classmethod
    def from_profile(cls, name: str | None = None, *, token: str | None = None, timeout: float = 30.0) -> Client:
        """The server that `hecaton server new` registered as `name`, by default the active one, with its token."""
        profile = profiles.get(name) if name is not None else profiles.active()
        if profile is None:
            raise NotFound(
                "no server is active",
                "Register one: hecaton server new --ip HOST:8181 --name NAME, or choose one: hecaton server connect "
                "NAME",
            )
        return cls(profile.url, token or profile.token, ca_file=profile.ca_file, timeout=timeout)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections, for good."""
        self._transport.close()

    def health(self) -> api.Health:
        """Needs no token."""
        return self._transport.call("GET", "/healthz", api.Health)

    def server_info(self) -> api.ServerInfo:
        """Version and limits of the server, and who this client is there."""
        return self._transport.call("GET", f"{API}/server", api.ServerInfo)

    def login(self, username: str, password: str) -> api.Token:
        """Get a token and use it from now on."""
        token = self._transport.call("POST", f"{API}/login", api.Token, api.Login(username, password))
        self._transport.token = token.token
        return token

    def login_with_key(self, key: str) -> api.Token:
        """As `login`, with a key that was made for it (`make_key`): it is used up."""
        token = self._transport.call("POST", f"{API}/login/key", api.Token, KeyLogin(key))
        self._transport.token = token.token
        return token

    def now(self) -> float:
        """The time by the server's clock, as far as an answer has told it: ages of jobs count by that one."""
        return time.time() + (self._transport.clock_ahead or 0.0)

    @property
    def away_since(self) -> float | None:
        """Since when the server has not answered, by `time.monotonic`; None: it does. Calls and waits go on trying."""
        return self._transport.away_since

    @property
    def token(self) -> str:
        """The token in use. Raises Unauthenticated when there is none."""
        if self._transport.token is None:
            raise Unauthenticated("this client is not logged in", "Client.login(username, password)")
        return self._transport.token
