"""Errors that stay with a process. Once the context of a card is dead, every later call to it fails in that process, so
a container that is kept warm would fail every job that comes.
"""

from __future__ import annotations

import re

import msgspec

from hecaton.core.model import Failure, Reason
from hecaton.worker.brain import events as ev
from hecaton.worker.brain.slots import Container, EarlyEnd

ALIKE = 3
"""So many failures in a row that read alike may be the process's, whatever they say."""

REPLACED_HINT = "The process that it ran in is not used again: after such an error every use of the card fails in it."

# As the drivers, CUDA's and ROCm's libraries, PyTorch, JAX, TensorFlow and CuPy write them. Memory that has run out is
# none of these: it is there again when the job has ended.
_NAMES_DEVICE = re.compile(
    r"\b(CUDA|HIP|cuDNN|cuBLAS|NCCL) error\b(?!: out of memory)"
    r"|\b(CUDA|HIP)_ERROR_(?!OUT_OF_MEMORY)|\bcudaError(?!Memory)"
    r"|\b(CUBLAS|CUDNN|CUSOLVER|CUSPARSE|CUFFT)_(STATUS_)?\w*(EXECUTION_FAILED|INTERNAL_ERROR|MAPPING_ERROR)"
    r"|\bdevice-side assert\b|\billegal (memory access|address)\b|\bunspecified launch failure\b"
    r"|\bmisaligned address\b|\buncorrectable ECC\b|\bAcceleratorError\b",
    re.IGNORECASE,
)
_VARIES = re.compile(r"0x[0-9a-f]+|\d+", re.IGNORECASE)
_PROCESS_LIVED = frozenset({Reason.HANDLER_ERROR, Reason.OOM_GPU})
_COMPARED = 200


class StickyErrors:
    """Tells by its answers whether a container is to be parted with. An error that is in the jobs themselves must not
    cost each third of them a start: so one that does not name the card counts once for each key, until a job of that
    key succeeds."""

    def __init__(self) -> None:
        self._replaced: set[str] = set()

    def judge(self, container: Container, answer: ev.JobAnswered) -> EarlyEnd | None:
        """None: it may go on; else how the jobs end that it has begun meanwhile."""
        # hot: benchmarks/throughput.py - mostly all is well
        if answer.reason is Reason.OK:
            if container.failed_like is not None or self._replaced:
                container.failed_like = None
                self._replaced.discard(container.warm_key or "")
            return None
        if answer.reason not in _PROCESS_LIVED or container.warm_key is None:
            return None
        failure = answer.failure or Failure("")
        if names_device(failure):
            return EarlyEnd.REPLACED
        like = f"{answer.reason} {failure.type} {_VARIES.sub('0', failure.message[:_COMPARED])}"
        container.failures = container.failures + 1 if like == container.failed_like else 1
        container.failed_like = like
        if container.failures < ALIKE or container.warm_key in self._replaced:
            return None
        self._replaced.add(container.warm_key)
        return EarlyEnd.RELEASED


def explained(answer: ev.JobAnswered) -> ev.JobAnswered:
    """With what becomes of its container, of one that names the card."""
    failure = msgspec.structs.replace(answer.failure or Failure(""), hint=REPLACED_HINT)
    return msgspec.structs.replace(answer, failure=failure)


def names_device(failure: Failure) -> bool:
    """Also where such an error is the cause of the one that was raised: then it begins a line of the traceback."""
    if _NAMES_DEVICE.search(f"{failure.type}: {failure.message}"):
        return True
    lines = (failure.traceback or "").splitlines()
    return any(_NAMES_DEVICE.search(line) for line in lines if line and not line[0].isspace())


__all__ = ["ALIKE", "REPLACED_HINT", "StickyErrors", "explained", "names_device"]
