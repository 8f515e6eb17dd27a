"""Folders that users send along with jobs: what of one is missing, its small files together, and all of it for the
worker that holds the job."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from hecaton.core.errors import BadRequest, NotFound, Unavailable
from hecaton.core.files import manifest
from hecaton.core.files.kept import Piece
from hecaton.core.model import Job, JobId, WorkerId
from hecaton.server.accounts.auth import Caller
from hecaton.server.fleet.members import Fleet
from hecaton.server.jobs.budget import Budget
from hecaton.server.resources import Resources
from hecaton.store.port import Blobs, Store
from hecaton.wire import bundles
from hecaton.wire.api import Folder

REMEMBERED = 16
"""Folders whose contents are kept in memory: a worker asks for one in several requests."""


class JobFolders:
    """On the loop. What a user has not sent is missing to him, whoever else has."""

    def __init__(self, resources: Resources, fleet: Fleet, budget: Budget) -> None:
        self._database, self._blobs, self._clock = resources.database, resources.blobs, resources.clock
        self._fleet, self._budget = fleet, budget
        self._sizes: OrderedDict[str, Mapping[str, int]] = OrderedDict()
        self._reading = asyncio.Lock()  # a large manifest takes ten times its size while it is read

    async def add(self, caller: Caller, sha256: str, text: bytes) -> Folder:
        """The folder of this manifest, which is there from now on, if nothing of it is missing. BadRequest for what no
        folder can hold."""
        sizes = await self._read(sha256, text)
        owner = caller.user_id
        missing = await self._database.read(lambda store: self._missing(store, owner, sizes)[0])
        if missing:
            return Folder(sha256, tuple(missing))
        with self._budget.receiving(caller, len(text)):
            await asyncio.to_thread(self._keep, text)
            now = self._clock.now()

            def add(store: Store) -> list[str]:
                """In the writer's thread, as cleaning: what is found here cannot be cleaned away in between."""
                missing, blobs = self._missing(store, owner, sizes)
                if not missing:
                    self._require_blob(sha256)
                    store.add_blob(sha256, owner, len(text), now)
                    store.add_folder(sha256, owner, {sha256, *blobs}, now)
                return missing

            return Folder(sha256, tuple(await self._database.write(add)))

    async def add_bundle(self, caller: Caller, bundle: bytes) -> None:
        """Small files, together one blob: one write to the disk. BadRequest if one is not what it is said to be."""
        files = await asyncio.to_thread(bundles.checked, bundle)
        if not files:
            return
        with self._budget.receiving(caller, len(bundle)):
            sha256 = await asyncio.to_thread(self._keep, bundle)
            now = self._clock.now()

            def enter(store: Store) -> None:
                self._require_blob(sha256)
                store.add_blob(sha256, caller.user_id, len(bundle), now)
                store.add_bundled(caller.user_id, files)

            await self._database.write(enter)

    async def bundle(self, worker: WorkerId, job_id: JobId, wanted: Sequence[str]) -> tuple[AsyncIterator[bytes], int]:
        """Files of a folder, for the worker that holds a job with it, and how many bytes that is together. NotFound for
        what is not in it."""
        self._fleet.require_holder(worker, job_id)
        job = await self._database.read(lambda store: store.job(job_id))
        if job is None or job.spec.workdir is None:
            raise NotFound(f"job {job_id} has no folder")
        sizes = await self._contents(job.spec.workdir)
        foreign = next((one for one in wanted if one not in sizes), None)
        if foreign is not None:
            raise NotFound(f"the folder of job {job_id} has no file with SHA-256 {foreign[:80]}")
        places = await self._places(job, wanted)
        total = sum(bundles.HEAD_SIZE + places[one].size for one in wanted)
        return self._bundled(wanted, places), total

    async def _places(self, job: Job, wanted: Sequence[str]) -> Mapping[str, Piece]:
        places = await self._database.read(lambda store: store.find_files(job.owner_id, wanted))
        lost = next((one for one in wanted if one not in places), None)
        if lost is not None or any(self._blobs.path(blob) is None for blob in {one.blob for one in places.values()}):
            raise NotFound(f"files of the folder of job {job.id} are gone", "hecaton-server check")
        return places

    async def _bundled(self, wanted: Sequence[str], places: Mapping[str, Piece]) -> AsyncIterator[bytes]:
        pieces = _bundled(self._blobs, wanted, places)
        while data := await asyncio.to_thread(next, pieces, b""):
            yield data

    def _missing(self, store: Store, owner: int, sizes: Mapping[str, int]) -> tuple[list[str], set[str]]:
        """What the owner has not sent, or what a killed server has lost while it cleaned; and where the rest is."""
        places = store.find_files(owner, sizes)
        blobs = {piece.blob for piece in places.values()}
        gone = {blob for blob in blobs if self._blobs.path(blob) is None}
        for sha256, piece in places.items():
            if piece.size != sizes[sha256]:
                raise BadRequest(f"the file {sha256} has {piece.size} bytes, the manifest says {sizes[sha256]}")
        return [one for one in sizes if one not in places or places[one].blob in gone], blobs

    def _keep(self, content: bytes) -> str:
        writer = self._blobs.writer()
        try:
            writer.write(content)
        except BaseException:
            writer.abort()
            raise
        return writer.commit()

    def _require_blob(self, sha256: str) -> None:
        if self._blobs.path(sha256) is None:
            raise Unavailable("the upload was cleaned away as an old, unused one in that moment", "Send it again.")

    async def _contents(self, sha256: str) -> Mapping[str, int]:
        """Of the folder of a job."""
        known = self._sizes.get(sha256)
        if known is None:
            path = self._blobs.path(sha256)
            if path is None:
                raise NotFound(f"the folder {sha256} is gone", "hecaton-server check")
            known = await self._read(sha256, await asyncio.to_thread(Path(path).read_bytes))
        self._sizes.move_to_end(sha256)
        return known

    async def _read(self, sha256: str, text: bytes) -> Mapping[str, int]:
        async with self._reading:
            sizes = await asyncio.to_thread(_sizes, sha256, text)
        self._sizes[sha256] = sizes
        while len(self._sizes) > REMEMBERED:
            self._sizes.popitem(last=False)
        return sizes


