"""Whether the cards of this machine still answer, as the driver's library (NVML) tells."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence
from typing import Any

from hecaton.worker.cards.discovery import DEADLINE

PERIOD = 10.0
"""Seconds between two looks at cards of which nobody complains."""


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


__all__ = ["CardWatch"]
