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


class Device(msgspec.Struct, frozen=True):
    """A card as the driver's library knows it. `parent`: UUID of the whole card, where this is an instance of it."""

    gpu: Gpu
    handle: Any
    parent: str


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
        found, faults = devices(pynvml)
    except pynvml.NVMLError as error:
        return Discovery((), f"the NVIDIA driver says: {error}")
    finally:
        quietly(pynvml, pynvml.nvmlShutdown)
    cards = tuple(device.gpu for device in found)
    return Discovery(cards, "" if cards else "; ".join(faults) or "the NVIDIA driver knows no card")


def devices(nvml: Any) -> tuple[list[Device], list[str]]:
    """What works, and what is wrong with the rest: one failed card must not take the others along."""
    found: list[Device] = []
    faults: list[str] = []
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            found += _devices_at(nvml, index)
        except nvml.NVMLError as error:
            faults.append(f"card {index}: {error}")
    return found, faults


def _devices_at(nvml: Any, index: int) -> list[Device]:
    whole = nvml.nvmlDeviceGetHandleByIndex(index)
    model, parent = _text(nvml.nvmlDeviceGetName(whole)), _text(nvml.nvmlDeviceGetUUID(whole))
    return [
        Device(
            Gpu(
                uuid=_text(nvml.nvmlDeviceGetUUID(handle)),
                name=_text(quietly(nvml, nvml.nvmlDeviceGetName, handle) or model),
                memory=int(nvml.nvmlDeviceGetMemoryInfo(handle).total),
            ),
            handle,
            parent,
        )
        for handle in _instances(nvml, whole) or [whole]
    ]


def _instances(nvml: Any, device: Any) -> list[Any]:
    """Of a divided card; existing divisions are used, never changed."""
    count = quietly(nvml, nvml.nvmlDeviceGetMaxMigDeviceCount, device) or 0
    handles = [quietly(nvml, nvml.nvmlDeviceGetMigDeviceHandleByIndex, device, index) for index in range(count)]
    return [handle for handle in handles if handle is not None]


def quietly(nvml: Any, ask: Callable[..., Any], *arguments: Any) -> Any:
    """The answer, or None where this driver or card does not know the question."""
    try:
        return ask(*arguments)
    except nvml.NVMLError:
        return None


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


__all__ = ["DEADLINE", "Device", "Discovery", "devices", "discover", "quietly"]
