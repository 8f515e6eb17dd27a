"""`start()`, the life of a container: from the log file to the next job; and `progress()`."""

from __future__ import annotations

import os
import signal
import sys

from hecaton.serverless.calling import Caller, Outcome
from hecaton.serverless.job import ServerLessInput
from hecaton.serverless.kept import Outputs
from hecaton.serverless.link import Link
from hecaton.serverless.output import Log
from hecaton.serverless.protocol import IN_NAME, MAX_PROGRESS, OUT_NAME
from hecaton.serverless.results import pack
from hecaton.serverless.values import NotJson, spelled, to_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, NoReturn

    from hecaton.serverless.protocol import Header

#: The connection of this process, once `start` serves a worker: `progress` has no other way to find it.
_link: Link | None = None


def start(handler: Callable[[ServerLessInput], Any]) -> NoReturn:
    """Run `handler` for every job that the worker sends; never returns.

    The handler may be a function, an async function, a generator or an async generator, or any callable. It returns
    JSON, `bytes` or the `pathlib.Path` of a file, whose bytes are the result then. A Path within a list or a dict, or
    one of a folder, names a file that is kept (`hecaton get`), as is all that the handler leaves in /outputs. What it
    raises fails the job, and the next one is served. The result of a generator is the list of all its items. Who
    watches the job meanwhile sees the newest item, at most four times a second: of a fast generator not each one, and
    none of more than 64 KiB.

    What is not JSON (NaN, a set) fails the job as `result_invalid` and is kept as text, so that it can be fetched.

    Without a worker (`HECATON_DIR` is not set) it is a try-out: `python handler.py payload.json` runs the handler once,
    prints the result to stdout and everything else to stderr; exit code 0, or 1 if the handler failed.

    On SIGTERM the process ends at once, even within a handler: exit code 143 (128 + 15), as a shell or an engine
    reports it. A handler for SIGTERM that was set before is kept. Raises TypeError when `handler` cannot be called.
    """
    if not callable(handler):
        raise TypeError(
            f"start() needs the handler function itself, as in start(my_handler); it got a {type(handler).__name__}"
        )
    folder = os.environ.get("HECATON_DIR")
    if not folder:
        from hecaton.serverless.tryout import try_out

        sys.exit(try_out(handler, sys.argv))
    # Out of the environment, so that a handler that prints it, or a child process, does not have the secret.
    nonce = os.environ.pop("HECATON_NONCE", None)
    if nonce is None:
        sys.exit(
            "hecaton.serverless: HECATON_DIR is set but HECATON_NONCE is not: start() was called twice, or in a child "
            'process (put it under `if __name__ == "__main__":`), or in a script (what calls it goes with --handler)'
        )
    _serve(handler, folder, nonce)


def progress(value: Any = None, *, done: float | None = None, total: float | None = None) -> None:
    """Report how far the running job is: whoever waits for it sees the newest value, at most four times a second.

    `progress(0.2)` and `progress(done=12, total=60)` are drawn as a bar; any other value is shown as it is.

    Callable from any thread of the handler's process, and ends no job: it raises nothing. What is not JSON (NaN, an
    object) is shown as text. Outside of a job, in a child process, and for what has more than 64 KiB as JSON, the value
    is printed to stderr instead, which is the job's log: so a handler can be tried and tested alone.
    """
    if done is not None or total is not None:
        value = {"done": done, "total": total}
    try:
        encoded = to_json(value)
    except NotJson:
        value = spelled(value).decode("utf-8")
        encoded = to_json(value)
    if _link is None or not _link.send_progress(value, len(encoded)):
        more = f" [... {len(encoded)} bytes in all]" if len(encoded) > MAX_PROGRESS else ""
        sys.stderr.write("progress: {}{}\n".format(encoded[:MAX_PROGRESS].decode("utf-8", "ignore"), more))


def _serve(handler: Callable[[ServerLessInput], Any], folder: str, nonce: str) -> NoReturn:
    global _link
    _end_on_sigterm()
    log = Log(folder)
    try:
        log.attach()
    except OSError as error:
        sys.exit(f"hecaton.serverless: the worker's log file cannot be opened: {error}")
    caller = Caller(handler)
    link = _link = Link(folder, nonce)
    outputs = Outputs()
    while True:
        _work(link, caller, log, outputs, folder)


def _work(link: Link, caller: Caller, log: Log, outputs: Outputs, folder: str) -> None:
    """One job. In a function of its own, so that nothing of it is kept in memory while the next one is awaited."""
    header, body = link.next_job()
    job, attempt, file = header["job"], header["attempt"], header.get("file")

    def on_item(item: Any, encoded: bytes, index: int) -> None:
        link.send_progress(item, len(encoded), index)  # a larger one comes with the result only

    data = ServerLessInput.from_payload(
        header.get("kind", "json"),
        body,
        None if file is None else os.path.join(folder, IN_NAME, file),
        job,
        attempt,
        header.get("key", ""),
    )
    outcome = caller.call(data, on_item, link.max_result)
    outcome, name = pack(outcome, os.path.join(folder, OUT_NAME), f"{job}.{attempt}", link.max_result)
    result = _result_header(job, attempt, outcome, name)
    result["log_end"], next_log = _settled(log, link.protocol >= 2)
    if next_log is not None:
        result["next_log"] = link.log = next_log
    if outputs.put_aside(job, attempt):
        result["files"] = True
    link.send_result(result, outcome.body)


def _result_header(job: str, attempt: int, outcome: Outcome, file: str | None) -> Header:
    header: Header = {
        "type": "result",
        "job": job,
        "attempt": attempt,
        "status": outcome.status,
        "kind": outcome.kind,
    }
    if file is not None:
        header["file"] = file
    if outcome.error is not None:
        header["error"] = outcome.error
    return header


def _settled(log: Log, split: bool) -> tuple[int, str | None]:
    try:
        return log.settle(split)
    except OSError:
        return 0, None  # the log is lost, the result need not be


def _end_on_sigterm() -> None:
    if callable(signal.getsignal(signal.SIGTERM)):
        return  # the user's own
    if os.getpid() == 1:
        # The kernel does not apply default actions to process 1: without `--init` a stop would take until SIGKILL.
        signal.signal(signal.SIGTERM, _exit_terminated)
    else:
        # The default action ends the process in the midst of C code too, where a Python function would have to wait.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _exit_terminated(number: int, frame: object) -> NoReturn:
    # Not SystemExit: a handler might catch it, and threads of the user's would hold up the end.
    os._exit(128 + number)
