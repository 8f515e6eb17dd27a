"""What stands in the heads of requests and answers: paths, queries, keys, tokens, dates."""

from __future__ import annotations

import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from urllib.parse import quote, unquote, urlencode

import msgspec

from hecaton.core import errors
from hecaton.wire.api import IDEMPOTENCY_HEADER, BatchView, JobView

CLOCKS_AGREE = 3.0
"""Seconds that may lie between our clock and the date of an answer: its own time on the way, and a second not full."""


def token_value(token: str) -> str:
    """Tokens come from files and environment variables: a line break at the end is no part of them."""
    token = token.strip()
    if not (token.isascii() and token.isprintable()):
        raise errors.Unauthenticated("the token holds characters that no token has", "Copy it again, or log in again.")
    return token


def quoted(name: str) -> str:
    """As a part of a path. BadRequest for what is not text."""
    try:
        return quote(name, safe="")
    except UnicodeEncodeError as error:
        raise errors.not_text(name) from error


def target(path: str, query: Mapping[str, object] | None) -> str:
    given = {name: value for name, value in (query or {}).items() if value is not None}
    return f"{path}?{urlencode(given, doseq=True)}" if given else path


Content = msgspec.Struct | Mapping[str, object] | bytes
"""Of a request: what is sent as JSON, or bytes as they are."""


def encoded(body: Content | None, key: str | None) -> tuple[bytes | None, dict[str, str]]:
    """A body, and what the head says of it. BadRequest for what is not text."""
    headers = {IDEMPOTENCY_HEADER: key} if key else {}
    if body is None:
        return None, headers
    if isinstance(body, bytes):
        headers["Content-Type"] = "application/octet-stream"
        return body, headers
    headers["Content-Type"] = "application/json"
    try:
        return msgspec.json.encode(body), headers
    except UnicodeEncodeError as error:
        raise errors.not_text(error.object) from error


def is_about(answer: object, path: str) -> bool:
    """Whether what names a job or a batch names the one that was asked for, by its id or short number."""
    if not isinstance(answer, JobView | BatchView):
        return True
    asked = unquote(path.split("/")[3]).lower()
    return asked == answer.id or asked.lstrip("0") == str(answer.index)


def ahead_of(date: str | None) -> float:
    """By the Date header of an answer, which counts whole seconds."""
    try:
        seconds = parsedate_to_datetime(date or "").timestamp() - time.time()
    except ValueError:
        return 0.0
    return seconds if abs(seconds) > CLOCKS_AGREE else 0.0


def seconds_of(retry_after: str | None) -> float:
    """Of a Retry-After header in seconds; its other form, a date, is not worth a clock that may be wrong."""
    try:
        return min(max(float(retry_after or 0), 0.0), 3600.0)
    except ValueError:
        return 0.0
