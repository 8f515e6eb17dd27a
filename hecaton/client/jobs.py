"""What takes longer than one request: waiting for a job, following it, fetching its result. All of it goes on over a
restart of the server. `JobHandle` is what `Client.submit` gives."""

from __future__ import annotations

import base64
import itertools
import os
import random
import secrets
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from hecaton.client.following import Following
from hecaton.client.heads import quoted
from hecaton.client.http import Transport, may_pass
from hecaton.core.errors import BadRequest, Conflict, HecatonError, JobFailed, NotFound, WaitTimeout
from hecaton.core.model import JobState, Kind, Reason
from hecaton.wire.api import API, BatchResult, FileView, JobEvent, JobView, Submitted
from hecaton.wire.decoding import decode

if TYPE_CHECKING:
    from hecaton.client.files.fetching import LocalFile

_random = random.SystemRandom()  # it has no state that forked children would share, nor one that a program seeds

LONG_POLL = 50.0
"""Seconds that one request waits: less than the server's limit of 60, and than the patience of most proxies."""

PACE = 0.5
"""Seconds at least between two requests of one wait, whatever the server answers."""


def path_of(job: str | int, part: str = "") -> str:
    """`job`: the id, or the short number."""
    return f"{API}/jobs/{quoted(str(job))}{part}"


def wait(
    transport: Transport, job: str | int, timeout: float | None = None, following: Following | None = None
) -> JobView:
    """The ended job. Raises WaitTimeout after `timeout` seconds (None: never). `following`: what is still to come of
    the answer to its submission."""
    if timeout is not None and not timeout >= 0:
        raise BadRequest(f"timeout is {timeout!r:.40}: expected seconds to wait", "None waits for ever.")
    deadline = time.monotonic() + timeout if timeout is not None else float("inf")
    view = following.ended(timeout) if following is not None else None
    if view is not None and view.state.terminal:
        return view
    while True:
        started = time.monotonic()
        step = max(0.0, min(LONG_POLL, deadline - started))
        within = step + min(transport.timeout, 10.0)
        try:
            view = transport.call("GET", path_of(job), JobView, query={"wait": round(step, 3)}, within=within)
        except HecatonError as error:
            if not goes_on(transport, error) or time.monotonic() >= deadline:
                raise
        else:
            if view.state.terminal:
                return view
            if time.monotonic() >= deadline:
                raise WaitTimeout(
                    f"job {view.index} ({view.id}) is still {view.state} after {timeout:g} s",
                    "It goes on. Wait again, or see what it does: hecaton job show " + str(view.index),
                )
        keep_pace(started, deadline)


def events(transport: Transport, job: str | int, offset: int = 0) -> Iterator[JobEvent]:
    """What happens to the job, live, up to and with the event "end". `offset`: bytes of the log to leave out.

    Reconnects by itself and takes the log up where it was.
    """
    attempt = 0
    told: JobEvent | None = None
    while True:
        started = time.monotonic()
        try:
            for number, event in enumerate(_connected(transport, job, offset)):
                if event.attempt > attempt:
                    # The log of another attempt begins at 0, which is not what was asked for if it began meanwhile.
                    misread = bool(attempt and offset and number == 0)
                    offset = 0 if attempt else offset
                    attempt = event.attempt
                    if misread:
                        break
                if event.event == "state" and event == told:
                    continue  # said again at each connect
                if event.event == "state":
                    told = event
                elif event.event == "log":
                    offset = event.offset
                yield event
                if event.event == "end":
                    return
        except HecatonError as error:
            if not goes_on(transport, error):
                raise
        keep_pace(started)


def _connected(transport: Transport, job: str | int, offset: int) -> Iterator[JobEvent]:
    for line in transport.lines(path_of(job, "/events"), {"offset": offset or None}):
        try:
            yield decode(line, JobEvent)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise HecatonError(
                f"{transport.address} sent an event that is none: {error}", "Is the server of another version?"
            ) from error


def read_log(transport: Transport, job: str | int, attempt: int | None = None) -> bytes:
    """As it was printed, byte for byte."""
    return transport.download(path_of(job, "/logs"), b"".join, {"attempt": attempt})


def goes_on(transport: Transport, error: HecatonError) -> bool:
    """A server that has answered before is expected back; one that never did is not."""
    return transport.reached and may_pass(error)


def keep_pace(started: float, deadline: float = float("inf")) -> None:
    now = time.monotonic()
    pause = started + PACE * _random.uniform(1.0, 1.5) - now
    time.sleep(max(0.0, min(pause, deadline - now)))


def ended(view: JobView) -> JobView:
    """The same job. Raises Conflict while it has not ended."""
    if not view.state.terminal:
        raise Conflict(f"job {view.index} ({view.id}) has no result yet: it is {view.state}", "Wait for it first.")
    return view


def outcome(transport: Transport, view: JobView) -> Any:
    """The result of an ended job as a Python value. Raises JobFailed for FAILED and CANCELLED."""
    if view.state is not JobState.FINISHED:
        raise failure(view)
    if view.result_kind is None:
        return None
    if view.removed:
        raise NotFound(f"job {view.index} ({view.id}): {view.removed}", "job.retry() computes it again.")
    if not has_result(view):
        return fetched(transport, view.id, view.result_kind)
    if view.result_base64 is not None:
        return base64.b64decode(view.result_base64)
    return decoded(view.id, Kind.JSON, bytes(view.result))  # a text is a string in it


def has_result(view: JobView) -> bool:
    """Whether the result came with its job: it does up to 1 MiB. A null may also stand for one that did not."""
    if bytes(view.result) != b"null" or view.result_base64 is not None:
        return True
    return view.result_kind is Kind.JSON and view.result_size == len(b"null")


