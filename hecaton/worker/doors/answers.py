"""From what a container answered to the body of a result: kept on disk where it is large, and checked.

What a container says is not believed: neither that a file is one, nor that JSON is. What is refused for what it says is
kept all the same: it was computed.
"""

from __future__ import annotations

import asyncio
import mmap
import os
from collections.abc import Callable

import msgspec

from hecaton.core.content import NAMES, advice_on, fault_of, kind_of_rest
from hecaton.core.model import Body, Failure, Reason
from hecaton.wire.channel import DIRECT_LIMIT
from hecaton.worker.doors.channel_folder import ChannelFolder, NotAPlainFile
from hecaton.worker.doors.door import Answer
from hecaton.worker.memory import disk
from hecaton.worker.memory.spool import Spool, TooLong

RETRY = 1.0
"""Seconds until the next try while the disk is full: the container keeps the result meanwhile."""


def is_small(answer: Answer) -> bool:
    """Whether it travels in a message and needs no place on the disk first."""
    return answer.file is None and len(answer.data) <= DIRECT_LIMIT


async def stored(
    answer: Answer, folder: ChannelFolder | None, spool: Spool, limit: int, full: Callable[[int], None]
) -> tuple[Answer, Body | None]:
    """Bring a result to the spool, however long the disk is full; `full` hears of each try that failed for that, and
    how many bytes found no room.

    A result that cannot be taken comes back with the reason, and without a body."""
    while True:
        try:
            return await asyncio.to_thread(_keep, answer, folder, spool, limit)
        except TooLong:
            return too_large(answer, limit), None
        except NotAPlainFile as error:
            return _rejected(answer, Reason.RESULT_INVALID, str(error)), None
        except OSError as error:
            if error.errno not in disk.ERRORS:
                return _rejected(answer, Reason.WORKER_ERROR, f"the worker could not store the result: {error}"), None
        full(len(answer.data))
        await asyncio.sleep(RETRY)


def judged(answer: Answer, is_full: Callable[[], bool]) -> Answer:
    """A handler that found no room for its result, or for what it prints, on a disk that is full did nothing wrong."""
    failure = answer.failure
    if answer.reason is not Reason.HANDLER_ERROR or failure is None or failure.type != "OSError":
        return answer
    if not any(words in failure.message for words in disk.IN_WORDS) or not is_full():
        return answer
    hint = "The worker's disk was full: the handler could not write its result, or what it printed."
    return msgspec.structs.replace(
        answer, reason=Reason.WORKER_ERROR, failure=msgspec.structs.replace(failure, hint=hint)
    )


def checked(answer: Answer, body: Body | None) -> tuple[Reason, Body | None, Failure | None]:
    """How the job ended. What came by way of `stored` as a blob is checked already."""
    # hot: benchmarks/throughput.py
    if body is None:
        return answer.reason, None, answer.failure
    if answer.reason is Reason.OK:
        fault = None if body.blob is not None else fault_of(body.kind, body.data)
        if fault is None:
            return Reason.OK, body, answer.failure
        answer = _invalid(answer, fault)
    if answer.reason is not Reason.RESULT_INVALID or not body.size:
        return answer.reason, None, answer.failure
    if body.blob is None:
        body = Body.inline(kind_of_rest(body.data), body.data)
    return answer.reason, body, answer.failure


def _keep(answer: Answer, folder: ChannelFolder | None, spool: Spool, limit: int) -> tuple[Answer, Body]:
    if answer.file is None or folder is None:
        if len(answer.data) > limit:
            raise TooLong(len(answer.data))
        sha256, size = spool.keep_bytes(answer.ref, answer.data)
    else:
        source = folder.open_result(answer.file)
        try:
            sha256, size = spool.keep_file(answer.ref, source, limit)
        finally:
            os.close(source)
    path = spool.result(answer.ref)
    if size <= DIRECT_LIMIT:
        return answer, Body.inline(answer.kind, path.read_bytes())
    kind = answer.kind
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
        memoryview(mapped) as whole,
    ):
        if answer.reason is Reason.OK and (fault := fault_of(kind, whole)) is not None:
            answer = _invalid(answer, fault)
        if answer.reason is not Reason.OK:
            kind = kind_of_rest(whole)
    return answer, Body(kind, b"", sha256, size)


def too_large(answer: Answer, limit: int) -> Answer:
    message = f"the result is larger than the {limit} bytes that the server takes"
    return _rejected(answer, Reason.RESULT_TOO_LARGE, message)


def _invalid(answer: Answer, fault: str) -> Answer:
    message = f"the result is not {NAMES[answer.kind]}: {fault}"
    return _rejected(answer, Reason.RESULT_INVALID, message, advice_on(fault))


def _rejected(answer: Answer, reason: Reason, message: str, hint: str | None = None) -> Answer:
    return msgspec.structs.replace(answer, reason=reason, failure=Failure(message, hint=hint))
