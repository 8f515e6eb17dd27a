"""`python handler.py payload.json`: runs a handler once on a local file, with no worker."""

from __future__ import annotations

import os
import sys

from hecaton.serverless.calling import Caller, Outcome, describe
from hecaton.serverless.job import ServerLessInput, kind_of_payload
from hecaton.serverless.protocol import MAX_INLINE
from hecaton.serverless.results import pieces
from hecaton.serverless.values import NotJson

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable


def try_out(handler: Callable[[ServerLessInput], Any], argv: list[str]) -> int:
    """Run the handler on the file that `argv` names; the exit code: 0, 1 if the handler failed, 2 without a payload.

    Only the result goes to stdout, JSON with a line end and bytes as they are; what the handler prints goes to stderr.
    """
    if len(argv) != 2:
        sys.stderr.write(
            f"No worker here (HECATON_DIR is not set). To try the handler: python {argv[0]} payload.json\n"
        )
        return 2
    try:
        with open(argv[1], "rb") as file:
            raw = file.read()
    except OSError as error:
        sys.stderr.write(f"The payload cannot be read: {error}\n")
        return 2
    large = os.path.abspath(argv[1]) if len(raw) > MAX_INLINE else None
    data = ServerLessInput.from_payload(kind_of_payload(raw), raw, large, "try-out", 1, "try-out")
    stdout = os.dup(1)
    os.dup2(2, 1)
    outcome = Caller(handler).call(data, _show_item, sys.maxsize)
    sys.stdout.flush()  # while descriptor 1 is still stderr
    return _show(outcome, stdout)


def _show_item(item: object, encoded: bytes, index: int) -> None:
    sys.stderr.write(f"item {index}: {encoded.decode('utf-8')}\n")


def _show(outcome: Outcome, stdout: int) -> int:
    if outcome.error is not None:
        return _fail(outcome.status, outcome.error)
    try:
        with open(stdout, "wb") as out:
            for piece in pieces(outcome):
                out.write(piece)
            if outcome.kind == "json":
                out.write(b"\n")
    except NotJson as error:
        return _fail("result_invalid", describe(error))
    return 0


def _fail(status: str, error: dict[str, str]) -> int:
    sys.stderr.write("{}: {}\n".format(status, error["traceback"].rstrip() or error["message"]))
    return 1
