"""The calls that the README promises: `HecatonServer.new_job` and `get_job`. A thin face of `hecaton.client.Client`."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

from hecaton.client.client import Client
from hecaton.client.jobs import failure
from hecaton.core.model import JobState


class JobInfo(NamedTuple):
    """What `get_job` gives: a tuple whose items also have names."""

    id: str
    status: str
    """"IN_QUEUE", "ASSIGNED", "IN_PROGRESS", "FINISHED" or "FAILED". A cancelled job is shown as FAILED, so that loops
    which know these two ends come to one."""
    result: Any
    """None until the job has ended; then what the handler returned, or for FAILED the text that says why."""
    number: int
    """The short number that the command line shows."""
    image: str
    worker: str | None
    attempt: int
    """How often it has been started."""
    reason: str | None
    """Why it ended ("ok", "handler_error", "timeout", "cancelled", ...); None until then."""


class HecatonServer:
    """Static calls for scripts: `ip` is the server's address, with or without scheme (`http://localhost:8181`,
    `localhost:8181`, `https://gpu.example.com`), `secret` the token (`hecaton server token` prints it).

    Errors are raised (`hecaton.client` has the classes), never returned. Calls with the same address and token share
    their connections; a self-signed certificate is trusted through HECATON_CA_FILE.
    """

    @staticmethod
    def new_job(ip: str, secret: str, file_path: str, image: str) -> str:
        """Submit the file as payload for the image. Gives the job's id."""
        return _client(ip, secret).submit(image, payload_file=file_path).id

    @staticmethod
    def get_job(ip: str, secret: str, job_id: str) -> JobInfo:
        """The job as it is now: item 0 is its id, item 1 the status, item 2 the result."""
        client = _client(ip, secret)
        view = client.job(job_id)
        status, result = view.state, None
        if view.state is JobState.FINISHED:
            result = client.result(view)
        elif view.state.terminal:
            status, result = JobState.FAILED, str(failure(view))
        return JobInfo(
            view.id, status.value, result, view.index, view.image, view.worker, view.attempt,
            view.reason.value if view.reason is not None else None,
        )  # fmt: skip


@functools.lru_cache(maxsize=16)
def _client(ip: str, secret: str) -> Client:
    return Client(ip, secret, follow=False)  # nobody waits in these calls
