"""The state of jobs: workers tell of it, and only whoever has the job now is told."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from hecaton.server import duties
from hecaton.wire.channel import Assignment
from hecaton.worker.files.checkpoints import Checkpoints
from hecaton.worker.files.made import MadeFiles
from hecaton.worker.files.reading import SMALL
from hecaton.worker.link.bodies import Bodies
from tests.server.running import IMAGE, Running
from tests.server.scripted_worker import ScriptedWorker
from tests.server.test_files import _file, _put


async def _running(server: Running) -> tuple[ScriptedWorker, Assignment]:
    await server.image()
    worker = await server.worker()
    await server.admin.submit(IMAGE, 1)
    return worker, await worker.start()


async def _keep(server: Running, worker: ScriptedWorker, job: Assignment, files: list[Any], attempt: int = 1) -> int:
    path = f"/v1/worker/jobs/{job.ref.job}/checkpoint"
    reply = await server.nobody.call("POST", path, {"attempt": attempt, "files": files}, headers=worker.http)
    return reply.status


async def test_the_newest_one_is_for_whoever_has_the_job_now(server: Running) -> None:
    worker, job = await _running(server)
    path = f"/v1/worker/jobs/{job.ref.job}/checkpoint"
    assert not job.checkpoint
    for content in (b"first", b"second"):
        blob = await _put(server, worker, job.ref.job, content)
        assert await _keep(server, worker, job, [_file("model", content, (blob, 0, len(content)))]) == 204
    other = await server.worker("other")
    assert (await server.nobody.call("GET", path, headers=other.http)).status == 409
    reply = await server.nobody.call("GET", path, headers=worker.http)
    (file,) = msgspec.json.decode(reply.body)["files"]
    assert (file["path"], file["sha256"]) == ("model", hashlib.sha256(b"second").hexdigest())
    second = await server.nobody.call("GET", f"{path}/{file['pieces'][0][0]}", headers=worker.http)
    assert second.body == b"second"
    old = hashlib.sha256(b"first").hexdigest()
    assert (await server.nobody.call("GET", f"{path}/{old}", headers=worker.http)).status == 404
    assert (await server.nobody.call("GET", f"{path}/{file['sha256']}", headers=other.http)).status == 409


async def test_what_is_no_checkpoint_of_this_attempt_is_refused(server: Running) -> None:
    worker, job = await _running(server)
    blob = await _put(server, worker, job.ref.job, b"state")
    good = _file("model", b"state", (blob, 0, 5))
    assert await _keep(server, worker, job, []) == 400
    assert await _keep(server, worker, job, [{"path": "model", "size": 0, "why": "it is a pipe"}]) == 400
    assert await _keep(server, worker, job, [good | {"path": "../model"}]) == 400
    assert await _keep(server, worker, job, [_file("model", b"other", ("0" * 64, 0, 5))]) == 400
    assert await _keep(server, worker, job, [good], attempt=2) == 409
    assert (await server.admin.call("POST", f"/v1/worker/jobs/{job.ref.job}/checkpoint", {})).status == 403
    assert await _keep(server, worker, job, [good]) == 204


async def test_what_a_newer_checkpoint_has_replaced_is_sent_again_when_it_is_a_result(
    server: Running, tmp_path: Path
) -> None:
    """Here the worker's own parts speak: the server has cleaned away by then what they had sent."""
    worker, job = await _running(server)
    state, outputs = tmp_path / "state", tmp_path / "outputs"
    for folder in (state, outputs):
        folder.mkdir()
    (outputs / "best.pt").write_bytes(b"1" * (SMALL + 1))
    async with aiohttp.ClientSession(headers=worker.http) as session:
        bodies = Bodies(server.url, session)
        made = MadeFiles(tmp_path, bodies, lambda path: None)
        checkpoints = Checkpoints(tmp_path, bodies, made, lambda path: None)
        for step in ("1", "2"):
            (state / "new").write_bytes(step.encode() * (SMALL + 1))
            (state / "new").rename(state / f"step-{step}.pt")
            (state / ".complete").touch()
            checkpoints.take(job.ref, state)
            await checkpoints.send(job.ref, print)
            (state / f"step-{step}.pt").unlink()
        server.later(duties.CLEAN_EVERY + 1)
        await server.server.parts.duties.clean()
        made.take(job.ref, outputs)
        await made.send(job.ref, print)
    (file,) = (await server.admin.get(f"/v1/jobs/{job.ref.job}/files"))["files"]
    assert (file["path"], file.get("why", "")) == ("best.pt", "")
