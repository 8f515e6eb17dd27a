"""Hears from the Docker engine that names of images may mean others than before."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress

import aiohttp
from aiodocker import DockerError

from hecaton.worker.runtimes import port
from hecaton.worker.runtimes.docker_engine import Engine
from hecaton.worker.runtimes.port import ENGINE_RETRY

_FILTERS = json.dumps({"type": ["image"]})


class NameEvents:
    """One stream of the engine's events, opened with the first question and again when it breaks."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._moved = asyncio.Event()
        self._listening: asyncio.Task[None] | None = None

    async def until_moved(self) -> None:
        if self._listening is None:
            self._listening = asyncio.create_task(self._listen())
        with suppress(TimeoutError):
            async with asyncio.timeout(port.LOOK_AGAIN):
                await self._moved.wait()
        self._moved.clear()

    async def _listen(self) -> None:
        while True:
            with suppress(DockerError, aiohttp.ClientError, OSError, ValueError):
                async with self._engine.client._query("events", params={"filters": _FILTERS}) as response:
                    try:
                        self._moved.set()  # whatever happened while nobody listened
                        async for _ in response.content.iter_any():
                            self._moved.set()
                    finally:
                        response.close()  # it would never end
            await asyncio.sleep(ENGINE_RETRY)

    async def close(self) -> None:
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.wait([self._listening])
            self._listening = None


__all__ = ["NameEvents"]
