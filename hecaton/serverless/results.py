"""Gets a result out of the container: as a frame's body when it is small, as a file in the worker's `out/` when not."""

from __future__ import annotations

import os
import stat

from hecaton.serverless.calling import Outcome, TooLarge
from hecaton.serverless.protocol import MAX_INLINE
from hecaton.serverless.values import NotJson

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Iterator

_PIECE = 1 << 20


def pack(outcome: Outcome, folder: str, name: str, max_result: int) -> tuple[Outcome, str | None]:
    """The outcome with its body in memory, or with the name of the file in `folder` that holds it.

    A result that is too large, or cannot be read or written, becomes a failed outcome; then no file is left behind.
    """
    packed, file = _packed(outcome, folder, name, max_result)
    if outcome.error is None:
        return packed, file
    if packed is not outcome:  # what is kept of a refused result is in the file, or nowhere; why it is refused stays
        outcome.body = b""
    return outcome, file


def _packed(outcome: Outcome, folder: str, name: str, max_result: int) -> tuple[Outcome, str | None]:
    try:
        size = _size_of_file(outcome.source) if outcome.source is not None else len(outcome.body)
        if size > max_result:
            raise TooLarge(size, max_result)
        if size > MAX_INLINE:
            _write(os.path.join(folder, name), pieces(outcome), max_result)
            return Outcome("ok", outcome.kind), name
        if outcome.source is not None:
            # `size` is what was seen before: a file that has grown since must not make the frame too long
            return Outcome("ok", outcome.kind, _head(outcome.source, MAX_INLINE)), None
        return outcome, None
    except TooLarge as error:
        return Outcome.failed("result_too_large", error), None
    except NotJson as error:
        return Outcome.failed("result_invalid", error), None
    except OSError as error:
        return Outcome.failed("handler_error", error), None


def pieces(outcome: Outcome) -> Iterator[bytes]:
    """The bytes of a result, wherever they are. Raises NotJson when the file that a handler named is none, OSError."""
    if outcome.source is None:
        yield outcome.body
        return
    _size_of_file(outcome.source)
    with open(outcome.source, "rb") as file:
        piece = file.read(_PIECE)
        while piece:
            yield piece
            piece = file.read(_PIECE)


def _size_of_file(path: str) -> int:
    """Size in bytes. Asked before the file is opened: opening a FIFO would wait for ever."""
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        raise NotJson(f"the handler returned the path {path}, which cannot be read: {error}") from None
    if not stat.S_ISREG(status.st_mode):
        raise NotJson(f"the handler returned the path {path}, which is not a file (a folder must be packed first)")
    return status.st_size


def _head(path: str, count: int) -> bytes:
    with open(path, "rb") as file:
        return file.read(count)


def _write(path: str, parts: Iterator[bytes], limit: int) -> None:
    """Write a new file of at most `limit` bytes. Raises TooLarge, OSError; then the file is gone again."""
    written = 0
    try:
        with open(path, "wb") as file:
            for part in parts:
                written += len(part)
                if written > limit:  # the source grows while it is read
                    raise TooLarge(written, limit, "at least ")
                file.write(part)
    except BaseException:
        if os.path.lexists(path):
            os.unlink(path)
        raise
