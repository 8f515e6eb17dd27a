"""Which NVIDIA cards this machine has, as the driver's library (NVML) tells."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import msgspec

from hecaton.core.model import Gpu

DEADLINE = 5.0
"""Seconds. A driver whose card has failed may never answer."""


class Discovery(msgspec.Struct, frozen=True):
    """The cards, by index of the driver; without any, why not."""

    gpus: tuple[Gpu, ...]
    reason: str = ""


def discover(deadline: float = DEADLINE) -> Discovery:
    """Each card once; of a card that is divided (MIG) its instances instead. Never raises."""
    found: list[Discovery] = []
    # Not a pool: a thread that hangs in the driver must not keep the process from ending.
    thread = threading.Thread(target=lambda: found.append(_ask_driver()), daemon=True, name="nvml")
    thread.start()
    thread.join(deadline)
    return found[0] if found else Discovery((), f"the NVIDIA driver did not answer within {deadline:g} s")


def _ask_driver() -> Discovery:
    import pynvml  # type: ignore[import-untyped]

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError_LibraryNotFound:
        return Discovery((), "no NVIDIA driver on this machine")
    except pynvml.NVMLError as error:
        return Discovery((), f"the NVIDIA driver says: {error}")
    try:
        cards, faults = _cards(pynvml)
    except pynvml.NVMLError as error:
        return Discovery((), f"the NVIDIA driver says: {error}")
    finally:
        _quietly(pynvml, pynvml.nvmlShutdown)
    return Discovery(cards, "" if cards else "; ".join(faults) or "the NVIDIA driver knows no card")


def _cards(nvml: Any) -> tuple[tuple[Gpu, ...], list[str]]:
    """What works, and what is wrong with the rest: one failed card must not take the others along."""
    cards: list[Gpu] = []
    faults: list[str] = []
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            cards += _cards_at(nvml, index)
        except nvml.NVMLError as error:
            faults.append(f"card {index}: {error}")
    return tuple(cards), faults


def _cards_at(nvml: Any, index: int) -> list[Gpu]:
    device = nvml.nvmlDeviceGetHandleByIndex(index)
    model = _text(nvml.nvmlDeviceGetName(device))
    return [
        Gpu(
            uuid=_text(nvml.nvmlDeviceGetUUID(handle)),
            name=_text(_quietly(nvml, nvml.nvmlDeviceGetName, handle) or model),
            memory=int(nvml.nvmlDeviceGetMemoryInfo(handle).total),
        )
        for handle in _instances(nvml, device) or [device]
    ]


def _instances(nvml: Any, device: Any) -> list[Any]:
    """Of a divided card; existing divisions are used, never changed."""
    count = _quietly(nvml, nvml.nvmlDeviceGetMaxMigDeviceCount, device) or 0
    handles = [_quietly(nvml, nvml.nvmlDeviceGetMigDeviceHandleByIndex, device, index) for index in range(count)]
    return [handle for handle in handles if handle is not None]


def _quietly(nvml: Any, ask: Callable[..., Any], *arguments: Any) -> Any:
    """The answer, or None where this driver or card does not know the question."""
    try:
        return ask(*arguments)
    except nvml.NVMLError:
        return None


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


__all__ = ["DEADLINE", "Discovery", "discover"]
