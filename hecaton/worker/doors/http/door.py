"""The door to a container whose own command is an HTTP server: it listens on 127.0.0.1 in the container, and the worker
connects to it there, through the container's network and no published port.

Nothing is believed: what is answered is bounded by the largest result, never followed elsewhere, never unpacked.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Self

import aiohttp
from yarl import URL

from hecaton.core.model import AttemptRef, Mode, Reason
from hecaton.serverless.protocol import IN_NAME
from hecaton.wire.channel import Assignment, FileRef
from hecaton.worker.doors.answers import too_large
from hecaton.worker.doors.channel_folder import ChannelFolder
from hecaton.worker.doors.door import Answer, Door, Kept, Known, Unready, Visitor
from hecaton.worker.doors.http.network import socket_factory
from hecaton.worker.doors.http.requests import HttpRequest, Unusable, as_text, failed, refused, request_of, result_of
from hecaton.worker.runtimes.port import Commands, Exit, RuntimeFault

SOON, LATER = 0.02, 0.5
"""Seconds between two questions whether it is ready: a server takes between 50 ms and minutes."""

ONE_LOOK = 5.0
"""Seconds for one of them."""

END_SECONDS = 1.0
"""After which a connection that broke off was no end of the container, which would say more."""

PRINT_SECONDS = 0.03
"""What it has printed up to its answer comes by the engine, some milliseconds later, and belongs into the job's log."""

MAX_ANSWER_HEAD = 64 * 1024
"""Bytes of a line of an answer's head, and of all of its lines."""

PIECE = 256 * 1024

_ENTER = "The worker reaches it in its network: run the worker as root, and beside the engine, not in a container."


