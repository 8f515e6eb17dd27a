"""The state of jobs that outlives an attempt: a worker tells of a complete checkpoint, and whoever has the job next
fetches it."""

from __future__ import annotations

from hecaton.core.errors import BadRequest, NotFound
from hecaton.core.files.kept import require_sound
from hecaton.core.model import AttemptRef, JobId, WorkerId
from hecaton.server.fleet.members import Fleet
from hecaton.server.resources import Resources
from hecaton.server.web.http import Stream
from hecaton.server.web.transfer import send_blob
from hecaton.wire.api import CheckpointFiles, NewCheckpoint


class JobCheckpoints:
    """For workers, about jobs that they hold. On the loop."""

    def __init__(self, resources: Resources, fleet: Fleet) -> None:
        self._database, self._blobs, self._clock = resources.database, resources.blobs, resources.clock
        self._fleet = fleet

    async def keep(self, worker: WorkerId, job: JobId, told: NewCheckpoint) -> None:
        """Durable when this returns, in place of the one before."""
        self._fleet.require_holder(worker, job)
        for file in told.files:
            require_sound(file)
            if file.why:
                raise BadRequest(f"{file.path[:80]!r} has no content: a checkpoint is complete")
        ref, now = AttemptRef(job, told.attempt), self._clock.now()
        await self._database.write(lambda store: store.keep_checkpoint(ref, told.files, now))

    async def of(self, worker: WorkerId, job: JobId) -> CheckpointFiles:
        self._fleet.require_holder(worker, job)
        found = await self._database.read(lambda store: store.checkpoint(job))
        return CheckpointFiles(() if found is None else found.files)

    async def content(self, worker: WorkerId, job: JobId, sha256: str) -> Stream:
        self._fleet.require_holder(worker, job)
        found = await self._database.read(lambda store: store.checkpoint(job))
        if found is None or all(piece.blob != sha256 for file in found.files for piece in file.pieces):
            raise NotFound(f"the checkpoint of job {job} has no such content")
        return send_blob(self._blobs, sha256)
