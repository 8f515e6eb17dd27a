"""One table: error class <-> code <-> HTTP status. The server writes by it, client and worker raise by it."""

from __future__ import annotations

import msgspec

from hecaton.core import errors


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
    errors.Conflict: 409,
    errors.Fenced: 409,
    errors.TooLarge: 413,
    errors.TooMany: 429,
    errors.Unavailable: 503,
}

_BY_CODE: dict[str, type[errors.HecatonError]] = {errors.HecatonError.code: errors.HecatonError}
_BY_CODE.update((error.code, error) for error in STATUS)
_BY_STATUS = {status: error for error, status in reversed(STATUS.items())}


def to_reply(error: errors.HecatonError) -> tuple[int, ErrorReply]:
    return STATUS.get(type(error), 500), ErrorReply(ErrorBody(error.code, error.message, error.hint))


def from_reply(status: int, body: bytes) -> errors.HecatonError:
    """The error that a reply stands for, also when a proxy in between wrote it (HTML, nothing, half a JSON)."""
    try:
        reply = msgspec.json.decode(body, type=ErrorReply).error
    except (msgspec.DecodeError, UnicodeDecodeError):
        kind = _BY_STATUS.get(status, errors.Unavailable if status >= 500 else errors.BadRequest)
        return kind(
            f"the answer has status {status} and is not from a Hecaton server",
            "Something between here and the server answered instead: check the address and any proxy.",
        )
    kind = _BY_CODE.get(reply.code) or _BY_STATUS.get(status, errors.Unavailable)
    return kind(reply.message, reply.hint)
