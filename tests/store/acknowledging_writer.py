"""A process for test_sqlite_faults: submits jobs for ever and prints each id once it was acknowledged."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from hecaton.core.errors import Conflict
from hecaton.store.port import Database
from hecaton.store.sqlite.database import open_database
from tests.contracts.store_scene import Scene


async def submit_for_ever(scene: Scene) -> None:
    while True:
        print(await scene.submit(), flush=True)


async def scene_on(database: Database) -> Scene:
    try:
        return await Scene.on(database)
    except Conflict:  # an earlier process made it
        owner = await database.read(lambda store: store.user_by_name("ann"))
        image = await database.read(lambda store: store.image_by_name("python:3.9-slim"))
        assert owner is not None
        assert image is not None
        return Scene(database, owner, image)


async def main() -> None:
    scene = await scene_on(open_database(Path(sys.argv[1])))
    await asyncio.gather(*(submit_for_ever(scene) for _ in range(8)))


if __name__ == "__main__":
    asyncio.run(main())