def _sizes(sha256: str, text: bytes) -> Mapping[str, int]:
    has = hashlib.sha256(text).hexdigest()
    if has != sha256:
        raise BadRequest(
            f"the manifest was to have the SHA-256 {sha256} but has {has}",
            "It was changed or cut off on its way: send it again.",
        )
    sizes: dict[str, int] = {}
    for entry in manifest.decoded(text).files:
        if sizes.setdefault(entry.sha256, entry.size) != entry.size:
            raise BadRequest(f"{entry.path[:80]!r} in the folder has the SHA-256 of a file with another size")
    return sizes


def _bundled(blobs: Blobs, wanted: Sequence[str], places: Mapping[str, Piece]) -> Iterator[bytes]:
    """Read from the disk, in pieces of about `SMALL`: of what is small there are many in each. NotFound where a blob
    was cleaned away meanwhile, or is shorter than it was."""
    waiting, size = [], 0
    with ExitStack() as opened:
        blob, file = "", None
        for sha256 in wanted:
            piece = places[sha256]
            waiting.append(bundles.head(sha256, piece.size))
            if file is None or blob != piece.blob:
                opened.close()
                path = blobs.path(piece.blob)
                if path is None:
                    raise NotFound(f"no content with SHA-256 {piece.blob}")
                blob, file = piece.blob, opened.enter_context(open(path, "rb"))
            file.seek(piece.start)
            left = piece.size
            while left:
                data = file.read(min(left, bundles.SMALL))
                if not data:
                    raise NotFound(f"no content with SHA-256 {sha256}")
                left -= len(data)
                size += len(data)
                waiting.append(data)
                if size >= bundles.SMALL:
                    yield b"".join(waiting)
                    waiting, size = [], 0
    if waiting:
        yield b"".join(waiting)
