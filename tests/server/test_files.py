"""Files that jobs have made: workers tell of them, people list and fetch them; and workers that lie about them."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from hecaton.wire.channel import Assignment
from tests.server.running import IMAGE, Running
from tests.server.scripted_worker import ScriptedWorker


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def _put(server: Running, worker: ScriptedWorker, job: str, content: bytes) -> str:
    sha256 = _sha256(content)
    path = f"/v1/worker/jobs/{job}/blobs/{sha256}"
    assert (await server.nobody.call("PUT", path, body=content, headers=worker.http)).status == 201
    return sha256


async def _tell(server: Running, worker: ScriptedWorker, job: Assignment, files: list[Any], first: int = 0) -> int:
    told = {"attempt": job.ref.attempt, "first": first, "files": files}
    reply = await server.nobody.call("POST", f"/v1/worker/jobs/{job.ref.job}/files", told, headers=worker.http)
    return reply.status


def _file(path: str, content: bytes, *pieces: tuple[str, int, int], **more: Any) -> dict[str, Any]:
    return {"path": path, "size": len(content), "sha256": _sha256(content), "pieces": pieces, **more}


async def _running(server: Running) -> tuple[ScriptedWorker, Assignment]:
    await server.image()
    worker = await server.worker()
    await server.admin.submit(IMAGE, 1)
    return worker, await worker.start()


async def test_what_a_worker_brings_is_listed_and_fetched_from_any_byte_on(server: Running) -> None:
    worker, job = await _running(server)
    bundle = await _put(server, worker, job.ref.job, b"onetwo")
    halves = [await _put(server, worker, job.ref.job, part) for part in (b"large-", b"file")]
    files = [
        _file("a/one.txt", b"one", (bundle, 0, 3)),
        _file("run.sh", b"two", (bundle, 3, 3), executable=True),
        _file("model.pt", b"large-file", (halves[0], 0, 6), (halves[1], 0, 4)),
        _file("empty", b""),
        {"path": "pipe", "size": 0, "why": "it is a pipe"},
    ]
    assert await _tell(server, worker, job, files) == 204
    assert await _tell(server, worker, job, files[1:], first=1) == 204  # the answer was lost: said again
    await worker.finish(job.ref)
    await server.admin.ended(job.ref.job)
    path = f"/v1/jobs/{job.ref.job}/files"
    listed = await server.admin.get(path)
    assert [one["path"] for one in listed["files"]] == ["a/one.txt", "run.sh", "model.pt", "empty", "pipe"]
    assert (listed["attempt"], listed["kept"], listed["size"], listed["left"]) == (1, 4, 16, 1)
    assert [listed["files"][1]["executable"], listed["files"][4]["why"]] == [True, "it is a pipe"]
    page = await server.admin.get(f"{path}?limit=2&after=1")
    assert ([one["number"] for one in page["files"]], page["next"]) == ([1, 2], 3)
    for number, content in enumerate((b"one", b"two", b"large-file", b"")):
        assert (await server.admin.call("GET", f"{path}/{number}")).body == content
    for offset in range(11):
        assert (await server.admin.call("GET", f"{path}/2?offset={offset}")).body == b"large-file"[offset:]
    assert (await server.admin.call("GET", f"{path}/2?offset=11")).status == 400
    gone = await server.admin.call("GET", f"{path}/4")
    assert (gone.status, "it is a pipe" in gone.message) == (404, True)
    for wrong in ("5", "-1", "x", "9" * 30, "%2e%2e"):
        assert (await server.admin.call("GET", f"{path}/{wrong}")).status == 404


async def test_files_are_seen_by_their_jobs_owner_alone(server: Running) -> None:
    worker, job = await _running(server)
    blob = await _put(server, worker, job.ref.job, b"secret")
    await _tell(server, worker, job, [_file("key", b"secret", (blob, 0, 6))])
    bob = await server.user("bob")
    for path in ("files", "files/0"):
        assert (await bob.call("GET", f"/v1/jobs/{job.ref.job}/{path}")).status == 404
    assert (await bob.call("POST", f"/v1/worker/jobs/{job.ref.job}/files", {})).status == 403


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../x", "a/../x", "a//b", "", ".", "a/", "nul\0", "x" * 1025, "/".join("x" * 66)]
)
async def test_a_name_that_leads_elsewhere_is_refused(server: Running, name: str) -> None:
    worker, job = await _running(server)
    assert await _tell(server, worker, job, [_file(name, b"")]) == 400
    assert (await server.admin.get(f"/v1/jobs/{job.ref.job}/files"))["files"] == []


async def test_pieces_are_of_what_came_for_a_job_of_the_same_owner(server: Running) -> None:
    worker, job = await _running(server)
    ada = await server.user("ada")
    hers, mine = await ada.upload(b"hers"), await _put(server, worker, job.ref.job, b"mine")
    refused = [
        _file("x", b"hers", (hers, 0, 4)),
        _file("x", b"hers", (_sha256(b"nothing"), 0, 4)),
        _file("x", b"mine+", (mine, 0, 5)),
        _file("x", b"min", (mine, -1, 3)),
        _file("x", b"mine", (mine, 0, 3)),
        _file("x", b"mine", ("../../etc/passwd", 0, 4)),
        _file("x", b"mine", (mine, 0, 4), why="it is kept and it is not"),
    ]
    for file in refused:
        assert await _tell(server, worker, job, [file]) == 400, file
    assert await _tell(server, worker, job, [_file("x", b"mine", (mine, 0, 4))]) == 204


async def test_only_who_holds_a_job_says_what_it_made_and_of_attempts_that_there_are(server: Running) -> None:
    worker, job = await _running(server)
    other = await server.worker("w2")
    assert await _tell(server, other, job, []) in (404, 409)
    told = {"attempt": 2, "first": 0, "files": []}
    path = f"/v1/worker/jobs/{job.ref.job}/files"
    assert (await server.nobody.call("POST", path, told, headers=worker.http)).status == 404
    over = {"attempt": 1, "first": 99_999, "files": [_file("a", b""), _file("b", b"")]}
    assert (await server.nobody.call("POST", path, over, headers=worker.http)).status == 400


async def test_bytes_that_files_need_stay_as_long_as_these(server: Running) -> None:
    worker, job = await _running(server)
    blob = await _put(server, worker, job.ref.job, b"model")
    await _tell(server, worker, job, [_file("model.pt", b"model", (blob, 0, 5))])
    await worker.finish(job.ref)
    await server.admin.ended(job.ref.job)
    path = f"/v1/jobs/{job.ref.job}/files"
    server.later(2 * server.server.settings.blob_grace)
    server.server.parts.duties._cleaned = 0.0
    await server.server.parts.duties.clean()
    assert (await server.admin.call("GET", f"{path}/0")).body == b"model"
    server.later(server.server.settings.keep_results + 7200)
    await server.server.parts.duties.clean()
    job_id = job.ref.job
    assert await server.server.database.read(lambda store: store.file_sums(job_id, None)) is None
    assert server.server.parts.resources.blobs.path(blob) is None


async def test_what_is_listed_counts_as_stored_until_it_goes_with_its_job(server: Running) -> None:
    worker, job = await _running(server)
    blob = await _put(server, worker, job.ref.job, b"model")

    async def stored() -> list[tuple[int, int]]:
        found = await server.server.database.read(lambda store: store.stored())
        return [(one.results, one.total) for one in found]

    before = await stored()
    for _ in range(2):
        await _tell(
            server, worker, job, [_file("m" * 900, b"model", (blob, 0, 5)), {"path": "p", "size": 0, "why": "x"}]
        )
    [(results, _)], [(earlier, _)] = await stored(), before
    assert 1000 < results - earlier < 3000, "once, however often it is said"
    await worker.finish(job.ref)
    await server.admin.ended(job.ref.job)
    server.later(server.server.settings.keep_jobs + 7200)
    await server.server.parts.duties.clean()
    assert await stored() == [(0, 0)]