def fetched(transport: Transport, job: str, kind: Kind) -> Any:
    """A result that is too large to come with its job."""
    return decoded(job, kind, transport.download(path_of(job, "/result"), b"".join))


def decoded(job: str, kind: Kind, data: bytes) -> Any:
    try:
        if kind is Kind.BYTES:
            return data
        return data.decode() if kind is Kind.TEXT else msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise HecatonError(
            f"the result of job {job} is not the {kind} that it is said to be: {error}",
            f"Client.download_result({job!r}, PATH) gives its bytes.",
        ) from error


def keeps_refused(view: JobView | BatchResult) -> bool:
    """Whether the job failed for what its handler returned, and that can be fetched."""
    gone = isinstance(view, JobView) and view.removed is not None
    return view.reason is Reason.RESULT_INVALID and view.result_kind is not None and not gone


def hint_of(view: JobView) -> str | None:
    """What to do about its failure. A worker does not know the number by which people call the job."""
    hint = None if view.failure is None else view.failure.hint
    return None if hint is None else hint.replace("hecaton retry JOB ", f"hecaton retry {view.index} ")


def failure(view: JobView) -> JobFailed:
    return job_failed(f"job {view.index} ({view.id})", view)


def job_failed(name: str, view: JobView | BatchResult) -> JobFailed:
    reason = view.reason or view.state.lower()
    why, hint, traceback = "", None, None
    if view.failure is not None:
        named = f"{view.failure.type}: " if view.failure.type else ""
        why, hint, traceback = f": {named}{view.failure.message}", view.failure.hint, view.failure.traceback
    if isinstance(view, JobView):
        hint = hint_of(view)
    if keeps_refused(view):
        job = view.index if isinstance(view, JobView) else view.id  # the index of an item is its place
        kept = f"What it returned is kept: hecaton job wait {job} -o FILE, or Client.download_result({job!r}, PATH)."
        hint = f"{hint}\n{kept}" if hint else kept
    error = JobFailed(
        f"{name} is {view.state} ({reason}){why}",
        hint,
        job_id=view.id,
        reason=reason,
        traceback=traceback,
    )
    if traceback:
        error.add_note(f"Traceback of the handler:\n{traceback.rstrip()}")
    return error


def download_result(transport: Transport, job: str | int, path: str | os.PathLike[str]) -> int:
    """The result's bytes into a file, which appears when it is complete. Gives the size. Memory stays flat."""
    # What a link points to is replaced, not the link.
    target = Path(os.path.realpath(path))
    return transport.download(path_of(job, "/result"), lambda pieces: _save(pieces, target))


def _save(pieces: Iterable[bytes], target: Path) -> int:
    try:
        if target.exists() and not target.is_file():  # a device or a pipe cannot be replaced, and a folder must not be
            with open(target, "wb") as file:
                return sum(map(file.write, pieces))
        new = target.with_name(f".{target.name[:200]}.{secrets.token_hex(4)}")
        try:
            with open(new, "xb") as file:
                size = sum(map(file.write, pieces))
            os.replace(new, target)
        except BaseException:
            new.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise BadRequest(f"cannot write {target}: {error.strerror or error}", "Name another file.") from error
    return size


class JobHandle:
    """A submitted job. Methods ask the server each time; they raise what `Client` raises."""

    def __init__(self, transport: Transport, submitted: Submitted, following: Following | None = None) -> None:
        self._transport = transport
        self._following = following
        self._questions = itertools.count()  # of all threads: whoever draws the 0 asks first
        self.id = submitted.id
        self.index = submitted.index
        self.duplicate = submitted.duplicate
        """The idempotency key was known: this is the job that it was used for first."""

    def __repr__(self) -> str:
        return f"<JobHandle {self.index} {self.id}>"

    def _asked(self) -> Transport:
        """For anything but its end."""
        if next(self._questions) == 0 and self._following is not None:
            self._following.leave()
        return self._transport

    def view(self) -> JobView:
        """Everything about the job as it is now."""
        return self._asked().call("GET", path_of(self.id), JobView)

    def status(self) -> JobState:
        return self.view().state

    def wait(self, timeout: float | None = None) -> JobView:
        """The ended job, however it ended. Raises WaitTimeout after `timeout` seconds."""
        first = next(self._questions) == 0
        if first:
            self._transport.follows = True
        return wait(self._transport, self.id, timeout, self._following if first else None)

    def result(self, timeout: float | None = None) -> Any:
        """What the handler returned. Raises JobFailed when there is none, WaitTimeout after `timeout` seconds."""
        return outcome(self._transport, self.wait(timeout))

    def cancel(self) -> JobView:
        return self._asked().call("POST", path_of(self.id, "/cancel"), JobView)

    def logs(self, attempt: int | None = None) -> str:
        """What the handler has printed in the last attempt, or in the one named. What is no UTF-8 in it is replaced."""
        return read_log(self._asked(), self.id, attempt).decode(errors="replace")

    def files(self) -> list[FileView]:
        """What it has put into /outputs, as `Client.files`."""
        from hecaton.client.files import fetching

        return [file for page in fetching.listed(self._asked(), self.id) for file in page.files]

    def get(
        self, folder: str | os.PathLike[str], pattern: str | None = None, *, overwrite: bool = False
    ) -> list[LocalFile]:
        """Bring them into a local folder, as `Client.get`."""
        from hecaton.client.files import fetching

        return fetching.get(self._asked(), self.index, folder, pattern, None, overwrite)

    def events(self, offset: int = 0) -> Iterator[JobEvent]:
        """What happens to the job, live, until it has ended."""
        return events(self._asked(), self.id, offset)
