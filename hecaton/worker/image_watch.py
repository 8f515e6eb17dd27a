"""What names of images mean on this machine: keeps warm containers from going on with an image that their name has
left, answers the server's questions, and says when something is here that could not be had before."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping

from hecaton.wire.channel import FromWorker, Have, ImageRef, Resolve, Resolved
from hecaton.worker.brain import events as ev
from hecaton.worker.containers.container import LiveContainer
from hecaton.worker.runtimes.port import Here, Runtime, RuntimeFault

MISSED = 100
"""So many images that could not be had are looked for; of more the first are forgotten."""


class ImageWatch:
    """On the worker's loop. `live`: the containers by id, as the agent keeps them."""

    def __init__(
        self,
        runtime: Runtime,
        live: Mapping[str, LiveContainer],
        post: Callable[[ev.Event], None],
        say: Callable[[FromWorker], None],
    ) -> None:
        self._runtime, self._live, self._post, self._say = runtime, live, post, say
        self._missed: dict[str, ImageRef] = {}
        self._watching: asyncio.Task[None] | None = None
        self._answers: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        self._watching = asyncio.get_running_loop().create_task(self._watch())

    async def close(self) -> None:
        tasks = [*self._answers, *([self._watching] if self._watching is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def miss(self, image: ImageRef) -> None:
        """It could not be had. Somebody may build, load or pull it here by hand."""
        self._missed.pop(image.name, None)
        self._missed[image.name] = image
        if len(self._missed) > MISSED:
            del self._missed[next(iter(self._missed))]

    async def _watch(self) -> None:
        while True:
            await self._runtime.until_names_move()
            await self._look()

    async def _look(self) -> None:
        """One question for each name. What the engine does not answer now is asked again when it is back."""
        known: dict[str, Here | None] = {}
        for container in list(self._live.values()):
            image = container.by_name
            if image is None:
                continue
            with contextlib.suppress(RuntimeFault):
                if image.name not in known:
                    known[image.name] = await self._runtime.here(image)
                here = known[image.name]
                # None: somebody removed it, and the next job has to get it anew.
                if here is None or here.image_id != container.image_id:
                    self._post(ev.ImageMoved(asyncio.get_running_loop().time(), container.id))
        found = []
        for name, image in list(self._missed.items()):
            with contextlib.suppress(RuntimeFault):
                if await self._runtime.here(image) is not None:
                    self._missed.pop(name, None)
                    found.append(name)
        if found:
            self._say(Have(tuple(found)))

    def answer(self, question: Resolve) -> None:
        task = asyncio.get_running_loop().create_task(self._answer(question))
        self._answers.add(task)
        task.add_done_callback(self._answers.discard)

    async def _answer(self, question: Resolve) -> None:
        here, digest, why = None, None, None
        try:
            here = await self._runtime.here(ImageRef(question.name, None, {}, 0))
            if question.at_registry:
                digest = await self._runtime.resolve(question.name)
        except RuntimeFault as fault:
            why = fault.message
        age = None if here is None or here.made is None else max(0.0, time.time() - here.made)
        self._say(Resolved(question.number, None if here is None else here.image_id, age, digest, why))
