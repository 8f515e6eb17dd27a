"""Calls the user's handler, whatever its shape; what happens becomes an `Outcome`."""

from __future__ import annotations

import os
import sys
import types

from hecaton.serverless.job import ServerLessInput
from hecaton.serverless.kept import with_files
from hecaton.serverless.protocol import MAX_MESSAGE, MAX_TRACEBACK
from hecaton.serverless.values import MAX_DEPTH, NotJson, bounded, spelled, to_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from typing import Any, AsyncIterator, Awaitable, Callable, Iterator, NoReturn

    #: Takes each item of a generator handler: the item, its JSON, its index.
    OnItem = Callable[[Any, bytes, int], None]

_HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep


class TooLarge(Exception):
    """A result is larger than the worker takes."""

    def __init__(self, size: int, limit: int, more: str = "") -> None:
        super().__init__(f"the result has {more}{size} bytes, the limit is {limit} (max_result)")


class Refused(Exception):
    """A result is not JSON. `kept`: it as text, as far as it goes."""

    def __init__(self, fault: NotJson, kept: bytes) -> None:
        super().__init__(str(fault))
        self.fault = fault
        self.kept = kept


class Outcome:
    """How one call of a handler ended: a body, or a file of the user's that holds it, or an error."""

    __slots__ = ("body", "error", "kind", "source", "status")

    def __init__(self, status: str, kind: str, body: bytes = b"", source: str | None = None) -> None:
        self.status = status
        self.kind = kind
        self.body = body
        self.source = source
        self.error: dict[str, str] | None = None

    @classmethod
    def failed(cls, status: str, error: BaseException, kept: bytes = b"") -> Outcome:
        """`kept`: what the handler returned, as text for people: it is refused, and was computed all the same."""
        outcome = cls(status, "text" if kept else "json", kept)
        outcome.error = describe(error)
        return outcome


class Caller:
    """Calls one handler, again and again, in the calling thread."""

    def __init__(self, handler: Callable[[ServerLessInput], Any]) -> None:
        self._handler = handler
        self._loop: AbstractEventLoop | None = None

    def call(self, data: ServerLessInput, on_item: OnItem, max_result: int) -> Outcome:
        """Never raises: SystemExit, KeyboardInterrupt and the like of the handler's own making are its failures too.

        `max_result` (bytes) stops an endless generator; the size of any other result is the caller's to check.
        """
        pid = os.getpid()
        failure: BaseException | None = None
        try:
            outcome = self._call(data, on_item, max_result)
        except Refused as refused:
            outcome = Outcome.failed("result_invalid", refused.fault, refused.kept)
        except NotJson as error:
            outcome = Outcome.failed("result_invalid", error)
        except TooLarge as error:
            outcome = Outcome.failed("result_too_large", error)
        except BaseException as error:
            failure = error if os.getpid() != pid else None
            outcome = Outcome.failed("handler_error", error)
        if os.getpid() != pid:
            _leave_forked_child(failure)
        return outcome

    def _call(self, data: ServerLessInput, on_item: OnItem, max_result: int) -> Outcome:
        value = self._handler(data)
        # What was returned decides, not how the handler was declared: partials and callable objects work as well.
        if hasattr(type(value), "__await__"):
            value = self._run_async(_finish(value))
        if isinstance(value, types.GeneratorType):
            return Outcome("ok", "json", _collect(value, _Items(on_item, max_result)))
        if isinstance(value, types.AsyncGeneratorType):
            return Outcome("ok", "json", self._run_async(_collect_async(value, _Items(on_item, max_result))))
        if isinstance(value, (bytes, bytearray)):
            return Outcome("ok", "bytes", bytes(value))
        # A Path can only be returned by who has imported pathlib: do not import it to look.
        pathlib = sys.modules.get("pathlib")
        if pathlib is not None and isinstance(value, pathlib.Path):
            kept = with_files(value) if os.path.isdir(value) else None
            if kept is not None:
                return Outcome("ok", "json", to_json(kept))
            return Outcome("ok", "bytes", source=os.path.abspath(value))
        try:
            return Outcome("ok", "json", to_json(value))
        except NotJson as error:
            named = with_files(value)
            if named is not None:
                return Outcome("ok", "json", to_json(named))
            raise Refused(error, spelled(value)) from None

    def _run_async(self, work: Awaitable[Any]) -> Any:
        import asyncio

        if self._loop is None or self._loop.is_closed():
            # One loop for all jobs: a client or pool that belongs to it stays usable in the next job.
            self._loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self._loop)
        return self._loop.run_until_complete(work)


