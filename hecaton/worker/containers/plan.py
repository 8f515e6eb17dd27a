"""What one container is to be: its files, its folder and door, and what the runtime is asked for."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from hecaton.core.doors import WAYS
from hecaton.core.model import Body, Gpu, Kind
from hecaton.core.scripts import with_unix_lines
from hecaton.wire.channel import Assignment, FileRef
from hecaton.worker.doors.channel_folder import LAYOUT, OUTPUTS_NAME, ChannelFolder, seen_inside
from hecaton.worker.doors.door import Door, Known, Lies
from hecaton.worker.doors.exchange import Exchange
from hecaton.worker.doors.table import DOORS
from hecaton.worker.files.workfolders import make_program, place_in
from hecaton.worker.memory.records import Placed
from hecaton.worker.runtimes.port import (
    CHECKPOINTS,
    LABEL_CONTAINER,
    LABEL_SLOT,
    LABEL_WARM,
    LABEL_WORKER,
    OUTPUTS,
    WORKDIR,
    Bind,
    ContainerSpec,
    Prepared,
)
from hecaton.worker.site import Site

STATE_NAME = "checkpoints"
"""In the folder of a container."""


class Plan:
    """`first`: the job that it is started for. `gpus`: the cards that it may see."""

    def __init__(self, site: Site, name: str, slot: int, first: Assignment, gpus: tuple[Gpu, ...]) -> None:
        self.name = name
        self.slot = slot
        self.first = first
        self.gpus = gpus
        self._site = site
        self._working: tuple[Bind, ...] = ()
        self._program: str | None = None  # as seen inside, if it lies in there

    async def files(self, note: Callable[[str], None]) -> list[tuple[FileRef, bytes]]:
        """What lies in its folder from the start, fetched unless it is here. Raises BodyRefused, OSError."""
        files = DOORS[self.first.mode].files(self.first)
        for file in files:
            await self._fetch(file.sha256, note)
        return [(file, self._content(file)) for file in files]

    def _content(self, file: FileRef) -> bytes:
        return with_unix_lines(file.name, self._site.spool.file(file.sha256).read_bytes())

    async def _fetch(self, sha256: str, note: Callable[[str], None]) -> None:
        path = self._site.spool.file(sha256)
        try:
            os.utime(path)  # recently used
        except FileNotFoundError:
            note("fetching the job's file")
            await self._site.bodies.fetch(self.first.ref.job, sha256, path, lasting=True, say=note)
            await asyncio.to_thread(self._site.spool.prune_files)

    async def working_folder(self, note: Callable[[str], None]) -> None:
        """Of its own, where a folder goes along with its job, which is fetched unless it is here. Raises BodyRefused,
        OSError, NoRoom."""
        folder, job = self.first.workdir, self.first
        if folder is None:
            return
        own, manifest = await self._site.fetching.make(self.name, job.ref.job, folder.sha256, note)
        self._working = (Bind(str(own), WORKDIR),)
        for file in DOORS[job.mode].files(job):
            if (path := place_in(manifest, file)) is not None:
                await asyncio.to_thread(make_program, own / path, self._content(file))
                self._program = f"{WORKDIR}/{path}"

    def _kept(self, file: FileRef) -> Lies:
        return Lies(self._site.spool.file(file.sha256), self._program or seen_inside(file))

    @property
    def state(self) -> Path | None:
        """Where its container keeps what the next attempt begins with; None: it is shared by several jobs."""
        return None if WAYS[self.first.mode].warm else self._site.folder / self.name / STATE_NAME

    async def _lay_out_state(self, state: Path) -> None:
        """Raises BodyRefused, OSError."""
        job = self.first
        os.mkdir(state)
        os.chmod(state, 0o777)  # whoever the image runs as may replace what an earlier attempt has left
        if job.checkpoint:
            await self._site.checkpoints.restore(job.ref.job, state, self._site.folders.uid_of(job))

    def exchange(self, folder: ChannelFolder, placed: Placed | None = None) -> Exchange:
        """With its door, which is not open yet. `placed`: what an earlier process of this worker has kept of it."""
        exchange = Exchange(self._site, self.name, folder, on_card=bool(self.gpus), begun=placed is not None)
        nonce, served = (None, None) if placed is None else (placed.nonce, placed.served)
        door = DOORS[self.first.mode]
        exchange.door = door.of(Known(self.first, folder, exchange, self._site.max_result(), nonce, served))
        exchange.log.elsewhere = door.prints_elsewhere
        return exchange

    def placed(self, nonce: str | None) -> Placed:
        """For the next process of this worker. Without payload and environment: both are with the container."""
        job = self.first
        image = msgspec.structs.replace(job.image, env={})
        options = msgspec.structs.replace(job.options, env={})
        first = msgspec.structs.replace(job, payload=Body(Kind.JSON, b""), image=image, options=options)
        gpu = self.gpus[0].uuid if self.gpus else None
        return Placed(self.name, self.slot, gpu, first, nonce, self._site.boot, self._site.now(), LAYOUT)

    async def spec(self, prepared: Prepared, door: Door) -> ContainerSpec:
        """Raises RuntimeFault for a mount that is not to be had, OSError."""
        job, folders = self.first, self._site.folders
        folder = self._site.folder / self.name
        shared = await asyncio.to_thread(folders.binds, job, folder)
        if self.state is not None:
            await self._lay_out_state(self.state)
            shared = (*shared, Bind(str(self.state), CHECKPOINTS))
        return ContainerSpec(
            id=self.name,
            name=f"hecaton-{self._site.worker_id[:8]}-{self.name}",
            image=prepared,
            image_name=job.image.name,
            env={**job.image.env, **job.options.env, **door.environment(job)},
            labels={
                LABEL_WORKER: self._site.worker_id,
                LABEL_SLOT: str(self.slot),
                LABEL_WARM: job.warm_key or "",
                LABEL_CONTAINER: self.name,
            },
            folder=str(folder),
            python=str(self._site.python),
            gpus=tuple(gpu.uuid for gpu in self.gpus),
            commands=door.commands(job, self._kept),
            options=job.options,
            memory=self._site.memory,
            binds=(*self._working, Bind(str(folder / OUTPUTS_NAME), OUTPUTS), *shared),
            # An image's own command may be relative to the folder that the image says.
            begins_in=WORKDIR if self._working and job.file is not None else None,
            uid=folders.uid_of(job),
        )
