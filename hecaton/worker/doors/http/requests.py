"""From a job's payload to the request that it is, and from the answer to the job's result."""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from urllib.parse import quote

import msgspec

from hecaton.core.model import AttemptRef, Failure, Kind, Reason
from hecaton.worker.doors.door import Answer

FIELDS = frozenset({"method", "path", "query", "headers", "body"})
"""A payload that is an object of these, with a method or a path, is a request; any other one is the body of one."""

QUOTED = 4096
"""Bytes of a refusal that are shown."""

_CONTENT_TYPES = {
    Kind.JSON: "application/json",
    Kind.TEXT: "text/plain; charset=utf-8",
    Kind.BYTES: "application/octet-stream",
}
_OF_HOST_NAMES = ("idna", "punycode")
"""Charsets of no answer: they take minutes for a long text."""

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class Unusable(Exception):
    """The payload says how the request is to be, and no request can be so."""


class HttpRequest(msgspec.Struct, frozen=True):
    """`target`: path and query, escaped."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes | None


class _Said(msgspec.Struct, frozen=True):
    method: str | None = None
    path: str | None = None
    query: Mapping[str, str | int | float | bool] = {}
    headers: Mapping[str, str] = {}
    body: msgspec.Raw = msgspec.Raw()


def request_of(kind: Kind, payload: bytes, path: str) -> HttpRequest:
    """`path`: where a payload goes that says nothing of it. Raises Unusable."""
    said = _said(payload) if kind is Kind.JSON else None
    if said is None:
        return HttpRequest("POST", path, {"Content-Type": _CONTENT_TYPES[kind]}, payload)
    body, content_type = _body(said.body)
    method = (said.method or ("GET" if body is None else "POST")).upper()
    if method not in _METHODS:
        raise Unusable(f"the method is {method[:40]!r}: expected one of {', '.join(_METHODS)}")
    headers = {} if content_type is None else {"Content-Type": content_type}
    for name, value in said.headers.items():
        if not name.isascii() or not name.isprintable() or ":" in name or " " in name or not value.isprintable():
            raise Unusable(f"{name[:80]!r} is no header, or its value is none")
        headers = {known: of for known, of in headers.items() if known.lower() != name.lower()} | {name: value}
    return HttpRequest(method, _target(said.path or path, said.query), headers, body)


def _said(payload: bytes) -> _Said | None:
    """None: the payload is no request, but the body of one."""
    try:
        fields = msgspec.json.decode(payload, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not fields or not fields.keys() <= FIELDS or fields.keys().isdisjoint({"method", "path"}):
        return None
    try:
        return msgspec.json.decode(payload, type=_Said)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Unusable(f"it looks like a request, and is none: {error}") from error


def _body(raw: msgspec.Raw) -> tuple[bytes | None, str | None]:
    """And its content type: text as it is, anything else as JSON."""
    content = bytes(raw)
    if content.strip() in (b"", b"null"):
        return None, None
    if content.lstrip()[:1] == b'"':
        return msgspec.json.decode(content, type=str).encode("utf-8", "replace"), _CONTENT_TYPES[Kind.TEXT]
    return content, _CONTENT_TYPES[Kind.JSON]


def _target(path: str, query: Mapping[str, str | int | float | bool]) -> str:
    if not path.startswith("/"):
        raise Unusable(f"the path is {path[:80]!r}: it begins with a slash")
    try:
        escaped = quote(path, safe="/%:@!$&'()*+,;=-._~?")
        asked = "&".join(f"{quote(name, safe='')}={quote(_text(value), safe='')}" for name, value in query.items())
    except UnicodeEncodeError as error:
        raise Unusable("the path or the query is no text") from error
    return escaped if not asked else f"{escaped}{'&' if '?' in escaped else '?'}{asked}"


def _text(value: str | float | bool) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def result_of(ref: AttemptRef, content_type: str, body: bytes) -> Answer:
    """Of an answer that says that all went well."""
    kind, body = _kind_of(content_type, body)
    return Answer(ref, Reason.OK, kind, body)


def _kind_of(content_type: str, body: bytes) -> tuple[Kind, bytes]:
    named, _, parameters = content_type.partition(";")
    media = named.strip().lower()
    if not body:
        return Kind.JSON, b"null"
    if media == "application/json" or media.endswith("+json"):
        return Kind.JSON, body
    if media.startswith("text/"):
        said = dict(part.strip().lower().partition("=")[::2] for part in parameters.split(";"))
        charset = said.get("charset", "utf-8").strip('"')
        try:
            if codecs.lookup(charset).name not in _OF_HOST_NAMES:
                return Kind.TEXT, body.decode(charset).encode()  # charsets alone: other codecs unpack, as bz2 does
        except (LookupError, ValueError):
            pass
    return Kind.BYTES, body


def refused(
    ref: AttemptRef, request: HttpRequest, status: int, phrase: str, location: str | None, body: bytes
) -> Answer:
    """What it answers with anything but 2xx is the job's failure, in its own words."""
    message = f"{request.method} {request.target[:200]} was answered with {status} {phrase[:80]}".rstrip()
    hint = None
    if location is not None and 300 <= status < 400:
        message += f", another place: {location[:200]}"
        hint = 'Redirections are not followed. Ask there: {"path": ...}, or for all jobs of the image: --path PATH'
    elif status in (404, 405):
        hint = 'Ask elsewhere: {"method": ..., "path": ...} as the payload, or for all jobs of the image: --path PATH'
    said = body[:QUOTED].decode("utf-8", "replace").strip()
    return failed(ref, message, f"HTTP {status}", hint, said or None)


def failed(
    ref: AttemptRef, message: str, type: str | None = None, hint: str | None = None, said: str | None = None
) -> Answer:
    return Answer(ref, Reason.HANDLER_ERROR, failure=Failure(as_text(message), type, said, hint))


def as_text(said: str) -> str:
    """What is no UTF-8 in the head of an answer comes as halves of characters, which nothing can send on."""
    return said.encode("utf-8", "replace").decode()
