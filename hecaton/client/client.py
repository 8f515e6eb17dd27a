"""The SDK: one typed method per endpoint. Whatever goes wrong is raised as an error of `hecaton.core.errors`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from hecaton.client import batches as batch_calls
from hecaton.client import jobs as job_calls
from hecaton.client import profiles, submission
from hecaton.client.batches import BatchHandle, Progress
from hecaton.client.heads import quoted
from hecaton.client.http import Transport
from hecaton.client.jobs import JobHandle, path_of
from hecaton.core.doors import DEFAULT
from hecaton.core.errors import BadRequest, NotFound, Unauthenticated
from hecaton.core.model import JobState, Mode, Role
from hecaton.core.options import OPTIONS, Defaults, DefaultsChange, checked
from hecaton.wire import api
from hecaton.wire.api import API
from hecaton.wire.usage import Clear, Cleared, Usage

Choice = TypeVar("Choice", Role, Mode, JobState)


class Client:
    """A connection to one server. Thread-safe; connects with the first call.

        with Client("localhost:8181", token) as client:
            job = client.submit("my/image", {"prompt": "a cat"})
            print(job.result(timeout=600))

    `address`: with or without scheme; without one TLS is tried first, and a fall-back to plain HTTP gives a warning.
    `ca_file`: what to trust instead of the system's CAs (also: HECATON_CA_FILE). `timeout`: seconds for one call, its
    retries included; uploads, downloads and waits take as long as they need, but not as long without a sign of life.
    `patient`: a server that cannot be connected to may be restarting, and is tried again for some seconds.
    `uploading`: called while a file is uploaded, with its name, the bytes sent up to now, and its size.

    Every method raises Unreachable when no server answers, Unauthenticated when the token does not hold, Forbidden
    when the role does not suffice, and NotFound, Conflict or BadRequest by what was asked.
    """

    def __init__(
        self,
        address: str,
        token: str | None = None,
        *,
        ca_file: str | os.PathLike[str] | None = None,
        timeout: float = 30.0,
        patient: bool = True,
        uploading: Callable[[str, int, int], None] | None = None,
    ) -> None:
        self._transport = Transport(address, token, ca_file=ca_file, timeout=timeout, patient=patient)
        self._transport.uploading = uploading

    @classmethod
    def from_profile(cls, name: str | None = None, *, token: str | None = None, timeout: float = 30.0) -> Client:
        """The server that `hecaton server new` registered as `name`, by default the active one, with its token."""
        profile = profiles.get(name) if name is not None else profiles.active()
        if profile is None:
            raise NotFound(
                "no server is active",
                "Register one: hecaton server new --ip HOST:8181 --name NAME, or choose one: hecaton server connect "
                "NAME",
            )
        return cls(profile.url, token or profile.token, ca_file=profile.ca_file, timeout=timeout)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections, for good."""
        self._transport.close()

    # -- server and login ----------------------------------------------------------------------

    def health(self) -> api.Health:
        """Needs no token."""
        return self._transport.call("GET", "/healthz", api.Health)

    def server_info(self) -> api.ServerInfo:
        """Version and limits of the server, and who this client is there."""
        return self._transport.call("GET", f"{API}/server", api.ServerInfo)

    def login(self, username: str, password: str) -> api.Token:
        """Get a token and use it from now on."""
        token = self._transport.call("POST", f"{API}/login", api.Token, api.Login(username, password))
        self._transport.token = token.token
        return token

    # -- users (admins) ------------------------------------------------------------------------

    def create_user(self, username: str, password: str, role: Role | str = Role.USER) -> api.UserView:
        body = api.NewUser(username, password, _member(Role, role))
        return self._transport.call("POST", f"{API}/users", api.UserView, body)

    def users(self) -> list[api.UserView]:
        return self._transport.call("GET", f"{API}/users", list[api.UserView])

    def delete_user(self, username: str) -> None:
        self._transport.command("DELETE", _path("users", username))

    def set_password(self, username: str, password: str, old_password: str | None = None) -> None:
        """Users may change their own, with the old one, and admins everybody's. Forbidden if the old one is wrong."""
        body = api.NewPassword(password, old_password)
        self._transport.command("PUT", _path("users", username) + "/password", body)

    # -- usage ---------------------------------------------------------------------------------

    def usage(self) -> Usage:
        """What this user has stored and waiting, and may have."""
        return self._transport.call("GET", f"{API}/usage", Usage)

    def usage_by_user(self) -> list[Usage]:
        """Of everybody, the largest first. For admins."""
        return self._transport.call("GET", f"{API}/usage/users", list[Usage])

    def clear(self, older_than: float, username: str | None = None) -> Cleared:
        """Remove jobs that ended more than `older_than` seconds ago, with payloads, results and logs. `username`:
        whose, for admins. TimeoutError is no end: what is left goes with the next call."""
        return self._transport.call("POST", f"{API}/usage/clear", Cleared, Clear(older_than, username))

    # -- images --------------------------------------------------------------------------------

    def add_image(
        self, name: str, description: str = "", verify: bool = True, *, defaults: Defaults | None = None
    ) -> api.ImageView:
        """Register an image. `verify`: ask its registry whether it exists; `warning` of the answer says why that was
        not possible. `defaults`: options for its jobs that ask for nothing else (`startup_timeout`)."""
        new = api.NewImage(name, description, verify, defaults or {})
        return self._transport.call("POST", f"{API}/images", api.ImageView, new)

    def images(self) -> list[api.ImageView]:
        return self._transport.call("GET", f"{API}/images", list[api.ImageView])

    def image(self, name: str) -> api.ImageView:
        return self._transport.call("GET", _path("images", name), api.ImageView)

    def update_image(
        self, name: str, *, env: Mapping[str, str] | None = None, description: str | None = None,
        refresh: bool = False, defaults: DefaultsChange | None = None,
    ) -> api.ImageView:  # fmt: skip
        """What is not given stays. `env` replaces the whole environment; `refresh` resolves the tag again; of
        `defaults`, options for jobs that ask for nothing else, None takes one back."""
        change = api.ImageChange(dict(env) if env is not None else None, description, refresh, defaults)
        return self._transport.call("PATCH", _path("images", name), api.ImageView, change)

    def delete_image(self, name: str) -> None:
        self._transport.command("DELETE", _path("images", name))

    # -- workers -------------------------------------------------------------------------------

    def add_worker(self, name: str) -> api.WorkerCredentials:
        """Register a worker; its token is shown this once. `hecaton-gpu` does this by itself."""
        return self._transport.call("POST", f"{API}/workers", api.WorkerCredentials, api.NewWorker(name))

    def drain_worker(self, name: str) -> api.WorkerView:
        """It finishes what it runs and gets nothing new, until undrained."""
        return self._transport.call("POST", _path("workers", name) + "/drain", api.WorkerView)

    def undrain_worker(self, name: str) -> api.WorkerView:
        """Ends a drain or a quarantine."""
        return self._transport.call("POST", _path("workers", name) + "/undrain", api.WorkerView)

    def workers(self) -> list[api.WorkerView]:
        return self._transport.call("GET", f"{API}/workers", list[api.WorkerView])

    def remove_worker(self, name: str) -> None:
        """`name`: of the worker, or its id."""
        self._transport.command("DELETE", _path("workers", name))

    # -- jobs ----------------------------------------------------------------------------------

    def submit(
        self,
        image: str,
        input: Any = None,
        *,
        payload: bytes | None = None,
        payload_file: str | os.PathLike[str] | None = None,
        mode: Mode | str = Mode.NATIVE,
        file: str | os.PathLike[str] | None = None,
        args: Sequence[str] = (),
        key: str | None = None,
        name: str | None = None,
        tags: Mapping[str, str] | None = None,
        **options: Any,
    ) -> JobHandle:
        """Submit a job; the answer means that it is stored durably.

        At most one of `input` (a JSON value), `payload` and `payload_file`. Bytes and files that parse as JSON reach
        the handler as that value, other UTF-8 as `str`, anything else as `bytes`. Over 1 MiB they are uploaded first,
        in pieces, and only if the server does not have them yet.

        mode, file, args: "handler" runs the local handler file `file` in the image's Python, "script" the script
            `file` with `args`; "native" what is in the image.
        key: idempotency key: submitting again with the same one gives the first job. By default a fresh one, so that
            the retries of this call never make two jobs.
        name, tags: what you call it, and by what else you will look for it.
        options: what else may be asked of a job, by name. Defaults to nothing of it:
        """
        request = submission.new_job(image, mode=_member(Mode, mode), file=file, args=args, options=options)
        request = submission.labelled(request, name, tags)
        request = submission.with_payload(self._transport, request, input, payload, payload_file)
        if file is not None:
            request = submission.with_file(self._transport, request, file)
        return JobHandle(self._transport, submission.send(self._transport, request, key))

    def job(self, job: str | int, wait: float = 0) -> api.JobView:
        """A job by its id or short number. `wait`: seconds (at most 60) to wait for its end first."""
        query = {"wait": wait} if wait else None
        return self._transport.call(
            "GET", path_of(job), api.JobView, query=query, within=self._transport.timeout + min(wait, 60.0)
        )

    def jobs(
        self,
        state: JobState | str | None = None,
        limit: int = 50,
        before: str | None = None,
        *,
        name: str | None = None,
        tag: str | None = None,
    ) -> api.JobPage:
        """Newest first. `before`: `next` of the page before. `name`, `tag` (`key=value`): those alone that have it."""
        chosen = _member(JobState, state) if state is not None else None
        query = {"state": chosen, "limit": limit, "before": before, "name": name, "tag": tag}
        return self._transport.call("GET", f"{API}/jobs", api.JobPage, query=query)

    def wait(self, job: str | int, timeout: float | None = None) -> api.JobView:
        """The ended job, however it ended. Goes on over a restart of the server. Raises WaitTimeout after `timeout`
        seconds."""
        return job_calls.wait(self._transport, job, timeout)

    def result(self, job: str | int | api.JobView) -> Any:
        """What the handler of an ended job returned: a JSON value, `str` or `bytes`. Raises JobFailed when the job
        failed or was cancelled, Conflict while it has not ended."""
        view = job if isinstance(job, api.JobView) else self.job(job)
        return job_calls.outcome(self._transport, job_calls.ended(view))

    def download_result(self, job: str | int, path: str | os.PathLike[str]) -> int:
        """The result's bytes into a file, which appears when it is complete; its size."""
        return job_calls.download_result(self._transport, job, path)

    def cancel(self, job: str | int) -> api.JobView:
        return self._transport.call("POST", path_of(job, "/cancel"), api.JobView)

    def retry(self, job: str | int, key: str | None = None, **options: Any) -> JobHandle:
        """An ended job once more, as a new job. `key`: as in `submit`; `options`: those that are to be others."""
        checked(options)
        made = self._transport.call(
            "POST", path_of(job, "/retry"), api.Submitted, options or None,
            key=submission.checked_key(key),
        )  # fmt: skip
        return JobHandle(self._transport, made)

    def logs(self, job: str | int, attempt: int | None = None) -> bytes:
        """What the handler has printed up to now in the last attempt, or in the one named."""
        return job_calls.read_logs(self._transport, job, attempt)

    def events(self, job: str | int, offset: int = 0) -> Iterator[api.JobEvent]:
        """What happens to a job, live, up to and with the event "end". Goes on over a restart of the server.

        `offset`: bytes of the log to leave out."""
        return job_calls.events(self._transport, job, offset)

    # -- batches -------------------------------------------------------------------------------

    def submit_many(
        self,
        image: str,
        inputs: Iterable[Any],
        *,
        name: str = "",
        key: str | None = None,
        pause: bool = True,
        **options: Any,
    ) -> BatchHandle:
        """One durable batch with a job for each of `inputs` (JSON values), which are sent in chunks as they come.

        key: idempotency key: called again with the same one and the same inputs, it goes on where it was cut off.
        pause: hand out no more when the first 20 jobs to end have all failed alike.
        options: mode, file, args, tags and all options of `submit`.
        """
        items = (batch_calls.item_of(self._transport, value) for value in inputs)
        return self.submit_items(image, items, name=name, key=key, pause=pause, **options)

    def submit_items(
        self,
        image: str,
        items: Iterable[api.BatchItem],
        *,
        name: str = "",
        key: str | None = None,
        pause: bool = True,
        **options: Any,
    ) -> BatchHandle:
        """As `submit_many`, with payloads as they travel: text, base64 and uploads beside JSON."""
        head = self._batch_head(image, name, pause, options)
        return batch_calls.submit(self._transport, head, items, key)

    def item(self, path: str | os.PathLike[str]) -> api.BatchItem:
        """A payload file for `submit_items`."""
        return submission.with_payload(self._transport, api.BatchItem(), None, None, path)

    def item_of_bytes(self, data: bytes) -> api.BatchItem:
        """Bytes for `submit_items`, by the rule for payloads."""
        return submission.with_payload(self._transport, api.BatchItem(), None, data, None)

    def map(
        self,
        image: str,
        inputs: Iterable[Any],
        *,
        ordered: bool = True,
        window: int = 1000,
        return_exceptions: bool = False,
        progress: Progress | None = None,
        name: str = "",
        **options: Any,
    ) -> Iterator[Any]:
        """What the handler makes of each input, in input order or (`ordered=False`) as it comes.

        At most `window` inputs are on the way, sent or not yet taken from this iterator: inputs may be endless, and
        slow use of the results slows the inputs down. An item that failed raises JobFailed, or with
        `return_exceptions` is given as that error. When the iteration ends early, what is left is cancelled.

        progress: called with how many have ended and how many were submitted. options: as in `submit_many`.
        """
        if window < 1:
            raise BadRequest(f"window is {window}: at least 1 has to be on the way")
        head = self._batch_head(image, name, False, options)
        return batch_calls.map_inputs(
            self._transport, head, inputs,
            ordered=ordered, window=window, return_exceptions=return_exceptions, progress=progress,
        )  # fmt: skip

    def _batch_head(self, image: str, name: str, pause: bool, options: dict[str, Any]) -> api.NewBatch:
        mode, file = _member(Mode, options.pop("mode", DEFAULT)), options.pop("file", None)
        tags = options.pop("tags", None)
        request = submission.new_job(image, mode=mode, file=file, args=options.pop("args", ()), options=options)
        if file is not None:
            request = submission.with_file(self._transport, request, file)
        return batch_calls.head_of(submission.labelled(request, None, tags), name, pause=pause)

    def batch(self, batch: str | int) -> BatchHandle:
        """A batch by its id or short number. NotFound."""
        view = self._transport.call("GET", batch_calls.path_of(batch), api.BatchView)
        return BatchHandle(self._transport, view.id, view.index)

    def batches(self, limit: int = 50, before: int | None = None) -> list[api.BatchView]:
        """Newest first. `before`: index of the last one of the page before."""
        query = {"limit": limit, "before": before}
        return self._transport.call("GET", f"{API}/batches", list[api.BatchView], query=query)

    def now(self) -> float:
        """The time by the server's clock, as far as an answer has told it: ages of jobs count by that one."""
        return time.time() + (self._transport.clock_ahead or 0.0)

    @property
    def away_since(self) -> float | None:
        """Since when the server has not answered, by `time.monotonic`; None: it does. Calls and waits go on trying."""
        return self._transport.away_since

    @property
    def token(self) -> str:
        """The token in use. Raises Unauthenticated when there is none."""
        if self._transport.token is None:
            raise Unauthenticated("this client is not logged in", "Client.login(username, password)")
        return self._transport.token


def _path(noun: str, name: str) -> str:
    """Names of images hold slashes and colons: they travel percent-encoded."""
    if name in ("", ".", ".."):
        raise BadRequest(f"{name!r} names nothing in {noun}")
    return f"{API}/{noun}/{quoted(name)}"


def _member(kind: type[Choice], value: Choice | str) -> Choice:
    try:
        return kind(value)
    except ValueError:
        raise BadRequest(f"{value!r} is no {kind.__name__.lower()}", f"One of: {', '.join(kind)}") from None


def _explain_options() -> None:
    """For `help(Client.submit)`: what may be asked stands in one table."""
    lines = (f"            {name}: {o.help} {o.expected.capitalize()}." for name, o in OPTIONS.items())
    Client.submit.__doc__ = "\n".join((str(Client.submit.__doc__).rstrip(), *lines, "        "))


_explain_options()
