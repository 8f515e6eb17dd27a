"""Asks an image's registry whether the image exists, and for its digest (OCI distribution spec 1.1, `HEAD
/v2/…/manifests/…`).

Blocking; the caller runs it in a thread. Anonymous: an image that needs a login is reported as closed, and registered
with a warning, since the workers may well have the credentials.
"""

from __future__ import annotations

import re

import msgspec
import urllib3

from hecaton.core.errors import NotFound
from hecaton.core.references import DOCKER_HUB, Reference

_HUB_HOST = "registry-1.docker.io"
_ACCEPT = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
ANSWER_WITHIN = 7.0


class Checked(msgspec.Struct, frozen=True):
    """`digest` None: the registry could not say; `warning` tells why. `wants_login`: it would, to somebody else."""

    digest: str | None
    warning: str | None = None
    wants_login: bool = False


class _Closed(Exception):
    """The registry did not answer the question; the message says why."""


class _WantsLogin(_Closed):
    def __init__(self) -> None:
        super().__init__("it wants a login")


def check(reference: Reference, timeout: float = ANSWER_WITHIN) -> Checked:
    """Raises NotFound if the registry says that the image does not exist. `timeout`: seconds for each answer."""
    try:
        digest = _Query(reference, timeout).digest()
    except _Closed as closed:
        host = _host(reference)
        warning = f"could not check {reference.familiar}:{reference.tag} at {host}: {closed}"
        return Checked(None, warning, isinstance(closed, _WantsLogin))
    return Checked(digest)


def _host(reference: Reference) -> str:
    return _HUB_HOST if reference.registry == DOCKER_HUB else reference.registry


def _schemes(host: str) -> tuple[str, ...]:
    """Plain HTTP only for registries on this machine, as the Docker engine does."""
    name = host.rsplit(":", 1)[0]
    return ("https", "http") if name == "localhost" or name.startswith("127.") or name == "[::1]" else ("https",)


class _Query:
    def __init__(self, reference: Reference, timeout: float) -> None:
        self.reference = reference
        self.pool = urllib3.PoolManager(timeout=urllib3.Timeout(connect=min(3.0, timeout), read=timeout), retries=False)

    def digest(self) -> str:
        with self.pool:
            response = self._head({})
            if response.status == 401:
                token = self._token(response.headers.get("WWW-Authenticate", ""))
                response = self._head({"Authorization": f"Bearer {token}"})
        return self._read(response)

    def _read(self, response: urllib3.BaseHTTPResponse) -> str:
        if response.status == 404:
            name = f"{self.reference.familiar}:{self.reference.tag}"
            raise NotFound(
                f"image {name!r} does not exist at {_host(self.reference)}",
                "Check the name and the tag; --no-verify registers it all the same.",
            )
        if response.status in (401, 403):
            raise _WantsLogin
        if response.status == 429:
            raise _Closed("it limits the rate of requests (429)")
        if response.status != 200:
            raise _Closed(f"it answered with status {response.status}")
        digest = response.headers.get("Docker-Content-Digest", "")
        if not _DIGEST.fullmatch(digest):
            raise _Closed("it names no digest")
        return digest

    def _head(self, headers: dict[str, str]) -> urllib3.BaseHTTPResponse:
        host = _host(self.reference)
        version = self.reference.digest or self.reference.tag
        path = f"/v2/{self.reference.repository}/manifests/{version}"
        failure: Exception | None = None
        for scheme in _schemes(host):
            try:
                return self.pool.request("HEAD", f"{scheme}://{host}{path}", headers={"Accept": _ACCEPT, **headers})
            except urllib3.exceptions.HTTPError as error:
                failure = error
        raise _Closed(_why(failure))

    def _token(self, challenge: str) -> str:
        """The bearer flow of the distribution spec: the 401 names who gives out tokens."""
        fields = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
        realm = fields.get("realm", "")
        if not challenge.lower().startswith("bearer") or not realm.startswith(("https://", "http://")):
            raise _WantsLogin
        query = {"scope": f"repository:{self.reference.repository}:pull"}
        if "service" in fields:
            query["service"] = fields["service"]
        try:
            response = self.pool.request("GET", realm, fields=query)
            body = msgspec.json.decode(response.data, type=dict[str, object])
        except (urllib3.exceptions.HTTPError, msgspec.DecodeError) as error:
            raise _Closed(f"no token from {realm}: {_why(error)}") from None
        token = body.get("token") or body.get("access_token")
        if not isinstance(token, str):
            raise _WantsLogin
        return token


def _why(error: Exception | None) -> str:
    text = str(getattr(error, "reason", None) or error)
    return re.sub(r"^.*?Connection object at 0x[0-9a-f]+>: ", "", text).removeprefix("<").strip() or "no answer"
