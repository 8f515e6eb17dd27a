"""The words for jobs that ran out of memory, of their own or of the machine's, and a hint for those that say so in
words of their own. Pure."""

from __future__ import annotations

import re
import signal

import msgspec

from hecaton.core.batches import LAST_LINES
from hecaton.core.model import Failure, Reason
from hecaton.core.options import Options
from hecaton.core.placement.needs import GIB, shown, size_of
from hecaton.worker.runtimes.port import Exit, Shortage

_STEPS = tuple(size * GIB for power in range(12) for size in (2**power, 3 * 2 ** (power - 1)) if size == int(size))
"""Sizes of memory as people say them: 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48 ... GB."""

MEMORY_HINT = "look at free and dmesg there: jobs that say --memory are given no more, together, than there is."

_CHILD_KILLED = re.compile(
    r"killed by signal: (Killed|9)|\bBrokenProcessPool\b|\bSIGKILL\b|terminated abruptly"
    r"|\bexit ?code[ :=]*-9\b|\bsignal 9\b",
    re.IGNORECASE,
)
_SHARED_FULL = re.compile(
    r"\bbus error\b|\bSIGBUS\b|insufficient shared memory|\bexit ?code[ :=]*-7\b"
    r"|No space left on device.*/(dev/shm|torch_)",
    re.IGNORECASE,
)


KILLED = 128 + signal.SIGKILL
BUS_ERRORS = frozenset({128 + signal.SIGBUS, -signal.SIGBUS})


def with_lines(message: str, output: str) -> str:
    """What it said last, behind a sentence."""
    lines = output.strip()
    return f"{message.removesuffix('.')}. {LAST_LINES}\n{lines}" if lines else message


def larger(size: int) -> str:
    """The next size up, as one writes it: `48G` after 32 GB."""
    if size < GIB:
        return f"{max(2 * size, 128 << 20) >> 20}M" if 2 * size < GIB else "1G"
    return f"{next((step for step in _STEPS if step > size), 2 * size) // GIB}G"


def memory_failure(exit: Exit, output: str, noun: str, asked: Options) -> tuple[Reason, Failure]:
    """Of one that ended as the kernel has killed something of it."""
    found = exit.shortage or Shortage()
    killed = f" The kernel killed {found.process}, which had {shown(found.size)}." if found.process else ""
    if found.machine:
        text = f"the machine ran out of memory: the job is tried again elsewhere, and uses up no retry.{killed}"
        return Reason.WORKER_ERROR, Failure(text, hint=f"For the machine's admin: {MEMORY_HINT}")
    limit = found.limit if asked.memory is None else size_of(asked.memory)
    whose = "the default: all of the machine's but a reserve" if asked.memory is None else "--memory"
    may = f" It may use {shown(limit)} ({whose}) and reached it." if limit else ""
    child = exit.code != KILLED and found.process
    after = f" That ended the {noun}, with exit code {exit.code}." if child else ""
    text = f"out of memory (RAM, not GPU memory).{may}{killed}{after}"
    return Reason.OOM_HOST, Failure(with_lines(text, output) if child else text, hint=_more_memory(limit))


def bus_hint(exit: Exit, output: str, asked: Options) -> str | None:
    """Of one that ended by a bus error, or whose last lines tell of one."""
    return _more_shared(asked) if exit.code in BUS_ERRORS or _SHARED_FULL.search(output) else None


def hinted(failure: Failure, asked: Options, limit: int) -> Failure:
    """What a handler says that goes on: of a child process of it that was killed, or of a full /dev/shm. `limit`: bytes
    that its container may use where it asked for none."""
    said = f"{failure.type}: {failure.message}\n{failure.traceback or ''}"
    if failure.hint is None and _SHARED_FULL.search(said):
        return msgspec.structs.replace(failure, hint=_more_shared(asked))
    if failure.hint is None and _CHILD_KILLED.search(said):
        used = limit if asked.memory is None else size_of(asked.memory)
        hint = f"A process that it had started was killed, most likely for memory (RAM). {_more_memory(used)}"
        return msgspec.structs.replace(failure, hint=hint)
    return failure


def _more_memory(limit: int) -> str:
    size = f"hecaton retry JOB --memory {larger(limit)}" if limit else "hecaton retry JOB --memory SIZE"
    return f"Try: {size}, or fewer processes that each have their own, such as data loaders."


def _more_shared(asked: Options) -> str:
    size = "8G" if asked.shm is None else larger(size_of(asked.shm))
    return f"Most likely /dev/shm, which data loaders share, is full. Try: hecaton retry JOB --shm {size}"
