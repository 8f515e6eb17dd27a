"""Folders that go along with jobs: what of one is missing, bundles of that, and the worker that fetches it; and people
who send what no folder can hold, or name what is somebody else's."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from hecaton.core.batches import lane_of
from hecaton.core.files import manifest
from hecaton.core.files.manifest import Entry
from hecaton.core.model import JobSpec
from hecaton.server.fleet.packed import needs_asked
from hecaton.wire import bundles
from tests.server.people import Person
from tests.server.running import IMAGE, Running


def sha256_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def manifest_of(files: Mapping[str, bytes]) -> bytes:
    return manifest.encoded(Entry(path, "file", sha256_of(data), len(data)) for path, data in files.items())


def bundle_of(*files: bytes) -> bytes:
    return b"".join(bundles.head(sha256_of(data), len(data)) + data for data in files)


async def put_folder(person: Person, text: bytes, sha256: str | None = None) -> tuple[int, Any]:
    reply = await person.call("PUT", f"/v1/folders/{sha256 or sha256_of(text)}", body=text)
    return reply.status, reply.json()


async def send(person: Person, files: Mapping[str, bytes]) -> str:
    """All of it; its name."""
    text = manifest_of(files)
    assert (await person.call("POST", "/v1/blobs", body=bundle_of(*files.values()))).status == 201
    status, said = await put_folder(person, text)
    assert (status, said["missing"]) == (200, [])
    return sha256_of(text)


FILES = {"train.py": b"import helper", "lib/helper.py": b"x = 1", "lib/__init__.py": b"", "data.bin": b"\0" * 5000}


async def test_what_is_missing_is_asked_for_once_and_then_only_what_has_changed(server: Running) -> None:
    text = manifest_of(FILES)
    status, said = await put_folder(server.admin, text)
    assert status == 200
    assert set(said["missing"]) == {sha256_of(data) for data in FILES.values()}
    folder = await send(server.admin, FILES)
    assert folder == sha256_of(text)
    assert await put_folder(server.admin, text) == (200, {"sha256": folder, "missing": []})
    changed = {**FILES, "train.py": b"import helper, os"}
    _, said = await put_folder(server.admin, manifest_of(changed))
    assert said["missing"] == [sha256_of(changed["train.py"])]


async def test_the_worker_that_holds_the_job_gets_the_manifest_and_what_it_wants_of_it(server: Running) -> None:
    await server.image()
    worker = await server.worker()
    large = b"L" * (bundles.SMALL + 7)
    path = f"/v1/blobs/{sha256_of(large)}"
    assert (await server.admin.call("PUT", path, body=large)).status == 201
    await send(server.admin, FILES)
    text = manifest_of({**FILES, "large": large})
    assert (await put_folder(server.admin, text))[1]["missing"] == []
    folder = sha256_of(text)
    await server.admin.submit(IMAGE, 1, workdir=folder)
    job = await worker.start()
    assert job.workdir is not None
    assert job.workdir.sha256 == folder
    base = f"/v1/worker/jobs/{job.ref.job}"
    got = await server.nobody.call("GET", f"{base}/blobs/{folder}", headers=worker.http)
    assert got.body == text
    wanted = [sha256_of(large), sha256_of(b""), sha256_of(b"x = 1")]
    got = await server.nobody.call("POST", f"{base}/bundle", {"files": wanted}, headers=worker.http)
    assert got.body == bundle_of(large, b"", b"x = 1")
    # What is not in this folder is not for this worker, though it is its owner's.
    other = await send(server.admin, {"other": b"secret"})
    for foreign in (sha256_of(b"secret"), other, "0" * 64, "../x"):
        got = await server.nobody.call("POST", f"{base}/bundle", {"files": [foreign]}, headers=worker.http)
        assert got.status == 404, foreign
    await worker.finish(job.ref)
    assert (await server.admin.ended(job.ref.job))["workdir"] == folder
    got = await server.nobody.call("POST", f"{base}/bundle", {"files": wanted}, headers=worker.http)
    assert got.status in (403, 409), got.body  # it does not hold it any more


async def test_what_somebody_else_has_sent_is_missing(server: Running) -> None:
    await server.image()
    folder = await send(server.admin, FILES)
    eve = await server.user("eve")
    _, said = await put_folder(eve, manifest_of(FILES))
    assert len(said["missing"]) == len(FILES)
    reply = await eve.call("POST", "/v1/jobs", {"image": IMAGE, "workdir": folder})
    assert reply.status == 404
    assert "no folder with SHA-256" in reply.message


@pytest.mark.parametrize("workdir", ["0" * 64, "", "../../etc", "x" * 100_000, "\0"])
async def test_a_job_names_a_folder_that_is_there(server: Running, workdir: str) -> None:
    await server.image()
    reply = await server.admin.call("POST", "/v1/jobs", {"image": IMAGE, "workdir": workdir})
    assert reply.status == 404
    reply = await server.admin.call(
        "POST", "/v1/batches", {"image": IMAGE, "items": [{"input": 1}], "workdir": workdir}
    )
    assert reply.status == 404


@pytest.mark.parametrize(
    "entries",
    [
        [["../a", "file", "0" * 64, 1, False, ""]],
        [["/etc/passwd", "file", "0" * 64, 1, False, ""]],
        [["a", "file", "0" * 64, -1, False, ""]],
        [["a", "file", "0" * 64, 2**62, False, ""]],
        [["a", "file", "../../../../etc/passwd", 1, False, ""]],
        [["a" * 300, "file", "0" * 64, 1, False, ""]],
        [["a/" * 5000 + "a", "file", "0" * 64, 1, False, ""]],
        [["a", "link", "", 0, False, "b/../.."]],
        [["a", "link", "", 0, False, "/etc"]],
        [["a", "fifo", "", 0, False, ""]],
        [["a", "file", "0" * 64, 1, False, ""], ["a/b", "dir", "", 0, False, ""]],
        [["a", "file", "0" * 64, 1, False, ""], ["b", "file", "0" * 64, 2, False, ""]],
        [["a\ud800", "file", "0" * 64, 1, False, ""]],
    ],
)
async def test_what_no_folder_can_hold_is_refused_in_words(server: Running, entries: list[Any]) -> None:
    try:
        text = msgspec.json.encode([manifest.FORMAT, entries])
    except UnicodeEncodeError:
        text = b'[1,[["a\\ud800","file","' + b"0" * 64 + b'",1,false,""]]]'
    status, said = await put_folder(server.admin, text)
    assert status == 400
    assert said["error"]["message"]


async def test_a_manifest_that_lies_about_a_size_or_its_own_name_is_refused(server: Running) -> None:
    await send(server.admin, FILES)
    text = manifest.encoded([Entry("a", "file", sha256_of(b"x = 1"), 6)])
    status, said = await put_folder(server.admin, text)
    assert status == 400
    assert "has 5 bytes, the manifest says 6" in said["error"]["message"]
    status, said = await put_folder(server.admin, manifest_of(FILES), "0" * 64)
    assert status == 400
    assert "was to have the SHA-256" in said["error"]["message"]


@pytest.mark.parametrize(
    ("bundle", "why"),
    [
        (b"short", "in the middle"),
        (bundles.head("0" * 64, 1) + b"x", "was to have the SHA-256"),
        (bundles.head("0" * 64, 2**63) + b"x", "is said to have"),
        (bundle_of(b"whole") + b"rest", "in the middle"),
    ],
)
async def test_a_bundle_that_is_none_leaves_nothing(server: Running, bundle: bytes, why: str) -> None:
    reply = await server.admin.call("POST", "/v1/blobs", body=bundle)
    assert reply.status == 400
    assert why in reply.message
    _, said = await put_folder(server.admin, manifest_of({"a": b"whole"}))
    assert said["missing"] == [sha256_of(b"whole")]


async def test_what_jobs_have_is_kept_and_the_rest_is_cleaned(server: Running) -> None:
    await server.image()
    kept = await send(server.admin, FILES)
    await server.admin.submit(IMAGE, 1, workdir=kept)
    unused = {"unused": b"nobody"}
    gone = await send(server.admin, unused)
    server.later(2 * server.server.settings.blob_grace)
    parts = server.server.parts
    parts.duties._cleaned = 0.0
    await parts.duties.clean()
    there = parts.resources.blobs.path
    assert there(gone) is None
    assert there(sha256_of(bundle_of(b"nobody"))) is None
    assert there(kept) is not None
    assert (await put_folder(server.admin, manifest_of(unused)))[1]["missing"] == [sha256_of(b"nobody")]
    assert (await put_folder(server.admin, manifest_of(FILES)))[1]["missing"] == []
    again = await send(server.admin, {**unused, "beside": b"in another bundle"})
    await server.admin.submit(IMAGE, 1, workdir=again)


def test_a_folder_says_nothing_of_what_its_job_needs_of_a_machine() -> None:
    for wanted in (1, 2):
        with_folder, without = (
            needs_asked(lane_of(1, 2, JobSpec(gpus=wanted, workdir=folder)), None) for folder in ("a" * 64, None)
        )
        assert with_folder == without
    assert needs_asked(lane_of(1, 2, JobSpec(workdir="a" * 64)), None) is None
