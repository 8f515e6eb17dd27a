"""One table: error class <-> code <-> HTTP status. The server writes by it, client and worker raise by it."""

from __future__ import annotations

import msgspec

from hecaton.core import errors
from hecaton.wire.decoding import decode


class ErrorBody(msgspec.Struct, frozen=True, omit_defaults=True):
    code: str
    message: str
    hint: str | None = None


class ErrorReply(msgspec.Struct, frozen=True):
    """The body of every reply with a status of 400 or more."""

    error: ErrorBody


STATUS: dict[type[errors.HecatonError], int] = {
    errors.BadRequest: 400,
    errors.Unauthenticated: 401,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.WrongMethod: 405,
    errors.Conflict: 409,
    errors.Fenced: 409,
    errors.TooLarge: 413,
    errors.NoUpgrade: 426,
    errors.TooMany: 429,
    errors.Unavailable: 503,
}

_BY_CODE: dict[str, type[errors.HecatonError]] = {errors.HecatonError.code: errors.HecatonError}
_BY_CODE.update((error.code, error) for error in STATUS)
_BY_STATUS = {status: error for error, status in reversed(STATUS.items())}


def to_reply(error: errors.HecatonError) -> tuple[int, ErrorReply]:
    return STATUS.get(type(error), 500), ErrorReply(ErrorBody(error.code, error.message, error.hint))


def from_reply(status: int, body: bytes, by: str | None = None) -> errors.HecatonError:
    """The error that a reply stands for. One that no Hecaton server wrote (HTML, nothing, half a JSON) says nothing
    about what was asked, and may pass: Unreachable, Unavailable or TooMany. `by`: its header `Server`."""
    try:
        reply = decode(body, ErrorReply).error
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _in_between(status, by)
    kind = _BY_CODE.get(reply.code) or _BY_STATUS.get(status, errors.Unavailable)
    return kind(reply.message, reply.hint)


def said_by_a_server(body: bytes) -> bool:
    """Whether a Hecaton server wrote this error reply, and not a proxy in between."""
    try:
        decode(body, ErrorReply)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return True


def from_status(status: int) -> errors.HecatonError:
    """The error of a server's answer to HEAD, which has no body."""
    kind = _BY_STATUS.get(status, errors.Unavailable if status >= 500 else errors.BadRequest)
    return kind(f"the server answered with status {status}")


def _in_between(status: int, by: str | None) -> errors.HecatonError:
    kind = errors.TooMany if status == 429 else errors.Unavailable if status >= 500 else errors.Unreachable
    named = f" (it calls itself {by[:60]!r})" if by else ""
    return kind(
        f"the answer has status {status} and is not from a Hecaton server{named}", _WHAT_TO_DO.get(status, _LOOK)
    )


_LOOK = "Something between here and the server answered instead: check the address and any proxy."
_ELSEWHERE = "A proxy in between sends elsewhere: use the address that it redirects to, or take it out of the way."
_WHAT_TO_DO = {
    **dict.fromkeys((301, 302, 303, 307, 308), _ELSEWHERE),
    401: "A proxy in between wants a login of its own: let the Hecaton server pass without.",
    403: "A proxy in between does not let this through: allow it there, or go past it with NO_PROXY.",
    404: "A proxy, or another program, answered: is the port right, and the path below which the server is, if any?",
    407: "The proxy wants a login: write it into its address, HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT.",
    413: "A proxy in between refuses bodies over a limit of its own (nginx: client_max_body_size): raise it to at "
    "least the server's --max-payload and --max-result.",
}

IN_NGINX = (
    "nginx, beside proxy_pass: proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; "
    'proxy_set_header Connection "upgrade";'
)
"""How a proxy that keeps back the Upgrade of the WebSocket is told to pass it on."""
