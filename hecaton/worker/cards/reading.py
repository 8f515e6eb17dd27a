"""What a card does now, as the driver's library (NVML) tells: its memory and who holds it, use, temperature, power, and
what is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hecaton.wire.carried import CardInfo
from hecaton.worker.cards.discovery import Device, quietly
from hecaton.worker.runtimes.port import ProcMark

MAX_HOLDERS = 3
"""Programs that are named of those that hold memory of a card."""

FATAL_XIDS = {
    48: "uncorrectable memory error",
    62: "its controller halted",
    64: "a failed row of its memory could not be replaced",
    74: "NVLink error",
    79: "it fell off the bus",
    95: "uncontained memory error",
    119: "its system processor does not answer",
    120: "its system processor failed",
}
"""Of the errors that the driver reports, those after which a card is of no use until it is reset. The others are those
of programs."""


class Faults:
    """The errors that the driver has reported of cards since it was first asked."""

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml
        self._events = quietly(nvml, nvml.nvmlEventSetCreate)
        self._registered: set[str] = set()

    def watch(self, device: Device) -> None:
        if self._events is None or device.parent in self._registered:
            return
        nvml = self._nvml
        self._registered.add(device.parent)
        kinds = nvml.nvmlEventTypeXidCriticalError | nvml.nvmlEventTypeDoubleBitEccError
        whole = quietly(nvml, nvml.nvmlDeviceGetHandleByUUID, device.parent)
        if whole is not None:
            quietly(nvml, nvml.nvmlDeviceRegisterEvents, whole, kinds, self._events)

    def news(self) -> dict[str, str]:
        """Cards, by the UUID of the whole card, that can be used no more, and why."""
        nvml, found = self._nvml, dict[str, str]()
        while self._events is not None:
            event = quietly(nvml, nvml.nvmlEventSetWait_v2, self._events, 0)
            if event is None:
                break
            uuid = quietly(nvml, nvml.nvmlDeviceGetUUID, event.device)
            if uuid is not None and (why := _fatal(nvml, event)) is not None:
                found[uuid if isinstance(uuid, str) else uuid.decode()] = why
        return found


def _fatal(nvml: Any, event: Any) -> str | None:
    if event.eventType == nvml.nvmlEventTypeDoubleBitEccError:
        return "the NVIDIA driver reports: uncorrectable memory error (ECC)"
    xid = int(event.eventData)
    return f"the NVIDIA driver reports Xid {xid}: {FATAL_XIDS[xid]}" if xid in FATAL_XIDS else None


def why_lost(nvml: Any, uuid: str) -> str | None:
    """Why the card can be used no more; None: it can, or the driver does not know."""
    try:
        nvml.nvmlDeviceGetMemoryInfo(nvml.nvmlDeviceGetHandleByUUID(uuid))
    except (nvml.NVMLError_GpuIsLost, nvml.NVMLError_ResetRequired, nvml.NVMLError_NotFound) as error:
        return f"the NVIDIA driver says of the card {uuid}: {error}"
    except nvml.NVMLError:
        return None
    return None


def read(nvml: Any, device: Device, own: Sequence[ProcMark]) -> CardInfo:
    """`own`: the marks of this worker's containers. What these do not have is held by others."""
    handle = device.handle
    memory = quietly(nvml, nvml.nvmlDeviceGetMemoryInfo, handle)
    use = quietly(nvml, nvml.nvmlDeviceGetUtilizationRates, handle)
    milliwatts = quietly(nvml, nvml.nvmlDeviceGetPowerUsage, handle)
    outside, holder = _strangers(_processes(nvml, handle), own, device.gpu.memory)
    return CardInfo(
        device.gpu,
        outside,
        holder,
        used=0 if memory is None else int(memory.used),
        use=None if use is None else int(use.gpu),
        temperature=quietly(nvml, nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU),
        power=None if milliwatts is None else milliwatts / 1000,
    )


def _processes(nvml: Any, handle: Any) -> dict[int, int]:
    """Bytes of the card's memory by the number of the process; a program may compute and draw."""
    held: dict[int, int] = {}
    for ask in (nvml.nvmlDeviceGetComputeRunningProcesses_v3, nvml.nvmlDeviceGetGraphicsRunningProcesses_v3):
        for process in quietly(nvml, ask, handle) or ():
            held[process.pid] = max(held.get(process.pid, 0), process.usedGpuMemory or 0)
    return held


def _strangers(processes: dict[int, int], own: Sequence[ProcMark], most: int) -> tuple[int, str | None]:
    by_name: dict[str, int] = {}
    for pid, size in processes.items():
        if not _is_own(pid, own):
            name = _name(pid)
            by_name[name] = by_name.get(name, 0) + size
    if not by_name:
        return 0, None
    names = sorted(by_name, key=lambda name: -by_name[name])
    more = f" and {len(names) - MAX_HOLDERS} more" if len(names) > MAX_HOLDERS else ""
    return min(sum(by_name.values()), most), ", ".join(names[:MAX_HOLDERS]) + more


def _is_own(pid: int, own: Sequence[ProcMark]) -> bool:
    texts: dict[str, str] = {}
    for mark in own:
        if mark.file not in texts:
            try:
                texts[mark.file] = Path(f"/proc/{pid}/{mark.file}").read_text(errors="replace")
            except OSError:  # it has ended meanwhile, or is somebody else's
                texts[mark.file] = ""
        if mark.text in texts[mark.file]:
            return True
    return False


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
    except OSError:
        return f"process {pid}"


__all__ = ["FATAL_XIDS", "Faults", "read", "why_lost"]
