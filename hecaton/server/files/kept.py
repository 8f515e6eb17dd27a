"""The files that attempts have made: workers tell of them, people list and fetch them.

A file's name is text for people, here as everywhere on the server: no path on this machine is ever made of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from hecaton.core.errors import BadRequest, NotFound
from hecaton.core.files.kept import MAX_FILES, KeptFile, Piece, require_sound
from hecaton.core.model import AttemptRef, Job, JobId, WorkerId
from hecaton.server.accounts.auth import Caller
from hecaton.server.accounts.permissions import Action
from hecaton.server.fleet.members import Fleet
from hecaton.server.resources import Resources
from hecaton.store.port import FileSums, Store
from hecaton.wire.api import FileList, FileView, NewFiles

STEP = 1024 * 1024
"""Bytes that are read at a time."""


class JobFiles:
    """On the loop. Files are as good as results: what an attempt has made is stored, whatever the owner's budget says,
    and over the budget nothing new of his is started."""

    def __init__(self, resources: Resources, fleet: Fleet) -> None:
        self._database, self._blobs = resources.database, resources.blobs
        self._fleet = fleet

    async def keep(self, worker: WorkerId, job: JobId, told: NewFiles) -> None:
        """What a worker says of a job that it holds. Durable when this returns."""
        self._fleet.require_holder(worker, job)
        if told.first + len(told.files) > MAX_FILES:
            raise BadRequest(f"an attempt has at most {MAX_FILES:,} files")
        for file in told.files:
            require_sound(file)
        ref = AttemptRef(job, told.attempt)
        await self._database.write(lambda store: store.keep_files(ref, told.first, told.files))

    async def list(self, caller: Caller, job_id: str, attempt: int | None, after: int, limit: int) -> FileList:
        def read(store: Store) -> FileList:
            job = _seen(store, caller, job_id)
            # Whoever asks for a further page has had the sums: to count costs more than the page.
            counted = after == 0 or attempt is None
            sums = store.file_sums(job.id, attempt) if counted else FileSums(attempt or 0, 0, 0, 0)
            if sums is None:
                return FileList(0, ())
            page = store.files(job.id, sums.attempt, after, limit)
            views = tuple(_view(number, file) for number, file in page)
            more = page[-1][0] + 1 if len(page) == limit else None
            return FileList(sums.attempt, views, sums.kept, sums.size, sums.left, more)

        return await self._database.read(read)

    async def content(
        self, caller: Caller, job_id: str, number: int, attempt: int | None, offset: int
    ) -> tuple[AsyncIterator[bytes], int]:
        """The bytes of a file from `offset` on, and how many these are. Raises before the first piece."""

        def read(store: Store) -> KeptFile | None:
            job = _seen(store, caller, job_id)
            newest = None if attempt is not None else store.file_sums(job.id, None)
            chosen = attempt if newest is None else newest.attempt
            return None if chosen is None else store.file(job.id, chosen, number)

        file = await self._database.read(read)
        if file is None:
            raise NotFound(f"job {job_id[:80]} has no file {number}", f"hecaton get {job_id[:80]} --list")
        if file.why:
            raise NotFound(f"{file.path!r} of job {job_id[:80]} was not kept: {file.why}")
        if offset > file.size:
            raise BadRequest(f"{file.path!r} has {file.size} bytes: none from {offset} on")
        if any(self._blobs.path(piece.blob) is None for piece in file.pieces):
            raise NotFound(f"the bytes of {file.path!r} of job {job_id[:80]} are gone", "hecaton-server check")
        return self._read(file.pieces, offset), file.size - offset

    async def _read(self, pieces: Sequence[Piece], offset: int) -> AsyncIterator[bytes]:
        for piece in pieces:
            skipped = min(offset, piece.size)
            offset -= skipped
            start, left = piece.start + skipped, piece.size - skipped
            while left > 0:
                data = await asyncio.to_thread(self._read_once, piece.blob, start, min(left, STEP))
                start, left = start + len(data), left - len(data)
                yield data

    def _read_once(self, sha256: str, start: int, size: int) -> bytes:
        """Raises NotFound where it was cleaned away meanwhile, or is shorter than it was."""
        path = self._blobs.path(sha256)
        if path is not None:
            with open(path, "rb") as file:
                file.seek(start)
                if data := file.read(size):
                    return data
        raise NotFound(f"no content with SHA-256 {sha256}")


def _seen(store: Store, caller: Caller, job_id: str) -> Job:
    """The same answer for a job of somebody else as for one that does not exist."""
    job = store.job(job_id, None if caller.may(Action.SEE_JOBS) else caller.user_id)
    if job is None or not caller.may(Action.SEE_JOBS, job.owner_id):
        raise NotFound(f"no job {job_id[:80]!r}", "hecaton job list shows yours.")
    return job


def _view(number: int, file: KeptFile) -> FileView:
    return FileView(number, file.path, file.size, file.sha256, file.executable, file.why)
