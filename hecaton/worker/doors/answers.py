"""From what a container answered to the body of a result: kept on disk where it is large, and checked.

What a container says is not believed: neither that a file is one, nor that JSON is.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable

import msgspec

from hecaton.core.model import Body, Failure, Kind, Reason
from hecaton.wire.channel import DIRECT_LIMIT
from hecaton.worker.doors.channel_folder import ChannelFolder, NotAPlainFile
from hecaton.worker.doors.door import Answer
from hecaton.worker.memory.spool import Spool, TooLong

DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})

RETRY = 1.0
"""Seconds until the next try while the disk is full: the container keeps the result meanwhile."""


def is_small(answer: Answer) -> bool:
    """Whether it travels in a message and needs no place on the disk first."""
    return answer.file is None and len(answer.data) <= DIRECT_LIMIT


async def stored(
    answer: Answer, folder: ChannelFolder | None, spool: Spool, limit: int, full: Callable[[], None]
) -> tuple[Answer, Body | None]:
    """Bring a result to the spool, however long the disk is full; `full` hears of each try that failed for that.

    A result that cannot be taken comes back with the reason, and without a body."""
    while True:
        try:
            return answer, await asyncio.to_thread(_keep, answer, folder, spool, limit)
        except TooLong:
            message = f"the result is larger than the {limit} bytes that the server takes"
            return _rejected(answer, Reason.RESULT_TOO_LARGE, message), None
        except NotAPlainFile as error:
            return _rejected(answer, Reason.RESULT_INVALID, str(error)), None
        except OSError as error:
            if error.errno not in DISK_FULL:
                return _rejected(answer, Reason.WORKER_ERROR, f"the worker could not store the result: {error}"), None
        full()
        await asyncio.sleep(RETRY)


def checked(answer: Answer, body: Body | None) -> tuple[Reason, Body | None, Failure | None]:
    """How the job ended."""
    if answer.reason is not Reason.OK or body is None:
        return answer.reason, None, answer.failure
    if answer.kind is Kind.JSON and body.blob is None:
        try:
            msgspec.json.decode(body.data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return Reason.RESULT_INVALID, None, Failure(f"the result is not JSON: {error}")
    return Reason.OK, body, answer.failure


def _keep(answer: Answer, folder: ChannelFolder | None, spool: Spool, limit: int) -> Body:
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
    if size > DIRECT_LIMIT:
        return Body(answer.kind, b"", sha256, size)
    return Body.inline(answer.kind, spool.result(answer.ref).read_bytes())


def _rejected(answer: Answer, reason: Reason, message: str) -> Answer:
    return msgspec.structs.replace(answer, reason=reason, failure=Failure(message))
