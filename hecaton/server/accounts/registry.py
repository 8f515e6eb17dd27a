"""Asks an image's registry whether the image exists, and for its digest (OCI distribution spec 1.1, `HEAD
/v2/…/manifests/…`).

Anonymous: an image that needs a login is reported as closed, and registered with a warning, since the workers may well
have the credentials. A registry that an admin has named is asked in a private network too; what it says itself,
such as who gives out tokens, is believed within bounds.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Mapping
from urllib.parse import urlencode, urlsplit

import msgspec

from hecaton.core.errors import NotFound
from hecaton.core.references import DOCKER_HUB, Reference
from hecaton.server.accounts.questions import HttpAnswer, Unanswered, ask

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
_TOKEN = re.compile(r"[\x21-\x7e]{1,16384}")
_ADDRESS = re.compile(r"https?://[\x21-\x7e]+")

LONGEST_QUESTION = 5.0
"""Seconds for everything that is asked about an image."""

TOKENS_ELSEWHERE = {"lscr.io": "ghcr.io", "nvcr.io": "authn.nvidia.com"}
"""Who gives out the tokens of registries that are not of one site with him."""


class Checked(msgspec.Struct, frozen=True):
    """`digest` None: the registry could not say; `warning` tells why. `wants_login`: it would, to somebody else."""

    digest: str | None
    warning: str | None = None
    wants_login: bool = False


class _WantsLogin(Unanswered):
    def __init__(self, text: str = "it wants a login") -> None:
        super().__init__(text)


async def check(reference: Reference, private: bool = True, seconds: float = LONGEST_QUESTION) -> Checked:
    """Raises NotFound if the registry says that the image does not exist. `private`: it may be in a private network or
    on this machine. `seconds`: for all of it."""
    try:
        async with asyncio.timeout(seconds):
            return Checked(await _digest(reference, private))
    except TimeoutError:
        closed = Unanswered(f"no answer within {seconds:g} s")
    except Unanswered as error:
        closed = error
    warning = f"could not check {reference.familiar}:{reference.tag} at {_host(reference)}: {closed}"
    return Checked(None, warning, isinstance(closed, _WantsLogin))


def _host(reference: Reference) -> str:
    return _HUB_HOST if reference.registry == DOCKER_HUB else reference.registry


def _bases(host: str) -> tuple[str, ...]:
    """Plain HTTP only for registries on this machine, as the Docker engine does."""
    name = host.rsplit(":", 1)[0]
    here = name == "localhost" or name.startswith("127.") or name == "[::1]"
    return (f"https://{host}", f"http://{host}") if here else (f"https://{host}",)


async def _digest(reference: Reference, private: bool) -> str:
    host = _host(reference)
    base, answer = await _first_answer(_bases(host), reference, private)
    if answer.status == 401:
        token = await _token(base, answer, reference)
        answer = await _head(base, reference, {"Authorization": f"Bearer {token}"}, private)
    return _read(answer, reference)


async def _first_answer(bases: tuple[str, ...], reference: Reference, private: bool) -> tuple[str, HttpAnswer]:
    """And where it came from, which alone is given the token."""
    for base in bases[:-1]:
        with contextlib.suppress(Unanswered):
            return base, await _head(base, reference, {}, private)
    return bases[-1], await _head(bases[-1], reference, {}, private)


async def _head(base: str, reference: Reference, headers: Mapping[str, str], private: bool) -> HttpAnswer:
    url = f"{base}/v2/{reference.repository}/manifests/{reference.digest or reference.tag}"
    return await ask("HEAD", url, {"Accept": _ACCEPT, **headers}, private=private)


def _read(answer: HttpAnswer, reference: Reference) -> str:
    if answer.status == 404:
        name = f"{reference.familiar}:{reference.tag}"
        raise NotFound(
            f"image {name!r} does not exist at {_host(reference)}",
            "Check the name and the tag; --no-verify registers it all the same.",
        )
    if answer.status in (401, 403):
        raise _WantsLogin
    if answer.status == 429:
        raise Unanswered("it limits the rate of requests (429)")
    if answer.status != 200:
        raise Unanswered(f"it answered with status {answer.status}")
    digest = answer.headers.get("docker-content-digest", "")
    if not _DIGEST.fullmatch(digest):
        raise Unanswered("it names no digest")
    return digest


async def _token(base: str, refused: HttpAnswer, reference: Reference) -> str:
    """The bearer flow of the distribution spec: the 401 names who gives out tokens. What he says is shown to the
    registry, so he must be of its kind: else a registry could have this server read for it what only it can reach."""
    challenge = refused.headers.get("www-authenticate", "")
    fields = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
    realm = fields.get("realm", "")
    if not challenge.lower().startswith("bearer") or not _ADDRESS.fullmatch(realm):
        raise _WantsLogin
    if not may_give_tokens(realm, base):
        raise _WantsLogin(f"it wants a token from {realm[:200]}, which is not for it to name")
    wanted = {"scope": f"repository:{reference.repository}:pull"}
    if "service" in fields:
        wanted["service"] = fields["service"]
    url = realm.partition("#")[0]
    url += ("&" if "?" in url else "?") + urlencode(wanted)
    try:
        answer = await ask("GET", url, {}, private=refused.public is False)
        body = msgspec.json.decode(answer.body, type=dict[str, object])
    except (Unanswered, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Unanswered(f"no token from {realm[:200]}: {error}") from None
    token = body.get("token") or body.get("access_token")
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise _WantsLogin
    return token


def may_give_tokens(realm: str, base: str) -> bool:
    """For the registry at `base`: over https, from its own host, from one of the same site, or as a pair that is known.
    One on this machine that speaks nothing better may name itself over http."""
    try:
        its, own = urlsplit(realm), urlsplit(base)
        theirs, host = its.hostname or "", own.hostname or ""
    except ValueError:
        return False
    if its.username is not None or (its.scheme != "https" and (its.scheme, its.netloc) != (own.scheme, own.netloc)):
        return False
    return theirs == host or TOKENS_ELSEWHERE.get(host) == theirs or _one_site(theirs, host)


def _one_site(one: str, other: str) -> bool:
    """One below the other, or both below a name of two parts that somebody owns: auth.docker.io and
    registry-1.docker.io; not a.co.uk and b.co.uk, whose common part is as short as those that everybody is below."""
    if one.endswith(f".{other}") or other.endswith(f".{one}"):
        return "." in one and "." in other
    mine, its = one.split("."), other.split(".")
    if len(mine) < 3 or len(its) < 3 or not mine[-1].isalpha() or mine[-2:] != its[-2:]:
        return False
    return len(mine[-2]) > 3 or mine[-3:] == its[-3:]