def describe(error: BaseException) -> dict[str, str]:
    """Type, message and traceback of an exception, for a frame; the traceback begins with the user's own code."""
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(error, (NotJson, TooLarge)):  # ours: the text says it all
        return {"type": kind.__qualname__, "message": bounded(str(error), MAX_MESSAGE), "traceback": ""}
    try:
        message = str(error)
    except Exception as second:
        message = f"(its message cannot be shown: {type(second).__name__})"
    return {
        "type": bounded(name, 200),
        "message": bounded(message, MAX_MESSAGE),
        "traceback": bounded(_format(error), MAX_TRACEBACK),
    }


def _format(error: BaseException) -> str:
    import traceback

    try:
        return "".join(traceback.format_exception(type(error), error, _user_frames(error)))
    except Exception as second:  # such as an exception whose __str__ raises what `traceback` does not expect
        return f"(the traceback cannot be shown: {type(second).__name__})"


def _user_frames(error: BaseException) -> types.TracebackType | None:
    """The traceback without the frames above the user's: ours and the event loop's."""
    asyncio = sys.modules.get("asyncio")
    skipped = [_HERE]
    if asyncio is not None and asyncio.__file__:
        skipped.append(os.path.dirname(asyncio.__file__) + os.sep)
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith(tuple(skipped)):
        frames = frames.tb_next
    return frames


def _leave_forked_child(failure: BaseException | None) -> NoReturn:
    """A handler has forked and this is the child on its way back: only the parent answers for the job."""
    code = 0
    try:
        if isinstance(failure, SystemExit):
            code = failure.code if isinstance(failure.code, int) else int(failure.code is not None)
        elif failure is not None:
            code = 1
            sys.stderr.write(_format(failure))
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code & 0xFF)


async def _finish(value: Awaitable[Any]) -> Any:
    return await value  # `run_until_complete` does not take every awaitable, a coroutine does


def _collect(generator: Iterator[Any], items: _Items) -> bytes:
    try:
        for item in generator:
            items.add(item)
    finally:
        generator.close()  # type: ignore[attr-defined]
    return items.json()


async def _collect_async(generator: AsyncIterator[Any], items: _Items) -> bytes:
    try:
        async for item in generator:
            items.add(item)
    finally:
        await generator.aclose()  # type: ignore[attr-defined]
    return items.json()


class _Items:
    """What a generator handler has yielded, as JSON: a list of Python objects would take many times the memory."""

    def __init__(self, on_item: OnItem, max_result: int) -> None:
        self._on_item = on_item
        self._max_result = max_result
        self._count = 0
        self._text = bytearray(b"[")

    def add(self, item: Any) -> None:
        try:
            encoded = to_json(item, f"$[{self._count}]", MAX_DEPTH - 1)
        except NotJson as error:
            between = b"," if self._count else b""
            raise Refused(error, bytes(self._text) + between + spelled(item) + b"]") from None
        if self._count:
            self._text += b","
        self._text += encoded
        if len(self._text) >= self._max_result:  # the closing bracket counts too
            raise TooLarge(len(self._text) + 1, self._max_result, "at least ")
        self._on_item(item, encoded, self._count)
        self._count += 1

    def json(self) -> bytes:
        return bytes(self._text + b"]")
