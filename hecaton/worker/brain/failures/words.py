"""The words for a job that ended without an answer of its container. Pure; for `state` and `ends`."""

from __future__ import annotations

import re
import signal

from hecaton.core.model import Failure, Reason
from hecaton.core.options import NOTHING_ASKED, Options
from hecaton.worker.brain.failures.shortage import bus_hint, memory_failure, with_lines
from hecaton.worker.runtimes.port import Exit

PID_1_HINT = (
    "Its ENTRYPOINT wants to be process 1, which it is if the image names it so: /init, tini, dumb-init and the like, "
    "not a script that runs them. --entrypoint none leaves it out."
)
NEVER_ASKED = "without ever asking for work"
NO_START_HINT = (
    "The image's command must call hecaton.serverless.start(handler). "
    "To run a plain script use --script, a handler file --handler."
)

CARD_HINT = "Look at the machine: nvidia-smi, the kernel's log for NVRM and Xid; then hecaton-gpu restart."

UNHEARD = Failure(
    "the server had not heard of this worker for too long, and a no-overlap job ends before another worker may have it"
)

CUT_OFF = Failure("its container was stopped for the sake of another job as this one began")


def exit_failure(
    exit: Exit, output: str, noun: str = "container", asked: Options = NOTHING_ASKED
) -> tuple[Reason, Failure]:
    """Why a job ended whose container ended under it. Exit code 0 is no success: only a result is. `noun`: what people
    call what ended (`doors.Way.noun`). `asked`: of the job."""
    if exit.error:
        return Reason.WORKER_ERROR, Failure(f"the container was lost: {exit.error}")
    if exit.oom or exit.shortage is not None:
        return memory_failure(exit, output, noun, asked)
    if exit.code == 0:
        hint = "The handler, or something it called, ended the process: return a result instead."
        return Reason.NO_RESULT, Failure("the container ended with exit code 0 and without a result", hint=hint)
    return Reason.HANDLER_EXIT, Failure(
        with_lines(f"the {noun} ended with {_code(exit)}{' during the job' if noun == 'container' else ''}", output),
        hint=bus_hint(exit, output, asked),
    )


def startup_failure(
    exit: Exit, output: str, how: str, hint: str, asked: Options = NOTHING_ASKED
) -> tuple[Reason, Failure]:
    """Why a job failed whose container ended before it was ready for work. `how` completes the sentence."""
    if exit.error or exit.oom or exit.shortage is not None:
        return exit_failure(exit, output, asked=asked)
    if exit.code == 128 + signal.SIGKILL:
        # Nothing in the image did that: unlike every other end before the start, the next attempt may go well.
        return Reason.HANDLER_EXIT, Failure("the container was killed (SIGKILL) from outside before it asked for work")
    return Reason.STARTUP_EXIT, Failure(
        with_lines(f"the container ended with {_code(exit)} {how}", output),
        hint=PID_1_HINT if re.search(r"\bpid 1\b", output, re.IGNORECASE) else hint,
    )


def no_hello_failure(seconds: float, output: str, hint: str) -> Failure:
    message = f"the container ran for {seconds:g} s (--startup-timeout) without asking for work"
    return Failure(with_lines(message, output), hint=hint)


def timeout_failure(seconds: float) -> Failure:
    return Failure(f"the job ran longer than its timeout of {seconds:g} s and was stopped")


def card_failure(why: str) -> Failure:
    return Failure(why, hint=CARD_HINT)


def no_room(why: str) -> Failure:
    """Of a job that is handed back for it. The server knows it by its type; one of the release before does not mind."""
    return Failure(why, type=Reason.NO_ROOM)


def payload_failure(why: str) -> Failure:
    return Failure(f"the payload could not be brought to the worker: {why}")


def _code(exit: Exit) -> str:
    """A code over 128 is how a shell or engine tells of a signal, a negative one how a parent process does."""
    code = exit.code
    try:
        name = signal.Signals(code - 128 if code > 128 else -code).name
        # The engine sees an end for memory in the container's own limit, not one by the machine's kernel.
        likely = " from outside, and not by the kernel for memory" if exit.sure else ", most likely for memory"
        why = f": killed{likely}" if name == "SIGKILL" else ""
        return f"exit code {code} ({name}{why})"
    except ValueError:
        return f"exit code {code}"
