"""Which NVIDIA cards this machine has, and whether they still answer, as the driver's library (NVML) tells.

`discover` is called by `hecaton-gpu run`, `CardWatch` by `agent`.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from hecaton.core.model import Gpu

DEADLINE = 5.0
"""Seconds. A driver whose card has failed may never answer."""


PERIOD = 10.0
"""Seconds between two looks at cards of which nobody complains."""


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


class CardWatch:
    """Tells, once for each card, that it can be used no more: it fell off the bus, or needs a reset.

    All talk with the driver is on a thread of its own: it may hang there for ever and hold up nobody. The library
    stays initialised, which also keeps the driver from putting unused cards to sleep. Made on the event loop, on which
    `lost(uuid, why)` is called too."""

    def __init__(self, uuids: Sequence[str], lost: Callable[[str, str], None]) -> None:
        self._lost = lost
        self._uuids = list(uuids)
        self._loop = asyncio.get_running_loop()
        self._asked: list[asyncio.Future[None]] = []
        self._wake = threading.Event()
        self._closed = False
        threading.Thread(target=self._run, daemon=True, name="cards").start()

    async def look(self) -> None:
        """Returns when the cards have been asked anew, or after `DEADLINE`."""
        asked: asyncio.Future[None] = self._loop.create_future()
        self._asked.append(asked)
        self._wake.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DEADLINE):
                await asked

    def close(self) -> None:
        self._closed = True
        self._wake.set()

    def _run(self) -> None:
        import pynvml  # type: ignore[import-untyped]

        ready = False
        while not self._closed:
            self._wake.clear()
            asked, self._asked = self._asked, []
            ready = ready or _initialised(pynvml)
            faults = {uuid: why for uuid in self._uuids if (why := _fault(pynvml, uuid))} if ready else {}
            self._uuids = [uuid for uuid in self._uuids if uuid not in faults]
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                self._loop.call_soon_threadsafe(self._tell, faults, asked)
            self._wake.wait(PERIOD)

    def _tell(self, faults: dict[str, str], asked: Sequence[asyncio.Future[None]]) -> None:
        for uuid, why in faults.items():
            self._lost(uuid, why)
        for future in asked:
            if not future.done():
                future.set_result(None)


def _initialised(nvml: Any) -> bool:
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return False
    return True


def _fault(nvml: Any, uuid: str) -> str | None:
    """Why the card can be used no more; None: it can, or the driver does not know."""
    try:
        nvml.nvmlDeviceGetMemoryInfo(nvml.nvmlDeviceGetHandleByUUID(uuid))
    except (nvml.NVMLError_GpuIsLost, nvml.NVMLError_ResetRequired, nvml.NVMLError_NotFound) as error:
        return f"the NVIDIA driver says of the card {uuid}: {error}"
    except nvml.NVMLError:
        return None
    return None


def _ask_driver() -> Discovery:
    import pynvml

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


__all__ = ["DEADLINE", "CardWatch", "Discovery", "discover"]
