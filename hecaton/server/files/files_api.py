"""HTTP for files that jobs have made: parse, one use case, answer. A table of routes beside that of `web.api`."""

from __future__ import annotations

from hecaton.core.errors import NotFound
from hecaton.core.model import JobId
from hecaton.server.accounts.permissions import Action
from hecaton.server.files.checkpoints import JobCheckpoints
from hecaton.server.files.kept import JobFiles
from hecaton.server.web.http import Call, Route, Stream, decode
from hecaton.server.web.queries import ATTEMPT, FILES, FROM_BYTE, FROM_NUMBER
from hecaton.server.web.transfer import BYTES, require_sha256
from hecaton.wire.api import CheckpointFiles, FileList, NewCheckpoint, NewFiles

LONGEST_NUMBER = 9
"""Digits of a file's number in a path."""


class FilesApi:
    def __init__(self, files: JobFiles, checkpoints: JobCheckpoints) -> None:
        self._files, self._checkpoints = files, checkpoints

    async def keep_files(self, call: Call) -> None:
        """From the worker that holds the job, before its result: so who hears of the end finds the files."""
        told: NewFiles = decode(await call.body(), NewFiles)
        await self._files.keep(call.worker.id, JobId(call.params["job"]), told)

    async def list_files(self, call: Call) -> FileList:
        query = call.query
        return await self._files.list(call.caller, call.params["job"], query["attempt"], query["after"], query["limit"])

    async def file(self, call: Call) -> Stream:
        said, query = call.params["number"], call.query
        if not (said.isascii() and said.isdigit() and len(said) <= LONGEST_NUMBER):
            raise NotFound(f"{said[:40]!r} is no number of a file", "GET /v1/jobs/{job}/files lists them.")
        job = call.params["job"]
        pieces, size = await self._files.content(call.caller, job, int(said), query["attempt"], query["offset"])
        return Stream(pieces, BYTES, size, endless=True)

    async def keep_checkpoint(self, call: Call) -> None:
        told: NewCheckpoint = decode(await call.body(), NewCheckpoint)
        await self._checkpoints.keep(call.worker.id, JobId(call.params["job"]), told)

    async def checkpoint(self, call: Call) -> CheckpointFiles:
        return await self._checkpoints.of(call.worker.id, JobId(call.params["job"]))

    async def checkpoint_content(self, call: Call) -> Stream:
        job, sha256 = JobId(call.params["job"]), require_sha256(call.params["sha256"])
        return await self._checkpoints.content(call.worker.id, job, sha256)

    def routes(self) -> list[Route]:
        see, move, files = Action.SEE_JOBS, Action.MOVE_CONTENT, "/v1/jobs/{job}/files"
        checkpoint = "/v1/worker/jobs/{job}/checkpoint"
        return [
            Route("GET", files, see, self.list_files, "The files that a job has made", None, FileList,
                  query=(ATTEMPT, FROM_NUMBER, FILES)),
            Route("GET", files + "/{number}", see, self.file, "A file's bytes", media=(BYTES,),
                  query=(ATTEMPT, FROM_BYTE)),
            Route("POST", "/v1/worker/jobs/{job}/files", move, self.keep_files, "Files that an attempt made", NewFiles,
                  status=204),
            Route("POST", checkpoint, move, self.keep_checkpoint, "What the job's next attempt begins with",
                  NewCheckpoint, status=204),
            Route("GET", checkpoint, move, self.checkpoint, "What an attempt begins with", None, CheckpointFiles),
            Route("GET", checkpoint + "/{sha256}", move, self.checkpoint_content, "Bytes of that",
                  media=(BYTES,)),
        ]  # fmt: skip
