"""What travels besides small payloads: uploads, large results, logs, live events; and workers that lie about them."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from hecaton.core.model import Body, Failure, Kind, Reason
from hecaton.server.web import api as web
from hecaton.wire.channel import Assignment, Log, Note, Outcome
from tests.server.people import Person, eventually
from tests.server.running import IMAGE, Running, running
from tests.server.scripted_worker import ScriptedWorker, json_body, progress

MIB = 1024 * 1024


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _stored(folder: Path) -> list[str]:
    """Every blob that is there, complete or not."""
    return sorted(str(path.relative_to(folder)) for path in (folder / "server/blobs").rglob("*") if path.is_file())


# -- uploads ---------------------------------------------------------------------------------------


async def test_a_large_payload_is_uploaded_once_and_fetched_by_the_worker(server: Running) -> None:
    await server.image()
    worker = await server.worker()
    content = bytes(range(256)) * 80 * 1024  # 20 MiB: many pieces
    sha256 = await server.admin.upload(content)
    assert (await server.admin.call("HEAD", f"/v1/blobs/{sha256}")).status == 200
    payload = {"sha256": sha256, "size": len(content), "kind": "bytes"}
    job_id = await server.admin.submit(IMAGE, payload=payload)
    job = await worker.take()
    assert (job.payload.blob, job.payload.size, job.payload.data) == (sha256, len(content), b"")
    path = f"/v1/worker/jobs/{job_id}/blobs/{sha256}"
    assert (await server.nobody.call("GET", path, headers=worker.http)).body == content
    assert (await server.admin.call("GET", f"/v1/jobs/{job_id}/payload")).body == content
    view = await server.admin.job(job_id)
    assert (view["payload"], view["payload_size"]) == (None, len(content))


async def test_a_handler_file_travels_by_its_hash(server: Running) -> None:
    await server.image()
    worker = await server.worker()
    code = b"from hecaton.serverless import start\n"
    sha256 = await server.admin.upload(code)
    job_id = await server.admin.submit(IMAGE, 1, mode="handler", file=sha256, file_name="handler.py")
    job = await worker.take()
    assert job.file is not None
    assert (job.file.sha256, job.file.name) == (sha256, "handler.py")
    path = f"/v1/worker/jobs/{job_id}/blobs/{sha256}"
    assert (await server.nobody.call("GET", path, headers=worker.http)).body == code


async def test_an_upload_that_is_not_what_it_says_leaves_nothing(server: Running, tmp_path: Path) -> None:
    reply = await server.admin.call("PUT", f"/v1/blobs/{_sha256(b'this')}", body=b"that")
    assert (reply.status, _sha256(b"that") in reply.message) == (400, True)
    assert _stored(tmp_path) == []


async def test_an_upload_over_the_limit_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    async with running(tmp_path / "server", max_payload=MIB) as server:
        exact = b"x" * MIB
        await server.admin.upload(exact)

        async def unannounced() -> AsyncIterator[bytes]:
            for _ in range(3):
                yield exact

        for body in (exact + b"y", unannounced()):
            reply = await server.admin.call("PUT", f"/v1/blobs/{'0' * 64}", body=body)
            assert (reply.status, "more than 1 MiB" in reply.message) == (413, True)
        assert len(_stored(tmp_path)) == 1
        await server.image()
        request = {"image": IMAGE, "payload": {"sha256": "0" * 64, "size": MIB + 1}}
        reply = await server.admin.call("POST", "/v1/jobs", request)
        assert (reply.status, "1 MiB" in reply.message) == (413, True)


async def test_an_upload_that_breaks_off_leaves_nothing(server: Running, tmp_path: Path) -> None:
    content = b"x" * (2 * MIB)
    _, port = server.url.rsplit(":", 1)
    _, writer = await asyncio.open_connection("127.0.0.1", int(port))
    head = f"PUT /v1/blobs/{_sha256(content)} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.admin.token}\r\n"
    writer.write(head.encode() + b"Content-Length: %d\r\n\r\n" % len(content) + content[: MIB + 5])
    await writer.drain()

    async def count() -> int:
        return len(_stored(tmp_path))

    await eventually(count, 1)  # it is being written
    writer.transport.abort()
    await eventually(count, 0)


@pytest.mark.parametrize("name", ["0" * 63, "G" * 64, "A" * 64, "..%2f..%2fetc%2fpasswd", "..", "%00", "x" * 3000])
async def test_only_hashes_name_uploads(server: Running, name: str) -> None:
    reply = await server.admin.call("PUT", f"/v1/blobs/{name}", body=b"x")
    assert reply.status in (400, 404)


async def test_compressed_bodies_are_refused(server: Running) -> None:
    # A bomb of a few kilobytes would become gigabytes.
    reply = await server.admin.call(
        "PUT", f"/v1/blobs/{_sha256(b'x')}", body=b"x", headers={"Content-Encoding": "gzip"}
    )
    assert (reply.status, "compressed" in reply.message) == (400, True)


async def test_only_the_uploader_can_use_an_upload(server: Running) -> None:
    await server.image()
    ada, bob = await server.user("ada"), await server.user("bob")
    sha256 = await ada.upload(b"secret")
    assert (await bob.call("HEAD", f"/v1/blobs/{sha256}")).status == 404
    for request in ({"payload": {"sha256": sha256, "size": 6}}, {"mode": "script", "file": sha256}):
        reply = await bob.call("POST", "/v1/jobs", {"image": IMAGE, **request})
        assert (reply.status, f"no upload with SHA-256 {sha256}" in reply.message) == (404, True)


@pytest.mark.parametrize("size", [5, 7, -1, -(10**30)])
async def test_a_payload_has_the_size_that_was_uploaded(server: Running, size: int) -> None:
    await server.image()
    sha256 = await server.admin.upload(b"secret")
    reply = await server.admin.call("POST", "/v1/jobs", {"image": IMAGE, "payload": {"sha256": sha256, "size": size}})
    assert (reply.status, "has 6 bytes" in reply.message) == (400, True)


async def test_an_inline_payload_has_at_most_a_mebibyte(server: Running) -> None:
    await server.image()
    await server.admin.submit(IMAGE, text="x" * MIB)
    reply = await server.admin.call("POST", "/v1/jobs", {"image": IMAGE, "text": "x" * (MIB + 1)})
    assert (reply.status, "PUT /v1/blobs/" in reply.json()["error"]["hint"]) == (413, True)
    reply = await server.admin.call("POST", "/v1/jobs", {"image": IMAGE, "text": "x" * (3 * MIB)})
    assert reply.status == 413


# -- large results ---------------------------------------------------------------------------------


async def _running_job(server: Running) -> tuple[ScriptedWorker, str, Assignment]:
    await server.image()
    worker = await server.worker()
    job_id = await server.admin.submit(IMAGE)
    return worker, job_id, await worker.start()


async def test_a_large_result_is_uploaded_by_the_worker_and_streamed_to_the_owner(server: Running) -> None:
    worker, job_id, job = await _running_job(server)
    content = b"result " * 500_000
    path = f"/v1/worker/jobs/{job_id}/blobs/{_sha256(content)}"
    assert (await server.nobody.call("PUT", path, body=content, headers=worker.http)).status == 201
    # Whatever the worker says about the size: the server has measured.
    body = Body(Kind.BYTES, b"", _sha256(content), 5)
    await worker.report(Outcome(job.ref, Reason.OK, body, ran=1.0))
    view = await server.admin.ended(job_id)
    assert (view["state"], view["result_size"], view["result"]) == ("FINISHED", len(content), None)
    reply = await server.admin.call("GET", f"/v1/jobs/{job_id}/result")
    assert reply.body == content
    assert reply.headers["Content-Length"] == str(len(content))


async def test_a_worker_reaches_only_content_of_jobs_that_it_holds(server: Running) -> None:
    worker, job_id, job = await _running_job(server)
    other = await server.worker("other", slots=())
    secret = await server.admin.upload(b"secret of another job")
    for who, path, status in (
        (worker, f"/v1/worker/jobs/{job_id}/blobs/{secret}", 404),  # held, but not its content
        (other, f"/v1/worker/jobs/{job_id}/blobs/{secret}", 409),  # not held
        (worker, f"/v1/worker/jobs/0192f0c1-0000-7000-8000-000000000000/blobs/{secret}", 409),
    ):
        assert (await server.nobody.call("GET", path, headers=who.http)).status == status
    path = f"/v1/worker/jobs/{job_id}/blobs/{_sha256(b'x')}"
    assert (await server.nobody.call("PUT", path, body=b"x", headers=other.http)).status == 409
    await worker.finish(job.ref)
    await worker.answer(job.ref)
    assert (await server.nobody.call("PUT", path, body=b"x", headers=worker.http)).status == 409


async def test_a_large_result_over_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "PIECE", 10)  # of files, which come the same way
    async with running(tmp_path / "server", max_result=1000) as server:
        worker, job_id, job = await _running_job(server)
        path = f"/v1/worker/jobs/{job_id}/blobs/{_sha256(b'x' * 1001)}"
        assert (await server.nobody.call("PUT", path, body=b"x" * 1001, headers=worker.http)).status == 413
        await worker.report(Outcome(job.ref, Reason.OK, Body.inline(Kind.BYTES, b"x" * 1001), ran=1.0))
        view = await server.admin.ended(job_id)
        assert (view["state"], view["reason"]) == ("FAILED", "result_too_large")
        assert "1001 bytes, the limit is 1000" in view["failure"]["message"]


# -- workers that lie ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (Body.inline(Kind.JSON, b"{not json"), "the result is not JSON"),
        (Body.inline(Kind.JSON, b'"\xff"'), "the result is not JSON"),
        (Body.inline(Kind.JSON, b'"\\ud800"'), "the result is not JSON"),
        (Body.inline(Kind.JSON, b"NaN"), "the result is not JSON"),
        (Body.inline(Kind.JSON, b""), "the result is not JSON"),
        (Body.inline(Kind.JSON, b"1 2"), "the result is not JSON"),
        (Body.inline(Kind.JSON, b"[" * 100_000 + b"]" * 100_000), "the result is not JSON"),
        (Body.inline(Kind.TEXT, b"\xff"), "the result is not UTF-8 text"),
        (Body.inline(Kind.BYTES, b"x" * (MIB + 1)), "came inline"),
        (Body(Kind.JSON, b"", "0" * 64, 5), "never arrived"),
        (Body(Kind.JSON, b"", "../../secret", 5), "never arrived"),
    ],
)
async def test_a_result_that_cannot_be_right_fails_the_job_and_harms_nobody(
    server: Running, body: Body, problem: str
) -> None:
    worker, job_id, job = await _running_job(server)
    await worker.report(Outcome(job.ref, Reason.OK, body, ran=0.1))
    assert await worker.answer(job.ref) == "accepted"
    view = await server.admin.ended(job_id)
    assert (view["state"], view["reason"], view["result"]) == ("FAILED", "result_invalid", None)
    assert problem in view["failure"]["message"]


@pytest.mark.parametrize("size", [100, 100_000, 2_000_000])
@pytest.mark.parametrize("refused_by", ["the worker", "the server"])
async def test_a_refused_result_is_kept_and_can_be_fetched(server: Running, size: int, refused_by: str) -> None:
    worker, job_id, job = await _running_job(server)
    content = b'["' + b"x" * size + b'", NaN]'
    body = Body.inline(Kind.JSON, content)
    if size > 64 * 1024:
        path = f"/v1/worker/jobs/{job_id}/blobs/{_sha256(content)}"
        assert (await server.nobody.call("PUT", path, body=content, headers=worker.http)).status == 201
        body = Body(Kind.JSON, b"", _sha256(content), size)
    if refused_by == "the worker":
        await worker.report(Outcome(job.ref, Reason.RESULT_INVALID, body, Failure("$[1]: NaN is not JSON"), ran=0.1))
    else:
        await worker.report(Outcome(job.ref, Reason.OK, body, ran=0.1))
    view = await server.admin.ended(job_id)
    assert (view["state"], view["reason"], view["result"]) == ("FAILED", "result_invalid", None)
    assert (view["result_kind"], view["result_size"]) == ("text", len(content))
    assert "$[1]: NaN" in view["failure"]["message"]
    assert (await server.admin.call("GET", f"/v1/jobs/{job_id}/result")).body == content


@pytest.mark.parametrize("size", [65_000, 66_000, MIB])
@pytest.mark.parametrize("kind", ["json", "text", "bytes"])
async def test_a_result_of_up_to_a_mebibyte_comes_with_its_job_however_it_came(
    server: Running, size: int, kind: str
) -> None:
    worker, job_id, job = await _running_job(server)
    content = b'"' + b"x" * (size - 2) + b'"'
    path = f"/v1/worker/jobs/{job_id}/blobs/{_sha256(content)}"
    assert (await server.nobody.call("PUT", path, body=content, headers=worker.http)).status == 201
    await worker.report(Outcome(job.ref, Reason.OK, Body(Kind(kind), b"", _sha256(content), size), ran=0.1))
    view = await server.admin.ended(job_id)
    assert (view["state"], view["result_size"]) == ("FINISHED", size)
    shown = {
        "json": (json.loads(content), None),
        "text": (content.decode(), None),
        "bytes": (None, base64.b64encode(content).decode()),
    }
    assert (view["result"], view["result_base64"]) == shown[kind]


async def test_a_failed_job_has_no_result_whatever_the_worker_sends(server: Running) -> None:
    worker, job_id, job = await _running_job(server)
    await worker.report(Outcome(job.ref, Reason.HANDLER_EXIT, Body.inline(Kind.JSON, b"{broken"), exit_code=1))
    view = await server.admin.ended(job_id)
    assert (view["state"], view["result"], view["result_size"]) == ("FAILED", None, 0)


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), float("-inf"), -5.0, 1e300])
async def test_impossible_times_do_not_break_the_replies(server: Running, seconds: float) -> None:
    worker, job_id, job = await _running_job(server)
    await worker.report(Outcome(job.ref, Reason.OK, None, ran=seconds, age=seconds))
    view = await server.admin.ended(job_id)
    assert view["state"] == "FINISHED"
    assert abs(view["ended_at"] - view["created_at"]) < 400 * 86400


async def test_endless_error_texts_are_cut(server: Running) -> None:
    worker, job_id, job = await _running_job(server)
    long = MIB // 2
    failure = Failure("m" * long, "t" * long, "begin" + "x" * long + "the end", "h" * long)
    await worker.report(Outcome(job.ref, Reason.HANDLER_ERROR, None, failure, ran=0.1))
    failure = msgspec.convert((await server.admin.ended(job_id))["failure"], Failure)
    assert len(msgspec.json.encode(failure)) < 70 * 1024
    assert (failure.traceback or "").endswith("the end")


async def test_progress_that_is_no_json_is_left_out(server: Running) -> None:
    worker, job_id, job = await _running_job(server)
    await worker.send(progress(job.ref, {"step": 1}))
    extension = msgspec.msgpack.Ext(5, b"x")
    await worker.send(progress(job.ref, extension), progress(job.ref, {(1, 2): 3}), progress(job.ref, "x" * MIB))
    await worker.send(Note(job.ref, "n" * MIB))

    async def note_length() -> int:
        return len((await server.admin.job(job_id))["note"] or "")

    await eventually(note_length, 1024)
    assert (await server.admin.job(job_id))["progress"] == {"step": 1}


async def test_numbers_that_no_database_holds_cost_the_connection_only(server: Running) -> None:
    worker, job_id, job = await _running_job(server)
    outcome = msgspec.structs.replace(Outcome(job.ref, Reason.OK), exit_code=2**40)
    await worker.report(outcome)
    await worker.closed()
    assert await server.admin.state(job_id) in ("ASSIGNED", "IN_PROGRESS")


# -- logs ------------------------------------------------------------------------------------------


async def _log(server: Running, job_id: str, query: str = "") -> bytes:
    return (await server.admin.call("GET", f"/v1/jobs/{job_id}/logs{query}")).body


async def test_pieces_of_a_log_may_come_again(server: Running) -> None:
    worker, job_id, job = await _running_job(server)
    await worker.send(Log(job.ref, 0, b"one\ntwo\n"), Log(job.ref, 4, b"two\nthree\n"), Log(job.ref, 0, b"one\n"))
    await worker.finish(job.ref)
    await server.admin.ended(job_id)
    assert await _log(server, job_id) == b"one\ntwo\nthree\n"
    assert await _log(server, job_id, "?offset=4") == b"two\nthree\n"
    assert await _log(server, job_id, "?offset=99") == b""


@pytest.mark.parametrize("size", [0, 2, 4, 7])
async def test_what_was_sent_behind_the_end_of_a_log_is_cut_off(server: Running, size: int) -> None:
    """As a worker of the release before does: it ships lines of the next job of the container before it knows."""
    worker, job_id, job = await _running_job(server)
    await worker.send(Log(job.ref, 0, b"one\n"), Log(job.ref, 4, b"of the next\n"))
    await worker.report(Outcome(job.ref, Reason.OK, json_body(None), ran=0.1, log_size=size))
    await server.admin.ended(job_id)
    assert await _log(server, job_id) == b"one\nof the next\n"[:size]


async def test_each_attempt_has_its_own_log(server: Running) -> None:
    await server.image()
    worker = await server.worker()
    job_id = await server.admin.submit(IMAGE, retries=1)
    first = await worker.start()
    await worker.send(Log(first.ref, 0, b"first\n"))
    await worker.fail(first.ref, Reason.HANDLER_ERROR)
    second = await worker.start()
    await worker.send(Log(second.ref, 0, b"second\n"), Log(first.ref, 6, b"too late\n"))
    await worker.finish(second.ref)
    await server.admin.ended(job_id)
    assert await _log(server, job_id) == b"second\n"
    assert await _log(server, job_id, "?attempt=1") == b"first\n"


async def test_a_worker_writes_only_into_logs_of_jobs_that_it_holds(server: Running) -> None:
    worker, job_id, job = await _running_job(server)
    other = await server.worker("other", slots=())
    await other.send(Log(job.ref, 0, b"lies\n"))
    await other.finish(job.ref)
    assert await other.answer(job.ref) == "fenced"  # so the log was taken in before
    await worker.send(Log(job.ref, 0, b"truth\n"), Log(job.ref, 2**40, b"far away\n"))
    await worker.finish(job.ref)
    await server.admin.ended(job_id)
    assert await _log(server, job_id) == b"truth\n"


async def test_a_worker_reports_only_about_jobs_that_it_holds(server: Running) -> None:
    worker, job_id, job = await _running_job(server)
    other = await server.worker("other", slots=())
    await worker.send(progress(job.ref, "truth"), Note(job.ref, "true"))
    await worker.send(Log(job.ref, 0, b"said\n"))
    async with asyncio.timeout(10):  # the log comes behind the rest
        while await _log(server, job_id) != b"said\n":  # noqa: ASYNC110 - a log has no end to wait for yet
            await asyncio.sleep(0.01)
    await other.send(progress(job.ref, "lies"), Note(job.ref, "false"))
    await other.finish(job.ref)
    assert await other.answer(job.ref) == "fenced"  # so the rest was heard before
    view = await server.admin.job(job_id)
    assert (view["progress"], view["note"]) == ("truth", "true")


async def _read(stream: aiohttp.ClientResponse) -> Any:
    """The next event; keep-alives are skipped."""
    while True:
        line = await asyncio.wait_for(stream.content.readline(), 10)
        assert line, "the stream ended"
        if line.strip():
            return json.loads(line)


def _events(person: Person, job_id: str, offset: int = 0) -> Any:
    url = f"{person.url}/v1/jobs/{job_id}/events?offset={offset}"
    return person.session.get(url, headers={"Authorization": f"Bearer {person.token}"})


async def test_events_tell_what_happens_as_it_happens(server: Running) -> None:
    await server.image()
    worker = await server.worker()
    job_id = await server.admin.submit(IMAGE)
    job = await worker.take()
    async with _events(server.admin, job_id) as stream:
        assert await _read(stream) == {"event": "state", "value": "ASSIGNED", "attempt": 1, "offset": 0}
        await worker.send(Log(job.ref, 0, b"hello\n"))
        assert await _read(stream) == {"event": "log", "value": "hello\n", "attempt": 1, "offset": 6}
        await worker.send(progress(job.ref, 0.5))
        assert await _read(stream) == {"event": "progress", "value": 0.5, "attempt": 1, "offset": 0}
        await worker.finish(job.ref, "done")
        end = await _read(stream)
        assert (end["event"], end["value"]["state"], end["value"]["result"]) == ("end", "FINISHED", "done")
        assert await stream.content.read() == b""


async def test_events_of_an_ended_job_are_its_log_and_its_end(server: Running) -> None:
    worker, job_id, job = await _running_job(server)
    await worker.send(Log(job.ref, 0, b"hello\nworld\n"))
    await worker.finish(job.ref)
    await server.admin.ended(job_id)
    async with _events(server.admin, job_id, offset=6) as stream:
        events = [json.loads(line) for line in (await stream.read()).splitlines() if line]
    assert [(event["event"], event["offset"]) for event in events] == [("state", 0), ("log", 12), ("end", 0)]
    assert events[1]["value"] == "world\n"


async def test_a_character_that_is_cut_in_two_arrives_whole(server: Running) -> None:
    worker, job_id, job = await _running_job(server)
    text = "ä€𝄞".encode()
    async with _events(server.admin, job_id) as stream:
        await _read(stream)
        await worker.send(Log(job.ref, 0, text[:3]))
        event = await _read(stream)
        while event["event"] != "log":
            event = await _read(stream)
        assert (event["value"], event["offset"]) == ("ä", 2)
        await worker.send(Log(job.ref, 3, text[3:]))
        event = await _read(stream)
        assert (event["value"], event["offset"]) == ("€𝄞", len(text))


async def test_a_stream_whose_reader_went_away_is_forgotten(server: Running) -> None:
    _, job_id, _ = await _running_job(server)
    async with _events(server.admin, job_id) as stream:
        await _read(stream)
        stream.close()

    async def watched() -> bool:
        return server.server.parts.hub.watched(job_id)  # type: ignore[arg-type]

    await eventually(watched, False)


async def test_a_flood_of_news_does_not_pile_up_for_a_slow_reader(server: Running) -> None:
    worker, job_id, job = await _running_job(server)
    async with _events(server.admin, job_id) as stream:
        await _read(stream)
        for number in range(0, 5000, 500):
            await worker.send(*(progress(job.ref, n) for n in range(number, number + 500)))
        await worker.send(Log(job.ref, 0, struct.pack(">I", 7) * 1000))
        await worker.finish(job.ref)
        kinds = [json.loads(line)["event"] for line in (await stream.content.read()).splitlines() if line]
    assert kinds[-1] == "end"
    assert "log" in kinds


async def test_a_worker_that_names_the_content_of_another_user_has_announced_nothing(server: Running) -> None:
    """A worker and a user together read what they know the hash of: the answer is that for content that is nowhere."""
    await server.image()
    ada, bob = await server.user("ada"), await server.user("bob")
    secret = b"s3cret" * 300_000
    hers = await ada.upload(secret)
    worker = await server.worker()
    said = []
    for sha256 in (hers, "0" * 64):
        job = await bob.submit(IMAGE)
        assignment = await worker.start()
        await worker.report(Outcome(assignment.ref, Reason.OK, Body(Kind.BYTES, b"", sha256, len(secret)), ran=0.01))
        view = await bob.ended(job)
        assert (view["state"], (await bob.call("GET", f"/v1/jobs/{job}/result")).status) == ("FAILED", 404)
        said.append((view["reason"], view["failure"]))
    assert said[0] == said[1]
    job = await bob.submit(IMAGE)
    assignment = await worker.start()
    path = f"/v1/worker/jobs/{job}/blobs/{hers}"
    assert (await server.nobody.call("PUT", path, body=secret, headers=worker.http)).status == 201
    await worker.report(Outcome(assignment.ref, Reason.OK, Body(Kind.BYTES, b"", hers, len(secret)), ran=0.01))
    assert (await bob.ended(job))["state"] == "FINISHED"
    assert (await bob.call("GET", f"/v1/jobs/{job}/result")).body == secret
