"""A small world for the store's contract: one owner, one image, two workers, and short words for what tests do."""

from __future__ import annotations

import uuid
from typing import Any, Self

from hecaton.core.model import (
    AttemptRef,
    Body,
    Image,
    Job,
    JobId,
    JobSpec,
    Kind,
    Reason,
    Role,
    User,
    WorkerId,
)
from hecaton.core.placement.matching import Lane
from hecaton.store.port import AttemptEnd, Claim, Claimed, Database, EndResult, NewJob, Stored

NOW = 1_700_000_000.0
WORKER = WorkerId("11111111-0000-7000-8000-000000000001")
OTHER = WorkerId("22222222-0000-7000-8000-000000000002")


def new_id() -> JobId:
    return JobId(str(uuid.uuid4()))


class Scene:
    """`await Scene.on(database)`; times are given relative to `NOW`."""

    def __init__(self, database: Database, owner: User, image: Image) -> None:
        self.database = database
        self.owner = owner
        self.image = image
        self.lane = Lane(owner.id, image.id)

    @classmethod
    async def on(cls, database: Database) -> Self:
        owner = await database.write(lambda store: store.create_user("ann", "hash", Role.ADMIN, NOW))
        image = await database.write(lambda store: store.add_image("python:3.9-slim", None, "", NOW))
        await database.write(lambda store: store.add_worker(WORKER, "gpu-1", "ann", b"token-1", NOW))
        await database.write(lambda store: store.add_worker(OTHER, "gpu-2", "ann", b"token-2", NOW))
        return cls(database, owner, image)

    def new_job(self, at: float = 0, **changes: Any) -> NewJob:
        """`changes`: fields of JobSpec, or of NewJob."""
        about_spec = {name: changes.pop(name) for name in list(changes) if name in JobSpec.__struct_fields__}
        values: dict[str, Any] = {
            "id": new_id(),
            "owner_id": self.owner.id,
            "image_id": self.image.id,
            "lane": self.lane,
            "spec": JobSpec(**(_of_lane(changes.get("lane", self.lane)) | about_spec)),
            "payload": Body.inline(Kind.JSON, b"[1]"),
            "created_at": NOW + at,
            "key": str(uuid.uuid4()),
            "key_digest": b"digest",
        }
        return NewJob(**(values | changes))

    async def submit(self, at: float = 0, **changes: Any) -> JobId:
        job = self.new_job(at, **changes)
        await self.submit_all([job])
        return job.id

    async def submit_all(self, jobs: list[NewJob]) -> list[Stored]:
        return await self.database.write(lambda store: store.submit(jobs))

    async def claim(
        self, count: int = 1, at: float = 0, *, worker: WorkerId = WORKER, lane: Lane | None = None
    ) -> list[Claimed]:
        claim = Claim((lane or self.lane).key(), worker, 0, count)
        return await self.database.write(lambda store: store.claim([claim], NOW + at))

    async def submit_and_claim(self, **changes: Any) -> AttemptRef:
        """The only waiting job of its lane is claimed by WORKER."""
        job = await self.submit(**changes)
        [claimed] = await self.claim()
        assert claimed.ref.job == job
        return claimed.ref

    async def start(self, ref: AttemptRef, at: float = 0) -> None:
        await self.database.write(lambda store: store.start([ref], NOW + at))

    async def end(
        self, ref: AttemptRef, reason: Reason, at: float = 0, *, by: WorkerId | None = WORKER, **more: Any
    ) -> EndResult:
        end = AttemptEnd(ref, by, reason, NOW + at, **more)
        [ended] = await self.database.write(lambda store: store.end([end]))
        return ended

    async def job(self, name: str) -> Job:
        found = await self.database.read(lambda store: store.job(name))
        assert found is not None, f"there is no job {name}"
        return found


def _of_lane(lane: Lane) -> dict[str, Any]:
    """What of a spec makes its jobs belong to this lane."""
    return {"mode": lane.mode, "file": lane.file}
