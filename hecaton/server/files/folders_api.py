"""HTTP for folders that go along with jobs: parse, one use case, answer. A table of routes beside that of `web.api`."""

from __future__ import annotations

from hecaton.core.files.manifest import MAX_MANIFEST
from hecaton.core.model import JobId
from hecaton.server.accounts.permissions import Action
from hecaton.server.files.folders import JobFolders
from hecaton.server.web.http import Call, Route, Stream, decode
from hecaton.server.web.transfer import BYTES, require_sha256
from hecaton.wire.api import Folder, Wanted
from hecaton.wire.bundles import MAX_BUNDLE


class FoldersApi:
    def __init__(self, folders: JobFolders) -> None:
        self._folders = folders

    async def add(self, call: Call) -> Folder:
        sha256 = require_sha256(call.params["sha256"])
        return await self._folders.add(call.caller, sha256, await call.body(MAX_MANIFEST))

    async def add_bundle(self, call: Call) -> None:
        await self._folders.add_bundle(call.caller, await call.body(MAX_BUNDLE))

    async def bundle(self, call: Call) -> Stream:
        wanted: Wanted = decode(await call.body(), Wanted)
        pieces, size = await self._folders.bundle(call.worker.id, JobId(call.params["job"]), wanted.files)
        return Stream(pieces, BYTES, size, endless=True)

    def routes(self) -> list[Route]:
        upload, move = Action.UPLOAD, Action.MOVE_CONTENT
        return [
            Route("PUT", "/v1/folders/{sha256}", upload, self.add, "A folder's manifest: what of it is missing, or it"
                  " is there", None, Folder, upload=True),
            Route("POST", "/v1/blobs", upload, self.add_bundle, "Upload small files together", status=201, upload=True),
            Route("POST", "/v1/worker/jobs/{job}/bundle", move, self.bundle, "Files of a job's folder together", Wanted,
                  media=(BYTES,)),
        ]  # fmt: skip
