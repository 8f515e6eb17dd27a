"""One tree of errors, raised where the fault is known; `wire.errors` has the table of codes and HTTP statuses.

    HecatonError
    ├── BadRequest        the request makes no sense
    ├── Unauthenticated   no token, or one that does not hold
    ├── Forbidden         known, but not allowed
    ├── NotFound          no such job, image, user, worker (also: not yours)
    ├── WrongMethod       the address is right, the method is not one of its own
    ├── NoUpgrade         the workers' connection is asked for without its Upgrade
    ├── Conflict          clashes with what is there
    ├── Fenced            said under an attempt that is no longer the current one
    ├── TooLarge          payload, result or upload over its limit
    ├── TooMany           over a rate or a quota: try again later
    ├── Unavailable       the server cannot do it now: disk full, shutting down
    ├── Unreachable       no server answered (client and worker only)
    ├── WaitTimeout       the job goes on, the wait is over: a TimeoutError, too (client only)
    └── JobFailed         the job ended without a result (client only)

The message says what happened and to which object; `hint` says what to do next.
"""

from __future__ import annotations


class HecatonError(Exception):
    code = "error"

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class BadRequest(HecatonError):
    code = "bad_request"


def not_text(value: str) -> BadRequest:
    """Of bytes that an operating system takes in names and arguments."""
    return BadRequest(f"{value[:200]!a} holds bytes that are not UTF-8: names and arguments are text", "Rename it.")


class Unauthenticated(HecatonError):
    code = "unauthenticated"


class Forbidden(HecatonError):
    code = "forbidden"


class NotFound(HecatonError):
    code = "not_found"


class WrongMethod(HecatonError):
    """`allowed`: the methods that there are."""

    code = "wrong_method"

    def __init__(self, message: str, hint: str | None = None, allowed: tuple[str, ...] = ()) -> None:
        super().__init__(message, hint)
        self.allowed = allowed


class NoUpgrade(HecatonError):
    code = "no_upgrade"


class Conflict(HecatonError):
    code = "conflict"


class Fenced(HecatonError):
    code = "fenced"


class TooLarge(HecatonError):
    code = "too_large"


class TooMany(HecatonError):
    code = "too_many"

    def __init__(self, message: str, hint: str | None = None, retry_after: float = 1.0) -> None:
        super().__init__(message, hint)
        self.retry_after = retry_after


class Unavailable(HecatonError):
    """`where`: the path at fault. In `str()`, for this machine's own log; never in the message, which others get."""

    code = "unavailable"

    def __init__(self, message: str, hint: str | None = None, where: object = None) -> None:
        super().__init__(message, hint)
        self.where = where

    def __str__(self) -> str:
        text = self.message if self.where is None else f"{self.message}: {self.where}"
        return f"{text}\n{self.hint}" if self.hint else text


class Unreachable(HecatonError):
    code = "unreachable"


class WaitTimeout(HecatonError, TimeoutError):
    code = "wait_timeout"


class JobFailed(HecatonError):
    """Raised by `result()` for FAILED and CANCELLED jobs; `reason` is a `core.model.Reason` value, `traceback` that of
    the handler if it raised."""

    code = "job_failed"

    def __init__(
        self,
        message: str,
        hint: str | None = None,
        *,
        job_id: str = "",
        reason: str = "",
        traceback: str | None = None,
    ) -> None:
        super().__init__(message, hint)
        self.job_id = job_id
        self.reason = reason
        self.traceback = traceback