class HttpDoor(Door):
    """One request at a time, each with a task of its own. `_namespace`: a descriptor of the container's network."""

    mode = Mode.HTTP
    begins_at_start = False
    prints_elsewhere = True
    nonce = None

    def __init__(self, job: Assignment, folder: ChannelFolder, visitor: Visitor, max_result: int) -> None:
        self._options = job.options
        self._image = job.image.name
        self._folder = folder.path
        self._visitor = visitor
        self._max_result = max_result
        self._namespace: int | None = None
        self._session: aiohttp.ClientSession | None = None
        self._readiness: asyncio.Task[None] | None = None
        self._serving: asyncio.Task[None] | None = None
        self._seen = f"nothing listened on its port {self._options.port}"

    @classmethod
    def of(cls, known: Known) -> Self:
        return cls(known.job, known.folder, known.visitor, known.max_result)

    @classmethod
    def files(cls, job: Assignment) -> tuple[FileRef, ...]:
        return ()

    def commands(self, job: Assignment, kept: Kept) -> Commands | None:
        return None

    def environment(self, job: Assignment) -> dict[str, str]:
        return {}

    async def open(self) -> None:
        """Nothing to do: it is the container that listens."""

    def started(self, handle: str) -> None:
        self._readiness = asyncio.get_running_loop().create_task(self._get_ready(handle))

    def adopted(self, handle: str) -> None:
        """A request that was on its way went with the process that had sent it."""
        self.started(handle)

    def give(self, job: Assignment, payload: bytes, file: str | None) -> None:
        self._serving = asyncio.get_running_loop().create_task(self._serve(job, payload, file))

    def give_ahead(self, jobs: Sequence[Assignment]) -> None:
        """It takes none."""

    def withdraw(self) -> tuple[AttemptRef, ...]:
        return ()

    def acknowledge(self, ref: AttemptRef) -> None:
        """It keeps nothing."""

    def unready(self, job: Assignment, entrypoint: Sequence[str]) -> Unready:
        return Unready(f"before it was ready: {self._seen}", self._hint())

    def ended(self, exit: Exit) -> Answer | None:
        return None

    async def close(self) -> None:
        for task in (self._readiness, self._serving):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        if self._session is not None:
            await self._session.close()
            self._session = None
        if self._namespace is not None:
            os.close(self._namespace)
            self._namespace = None

    # -- ready -----------------------------------------------------------------------------------------

    async def _get_ready(self, handle: str) -> None:
        """Until it is, or the brain's patience with the start ends: then `unready` has what was seen last. Who watches
        the job hears of it once that takes longer than a start does."""
        pause, said = SOON, ""
        while (seen := await self._look(handle)) is not None:
            if seen != self._seen:
                self._seen = seen
                self._visitor.gets_ready(self._hint())
            if pause == LATER and seen != said:
                said = seen
                self._visitor.waits(f"it is not ready: {seen}")
            await asyncio.sleep(pause)
            pause = min(2 * pause, LATER)
        self._visitor.asks_for_work((), False)

    async def _look(self, handle: str) -> str | None:
        """What is not as it has to be; None: it is ready."""
        port, target = self._options.port, self._options.ready
        try:
            session = await self._connected(handle)
            async with asyncio.timeout(ONE_LOOK):
                if target is None:
                    await self._knock(port)
                    return None
                async with session.get(self._url(target), allow_redirects=False) as answer:
                    return None if 200 <= answer.status < 300 else f"GET {target} was answered with {answer.status}"
        except TimeoutError:
            return f"it took more than {ONE_LOOK:g} s to answer on its port {port}"
        except PermissionError as error:
            return f"its network cannot be entered: {error.strerror}. {_ENTER}"
        except (ConnectionRefusedError, aiohttp.ClientConnectorError) as error:
            if isinstance(getattr(error, "os_error", None), PermissionError):
                return f"its network cannot be entered: {error.strerror}. {_ENTER}"
            return f"nothing listened on its port {port}"
        except (aiohttp.ClientError, ValueError) as error:
            return f"what listens on its port {port} speaks no HTTP: {_words(error)}"
        except (RuntimeFault, OSError) as error:
            return f"its network cannot be reached: {_words(error)}"

    async def _knock(self, port: int) -> None:
        """Whether it listens, without a request that would stand in its log."""
        if self._namespace is not None:
            with socket_factory(self._namespace)(None) as knocking:
                await asyncio.get_running_loop().sock_connect(knocking, ("127.0.0.1", port))

    def _hint(self) -> str:
        name = self._image
        return (
            f"It is not ready: {self._seen}. Port, and what says that it is ready, are the image's: "
            f"hecaton image update {name} --port PORT --ready PATH"
        )

    async def _connected(self, handle: str) -> aiohttp.ClientSession:
        if self._session is None:
            self._namespace = await self._visitor.network(handle)
            # A connection that is kept may be closed at the moment in which it is used again: a request would be lost.
            connector = aiohttp.TCPConnector(socket_factory=socket_factory(self._namespace), force_close=True)
            self._session = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(),
                auto_decompress=False,
                skip_auto_headers=("User-Agent",),
                max_line_size=MAX_ANSWER_HEAD,
                max_field_size=MAX_ANSWER_HEAD,
            )
        return self._session

    def _url(self, target: str) -> str:
        return f"http://127.0.0.1:{self._options.port}{target}"

    # -- work ------------------------------------------------------------------------------------------

    async def _serve(self, job: Assignment, payload: bytes, file: str | None) -> None:
        ref = job.ref
        try:
            if file is not None:
                payload = await asyncio.to_thread((self._folder / IN_NAME / file).read_bytes)
            request = request_of(job.payload.kind, payload, job.options.path)
            answer = await self._asked(ref, request)
            await asyncio.sleep(PRINT_SECONDS)
        except Unusable as error:
            answer = failed(ref, f"the payload makes no request: {error}")
        except (aiohttp.ClientError, ValueError, OSError) as error:
            await asyncio.sleep(END_SECONDS)  # it may be the container that has ended: then that is the job's end
            answer = failed(ref, f"it broke off, or does not speak HTTP: {_words(error)}", type(error).__name__)
        self._visitor.answers(answer)

    async def _asked(self, ref: AttemptRef, request: HttpRequest) -> Answer:
        if self._session is None:
            raise OSError("it is not connected")
        url = URL(self._url(request.target), encoded=True)
        headers = {"Accept-Encoding": "identity", **request.headers}
        async with self._session.request(
            request.method, url, headers=headers, data=request.body, allow_redirects=False
        ) as reply:
            body = bytearray()
            async for piece in reply.content.iter_chunked(PIECE):
                body += piece
                if len(body) > self._max_result:
                    return too_large(Answer(ref, Reason.OK), self._max_result)
            if 200 <= reply.status < 300:
                return result_of(ref, reply.headers.get("Content-Type", ""), bytes(body))
            return refused(ref, request, reply.status, reply.reason or "", reply.headers.get("Location"), bytes(body))


def _words(error: Exception) -> str:
    return as_text(str(error)[:300]) or type(error).__name__
