"""Brings the folders of jobs to this machine: the manifest, then in one request what of it is missing.

Jobs that bring the same folder at one time wait for one fetch.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp

from hecaton.core.errors import BadRequest, NotFound
from hecaton.core.files.manifest import Manifest, decoded
from hecaton.core.model import JobId
from hecaton.wire.bundles import MAX_BUNDLED
from hecaton.worker.files.content import Damaged, Unpacking
from hecaton.worker.files.workfolders import WorkFolders
from hecaton.worker.link.bodies import Bodies, BodyRefused, Say
from hecaton.worker.memory import disk
from hecaton.worker.memory.disk import Disk


class NoRoom(Exception):
    """A folder does not fit on this machine's disk, which has room for others."""


_TRIES = 3
"""What was here may be dropped for others that need the room, before it is laid out."""


class _Bringing:
    """One for a folder at a time. `waiting`: whom it would be for; without any it ends."""

    def __init__(self, job: JobId, task: asyncio.Task[Manifest]) -> None:
        self.job = job
        self.task = task
        self.waiting = 0


class BroughtFolders:
    """On the loop, with disk work in threads."""

    def __init__(self, folders: WorkFolders, bodies: Bodies, disk: Disk) -> None:
        self._folders = folders
        self._bodies = bodies
        self._disk = disk
        self._pruning: asyncio.Task[None] | None = None
        self._fetches: dict[str, _Bringing] = {}

    async def make(self, container: str, job: JobId, sha256: str, say: Say) -> tuple[Path, Manifest]:
        """A folder of the container's own over that of this manifest. Raises BodyRefused, OSError."""
        for _ in range(_TRIES):
            manifest = await self._bring(job, sha256, say)
            try:
                own = await asyncio.to_thread(self._folders.make, container, sha256, manifest)
            except FileNotFoundError:
                self._folders.drop(container)
                continue
            self._prune()
            return own, manifest
        raise BodyRefused(NotFound("there is not enough room for the job's folder beside those of others"))

    async def _bring(self, job: JobId, sha256: str, say: Say) -> Manifest:
        """What is in it is here then."""
        while True:
            fetch = self._fetches.get(sha256)
            if fetch is None:
                fetch = _Bringing(job, asyncio.get_running_loop().create_task(self._fetch(job, sha256, say)))
                self._fetches[sha256] = fetch
                fetch.task.add_done_callback(lambda done: self._ended(sha256, done))
            try:
                return await self._share(sha256, fetch)
            except BodyRefused:
                if fetch.job == job:
                    raise  # what is refused to another job, which may have ended, is not yet refused to this one

    async def _share(self, sha256: str, fetch: _Bringing) -> Manifest:
        fetch.waiting += 1
        try:
            return await asyncio.shield(fetch.task)
        finally:
            fetch.waiting -= 1
            if not fetch.waiting:
                self._forget(sha256, fetch.task)
                fetch.task.cancel()

    def _ended(self, sha256: str, task: asyncio.Task[Manifest]) -> None:
        if not task.cancelled():
            task.exception()  # whoever waits has it; nobody may wait any more
        self._forget(sha256, task)

    def _forget(self, sha256: str, task: asyncio.Task[Manifest]) -> None:
        if (fetch := self._fetches.get(sha256)) is not None and fetch.task is task:
            del self._fetches[sha256]

    async def _fetch(self, job: JobId, sha256: str, say: Say) -> Manifest:
        manifest = await self._manifest(job, sha256, say)
        contents = self._folders.contents
        missing = await asyncio.to_thread(contents.lacks, manifest.files)
        if missing:
            size = sum(missing.values())
            say(f"fetching its folder: {len(missing):,} files, {size:,} bytes")
            try:
                self._disk.require_room(size)
                wanted = list(missing)
                for start in range(0, len(wanted), MAX_BUNDLED):
                    await self._bundle(job, {name: missing[name] for name in wanted[start : start + MAX_BUNDLED]}, say)
            except OSError as error:
                why = self._disk.lacks(size, "the job's folder") if error.errno in disk.ERRORS else None
                if why is not None:
                    raise NoRoom(why) from error
                raise
        return manifest

    def _prune(self) -> None:
        """While the job starts."""
        if self._pruning is None or self._pruning.done():
            self._pruning = asyncio.get_running_loop().create_task(asyncio.to_thread(self._folders.prune_quietly))

    async def _manifest(self, job: JobId, sha256: str, say: Say) -> Manifest:
        file = self._folders.contents.folder / sha256
        if not await asyncio.to_thread(file.exists):
            await self._bodies.fetch(job, sha256, file, lasting=True, say=say)
        try:
            return await asyncio.to_thread(lambda: decoded(file.read_bytes()))
        except BadRequest as error:
            file.unlink(missing_ok=True)
            raise BodyRefused(error) from error

    async def _bundle(self, job: JobId, missing: dict[str, int], say: Say) -> None:
        """Another try after a cut asks for the rest."""

        async def feed(pieces: aiohttp.StreamReader) -> None:
            unpacking = Unpacking(self._folders.contents, missing)
            try:
                async for piece in pieces.iter_chunked(_CHUNK):
                    await asyncio.to_thread(unpacking.feed, piece)
            except Damaged as error:
                raise aiohttp.ClientPayloadError(str(error)) from error
            finally:
                await asyncio.shield(asyncio.to_thread(unpacking.close))
                for name in missing.keys() - unpacking.missing.keys():
                    del missing[name]
            if missing:
                raise aiohttp.ClientPayloadError(f"{len(missing)} files of the bundle did not come")

        await self._bodies.fetch_bundle(job, missing.keys(), feed, say)


_CHUNK = 1024 * 1024

__all__ = ["BroughtFolders", "NoRoom"]
