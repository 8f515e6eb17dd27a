"""One job: submit it, look at it, wait for it, fetch what it made."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hecaton.client import jobs as job_calls
from hecaton.client import submission
from hecaton.client.files import fetching
from hecaton.client.files.fetching import LocalFile
from hecaton.client.files.sending import SentFolder, send, with_folder
from hecaton.client.files.snapshot import Snapshot
from hecaton.client.jobs import JobHandle, path_of
from hecaton.client.nouns.calls import Calls, member
from hecaton.core.model import JobState, Mode
from hecaton.core.options import OPTIONS, checked
from hecaton.wire import api
from hecaton.wire.api import API


class JobCalls(Calls):
    """Part of `Client`."""

    def submit(
        self,
        image: str | None = None,
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
        workdir: str | os.PathLike[str] | SentFolder | None = None,
        **options: Any,
    ) -> JobHandle:
        """Submit a job; the answer means that it is stored durably.

        At most one of `input` (a JSON value), `payload` and `payload_file`. Bytes and files that parse as JSON reach
        the handler as that value, other UTF-8 as `str`, anything else as `bytes`. Over 1 MiB they are uploaded first,
        in pieces, and only if the server does not have them yet.

        image: None is the server's default one.
        mode, file, args: "handler" runs the local handler file `file` in the image's Python, "script" the script
            `file` with `args`; "native" what is in the image.
        key: idempotency key: submitting again with the same one gives the first job. By default a fresh one, so that
            the retries of this call never make two jobs.
        name, tags: what you call it, and by what else you will look for it.
        workdir: a folder that goes along, without what its .gitignore and .hecatonignore leave out; only what the
            server lacks travels. Or what `send_folder` gave.
        options: what else may be asked of a job, by name. Defaults to nothing of it:
        """
        request = submission.new_job(image, mode=member(Mode, mode), file=file, args=args, options=options)
        request = submission.labelled(request, name, tags)
        request = submission.with_payload(self._transport, request, input, payload, payload_file)
        if file is not None:
            request = submission.with_file(self._transport, request, file)
        if workdir is not None:
            request = with_folder(self._transport, request, workdir)
        return JobHandle(self._transport, *submission.send(self._transport, request, key))

    def send_folder(self, folder: str | os.PathLike[str] | Snapshot, exclude: Sequence[str] = ()) -> SentFolder:
        """A folder as it is now (or as `client.files.snapshot` found it), for `submit(workdir=)`. `exclude`: what else
        is left out, in the words of .gitignore. BadRequest where a file changes meanwhile."""
        return send(self._transport, folder, exclude)

    def run(self, image: str | None = None, input: Any = None, *, wait: float | None = None, **asked: Any) -> Any:
        """Submit a job, wait for its end, and give what the handler returned, all in one round trip.

        The same as `submit(image, input, **asked).result(wait)`: `asked` is what `submit` takes, `wait` the seconds
        after which WaitTimeout is raised. Raises JobFailed when there is no result; its `job_id` says of which job."""
        return self.submit(image, input, **asked).result(wait)

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
        tags: Mapping[str, str] | None = None,
        whose: api.Whose | str | None = None,
    ) -> api.JobPage:
        """Newest first. `before`: `next` of the page before. `name`, `tags`: those alone that have it, and all of
        these. `whose`: "mine", or "all", which are an admin's to see; by default all that one may see."""
        chosen = member(JobState, state) if state is not None else None
        tagged = [f"{key}={value}" for key, value in (tags or {}).items()]
        asked = member(api.Whose, whose) if whose is not None else None
        query = {
            "whose": asked, "state": chosen, "limit": limit, "before": before, "name": name, "tag": tagged,
        }  # fmt: skip
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

    def logs(self, job: str | int, attempt: int | None = None) -> str:
        """What the handler has printed up to now in the last attempt, or in the one named. What is no UTF-8 in it is
        replaced; `download_log` gives the bytes."""
        return self.download_log(job, attempt).decode(errors="replace")

    def download_log(self, job: str | int, attempt: int | None = None) -> bytes:
        """As `logs`, byte for byte."""
        return job_calls.read_log(self._transport, job, attempt)

    def files(self, job: str | int, attempt: int | None = None) -> list[api.FileView]:
        """What a job has put into /outputs, in its newest attempt that has put anything there, or in the one named.
        Those with a `why` were not kept."""
        return [file for page in self.file_pages(job, attempt) for file in page.files]

    def file_pages(self, job: str | int, attempt: int | None = None) -> Iterator[api.FileList]:
        """As `files`, page by page: at least one. The first has the sums of all of them."""
        return fetching.listed(self._transport, job, attempt)

    def get(
        self,
        job: str | int,
        folder: str | os.PathLike[str],
        pattern: str | None = None,
        *,
        attempt: int | None = None,
        overwrite: bool = False,
    ) -> list[LocalFile]:
        """Bring the files of a job into a local folder, those alone that `pattern` names ("*.pt", "plots").

        A file that is there and differs stays, and what comes is written beside it, unless `overwrite`. Cut off, the
        next call goes on where it was. Memory stays flat."""
        return fetching.get(self._transport, self.job(job).index, folder, pattern, attempt, overwrite)

    def fetch_file(
        self,
        job: int,
        file: api.FileView,
        folder: str | os.PathLike[str],
        *,
        attempt: int,
        overwrite: bool = False,
    ) -> LocalFile:
        """One file of the list of this attempt, as `get` does it. `job`: its index."""
        return fetching.Fetching(self._transport, job, attempt, Path(folder), overwrite).fetch(file)

    def events(self, job: str | int, offset: int = 0) -> Iterator[api.JobEvent]:
        """What happens to a job, live, up to and with the event "end". Goes on over a restart of the server.

        `offset`: bytes of the log to leave out."""
        return job_calls.events(self._transport, job, offset)


def _explain_options() -> None:
    """For `help(Client.submit)`: what may be asked stands in one table."""
    lines = (f"            {name}: {o.help} {o.expected.capitalize()}." for name, o in OPTIONS.items())
    JobCalls.submit.__doc__ = "\n".join((str(JobCalls.submit.__doc__).rstrip(), *lines, "        "))


_explain_options()
