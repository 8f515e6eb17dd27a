"""Looks at the cards of this machine while the worker runs: which come, which fail, and what all of them do."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec

from hecaton.core.model import Gpu
from hecaton.wire.carried import CardInfo
from hecaton.worker.cards.discovery import DEADLINE, Device, devices
from hecaton.worker.cards.reading import Faults, read, why_lost
from hecaton.worker.runtimes.port import ProcMark

PERIOD = 2.0
"""Seconds between two looks at cards of which nobody complains."""

FIGURES = 30.0
"""Seconds between two tellings of what decides about nothing: use, temperature, power."""

OUTSIDE = 64 << 20
"""Bytes by which memory that others hold has changed before it is told again."""


class Owner(Protocol):
    """Who wants to know, on its event loop."""

    def marks(self) -> Sequence[ProcMark]:
        """Of its containers. Asked from another thread."""
        ...

    def card_lost(self, uuid: str, why: str) -> None:
        """Once for each card: it fell off the bus, failed, or needs a reset."""

    def cards_came(self, gpus: tuple[Gpu, ...]) -> None:
        """Cards that were not here before."""

    def cards_changed(self, cards: tuple[CardInfo, ...]) -> None:
        """All cards, as they are now."""


class Look(msgspec.Struct, frozen=True):
    """At all cards. `lost`: those that were lost since the look before."""

    cards: tuple[CardInfo, ...]
    lost: dict[str, str]
    came: tuple[Gpu, ...]


class CardWatch:
    """All talk with the driver is on a thread of its own: it may hang there for ever and hold up nobody. The library
    stays initialised, which also keeps the driver from putting unused cards to sleep. Made on the event loop. `gpus`:
    the cards that are known already."""

    def __init__(self, gpus: Sequence[Gpu], owner: Owner) -> None:
        self._owner = owner
        self._eye = _Eye(gpus, owner.marks)
        self._told: tuple[CardInfo, ...] = ()
        self._told_at = 0.0
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
        while not self._closed:
            self._wake.clear()
            asked, self._asked = self._asked, []
            seen = self._eye.look()
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                self._loop.call_soon_threadsafe(self._tell, seen, asked)
            self._wake.wait(PERIOD)

    def _tell(self, seen: Look | None, asked: Sequence[asyncio.Future[None]]) -> None:
        if self._closed:
            return
        if seen is not None:
            for uuid, why in seen.lost.items():
                self._owner.card_lost(uuid, why)
            if seen.came:
                self._owner.cards_came(seen.came)
            late = time.monotonic() - self._told_at > FIGURES
            if _deciding(seen.cards) != _deciding(self._told) or (late and seen.cards != self._told):
                self._told, self._told_at = seen.cards, time.monotonic()
                self._owner.cards_changed(seen.cards)
        for future in asked:
            if not future.done():
                future.set_result(None)


class _Eye:
    """On the thread of the watch."""

    def __init__(self, gpus: Sequence[Gpu], marks: Callable[[], Sequence[ProcMark]]) -> None:
        self._known = {gpu.uuid: CardInfo(gpu) for gpu in gpus}
        self._marks = marks
        self._parents: dict[str, str] = {}
        self._lost: dict[str, str] = {}
        self._faults: Faults | None = None

    def look(self) -> Look | None:
        """None: there is no driver, or it does not say anything."""
        import pynvml  # type: ignore[import-untyped]

        if self._faults is None:
            try:
                pynvml.nvmlInit()
            except pynvml.NVMLError:
                return None
            self._faults = Faults(pynvml)
        lost = self._newly_lost(pynvml, self._faults)
        self._lost.update(lost)
        try:
            there, _ = devices(pynvml)
        except pynvml.NVMLError:
            there = []
        came = tuple(device.gpu for device in there if device.gpu.uuid not in self._known)
        own = self._marks()
        for device in there:
            self._see(pynvml, self._faults, device, own)
        told = (msgspec.structs.replace(info, lost=self._lost.get(uuid)) for uuid, info in self._known.items())
        return Look(tuple(told), lost, came)

    def _see(self, nvml: Any, faults: Faults, device: Device, own: Sequence[ProcMark]) -> None:
        faults.watch(device)
        self._parents[device.gpu.uuid] = device.parent
        self._known[device.gpu.uuid] = read(nvml, device, own)

    def _newly_lost(self, nvml: Any, faults: Faults) -> dict[str, str]:
        reported = faults.news()
        lost: dict[str, str] = {}
        for uuid in self._known:
            if uuid not in self._lost:
                why = reported.get(self._parents.get(uuid, uuid)) or why_lost(nvml, uuid)
                if why is not None:
                    lost[uuid] = why
        return lost


def _deciding(cards: tuple[CardInfo, ...]) -> list[tuple[str, int, str | None, str | None]]:
    return [(card.gpu.uuid, round(card.outside / OUTSIDE), card.holder, card.lost) for card in cards]


__all__ = ["CardWatch", "Owner"]
