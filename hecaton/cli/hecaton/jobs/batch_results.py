"""Results of a batch as JSON lines in input order, into a file that is continued where it stopped."""

from __future__ import annotations

import base64
import os
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import msgspec

from hecaton.core.errors import BadRequest, Conflict, JobFailed

if TYPE_CHECKING:
    from hecaton.client import BatchHandle
    from hecaton.wire.api import BatchResult


class Line(msgspec.Struct, omit_defaults=True):
    """`result`: what the handler returned (JSON or text), or `result_base64` for bytes; `error` when it did not."""

    index: int
    id: str
    state: str
    result: Any = msgspec.UNSET
    result_base64: str | None = None
    error: dict[str, Any] | None = None


def write(handle: BatchHandle, target: Path | None) -> int:
    """How many lines there are now. Conflict if the file holds something else; it is left as it was then."""
    if target is None:
        return _append(handle, sys.stdout.buffer, 0, None)
    try:
        with open(target, "a+b") as file:
            file.seek(0)
            count, last = _there(file, target)
            return _append(handle, file, count, last)
    except OSError as error:
        raise BadRequest(f"cannot write {target}: {error.strerror or error}", "Name another file.") from error


def require_fit(target: Path) -> None:
    """Conflict if the file is there and holds something else than results: said before there are any."""
    try:
        if target.is_file():
            with open(target, "rb") as file:
                _lines_there(file, target)
    except OSError as error:
        raise BadRequest(f"cannot read {target}: {error.strerror or error}", "Name another file.") from error


def _there(file: IO[bytes], target: Path) -> tuple[int, str | None]:
    """Lines of an earlier call, and the job of the last one. Half a line at the end is cut off."""
    count, last, end = _lines_there(file, target)
    file.truncate(end)
    return count, last


def _lines_there(file: IO[bytes], target: Path) -> tuple[int, str | None, int]:
    """Whole lines, the job of the last one, and where it ends."""
    end = count = 0
    last = None
    for line in file:
        if not line.endswith(b"\n"):
            break
        try:
            known = msgspec.json.decode(line, type=Line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            known = None
        if known is None or known.index != count:
            raise Conflict(
                f"{target}, line {count + 1} is no result of a batch: nothing was written", "Name another file."
            )
        count, last, end = count + 1, known.id, end + len(line)
    if end == 0 and file.seek(0, os.SEEK_END):
        raise Conflict(f"{target} holds something else: nothing was written", "Name another file.")
    return count, last, end


def _append(handle: BatchHandle, file: IO[bytes], count: int, last: str | None) -> int:
    start = max(0, count - 1)  # the last one again: it tells whether the file is of this batch
    for item in handle.items(ordered=True, after=start, wait=False):
        if item.index < count:
            if item.id != last:
                raise Conflict("the file holds the results of another batch: nothing was written", "Name another file.")
            continue
        file.write(msgspec.json.encode(_line(handle, item)) + b"\n")
        count += 1
    file.flush()
    return count


def _line(handle: BatchHandle, item: BatchResult) -> Line:
    line = Line(item.index, item.id, item.state)
    if item.result is not msgspec.UNSET or item.result_base64 is not None:
        line.result, line.result_base64 = item.result, item.result_base64
        return line
    try:
        value = handle.result_of(item)
    except JobFailed as error:
        failure = item.failure
        line.error = {
            "reason": error.reason,
            "message": failure.message if failure else error.message,
            "type": failure.type if failure else None,
            "traceback": error.traceback,
        }
        return line
    if isinstance(value, bytes):
        line.result_base64 = base64.b64encode(value).decode()
    else:
        line.result = value
    return line
