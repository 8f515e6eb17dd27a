"""The Python SDK: `Client`, the handles of a submitted job and batch, and every error that they raise.

- `batches`: Many jobs as one: submit in chunks, follow, fetch results as they come or in order.
- `client`: The SDK: one typed method per endpoint.
- `connection`: One pooled HTTP(S) connection to one server, and what its failures mean.
- `following`: One round trip for a job whose end is waited for at once: the answer to its submission says that it is
  stored, and then, on the same connection, how it ended.
- `heads`: What stands in the heads of requests and answers: paths, queries, keys, tokens, dates.
- `http`: Typed requests to one server: deadlines on every call, retries where they are safe, errors always of
  core.errors.
- `jobs`: What takes longer than one request: waiting for a job, following it, fetching its result.
- `payload`: The payload rule: what parses as JSON is that value, other UTF-8 is text, anything else bytes.
- `profiles`: The servers this user knows, with their tokens: `<HECATON_HOME>/client/servers.json`.
- `python_file`: What can be seen of a Python file before it travels: whether it calls `start()`, and what it imports
  that does not travel with it.
- `shared_file`: A file that several commands change at once, on every system that clients run on: a lock, reading, and
  replacement as a whole.
- `submission`: From what a user hands in to the request that submits it: payload inline or as an upload, handler or
  script file.
- `files/`: Folders and files of jobs on the side of whoever submits them.
- `managers/`: The calls that the README promises from Python.
- `nouns/`: What there is: the calls of `Client`, one file per noun.
"""

from __future__ import annotations

from hecaton.client.batches import BatchHandle
from hecaton.client.client import Client
from hecaton.client.files.sending import SentFolder
from hecaton.client.jobs import JobHandle
from hecaton.core.errors import (
    BadRequest,
    Conflict,
    Forbidden,
    HecatonError,
    JobFailed,
    NotFound,
    TooLarge,
    TooMany,
    Unauthenticated,
    Unavailable,
    Unreachable,
    WaitTimeout,
    WrongMethod,
)

__all__ = [
    "BadRequest",
    "BatchHandle",
    "Client",
    "Conflict",
    "Forbidden",
    "HecatonError",
    "JobFailed",
    "JobHandle",
    "NotFound",
    "SentFolder",
    "TooLarge",
    "TooMany",
    "Unauthenticated",
    "Unavailable",
    "Unreachable",
    "WaitTimeout",
    "WrongMethod",
]
