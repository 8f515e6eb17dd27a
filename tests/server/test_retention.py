"""What is old is removed: results, logs and jobs, by their age, and nobody else has to wait for it."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

from hecaton.server.duties import STEP, Duties
from hecaton.server.settings import DAY
from hecaton.store.sqlite import open_database
from tests.server.people import Person
from tests.server.running import IMAGE, Running, running


def duties(server: Running) -> Duties:
    own = server.server.parts
    return Duties(
        own.database, own.blobs, own.fleet, own.holds, own.attempts, own.hub, own.clock, own.settings
    )  # fmt: skip


async def finished(server: Running, value: object) -> str:
    job_id = await server.admin.submit(IMAGE, value)
    worker = server.workers[0]
    job = await worker.start()
    await worker.finish(job.ref, value)
    await server.admin.ended(job_id)
    return job_id


def aged(folder: Path, days: float) -> None:
    """Everything that is there happened so many days earlier."""
    with sqlite3.connect(folder / "hecaton.db") as connection:
        connection.execute("UPDATE job SET created_at = created_at - ?1, ended_at = ended_at - ?1", (days * DAY,))
    connection.close()


async def test_a_result_is_removed_after_its_time_and_the_job_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "server"
    async with running(folder, keep_results=30 * DAY) as server:
        await server.image()
        await server.worker()
        old = await finished(server, {"n": 1})
        aged(folder, 31)
        young = await finished(server, {"n": 2})
        await duties(server).forget_old()
        view = await server.admin.job(old)
        assert (view["state"], view["result"], view["removed"]) == (
            "FINISHED", None, "the result was removed after 30 days",
        )  # fmt: skip
        reply = await server.admin.call("GET", f"/v1/jobs/{old}/result")
        assert (reply.status, reply.message) == (
            404, f"job {old} has no result any longer: the result was removed after 30 days",
        )  # fmt: skip
        view = await server.admin.job(young)
        assert (view["result"], view["removed"]) == ({"n": 2}, None)


async def test_results_of_batches_that_were_removed_are_named_without_a_value(tmp_path: Path) -> None:
    folder = tmp_path / "server"
    async with running(folder) as server:
        await server.image()
        worker = await server.worker()
        batch = await server.admin.must("POST", "/v1/batches", {"image": IMAGE, "items": [{"input": 1}]})
        job = await worker.start()
        await worker.finish(job.ref, "one")
        await server.admin.ended(job.ref.job)
        aged(folder, 31)
        await duties(server).forget_old()
        line = await server.admin.get(f"/v1/batches/{batch['id']}/results")
        assert (line["state"], line["result_kind"], line["result_size"]) == ("FINISHED", "json", 5)
        assert "result" not in line


async def test_an_old_job_is_removed_with_its_upload(tmp_path: Path) -> None:
    folder = tmp_path / "server"
    async with running(folder, keep_jobs=90 * DAY) as server:
        await server.image()
        worker = await server.worker()
        sha256 = await server.admin.upload(b"large" * 1000)
        job_id = await server.admin.submit(IMAGE, payload={"sha256": sha256, "size": 5000})
        job = await worker.start()
        await worker.finish(job.ref)
        await server.admin.ended(job_id)
        aged(folder, 91)
        with sqlite3.connect(folder / "hecaton.db") as connection:
            connection.execute("UPDATE blob SET added_at = added_at - ?", (91 * DAY,))
        connection.close()
        cleaning = duties(server)
        cleaning._cleaned = 0.0
        await cleaning.clean()
        assert (await server.admin.call("GET", f"/v1/jobs/{job_id}")).status == 404
        assert server.server.parts.blobs.path(sha256) is None


async def test_no_step_of_the_cleaning_holds_the_database_for_a_quarter_of_a_second(tmp_path: Path) -> None:
    path = tmp_path / "server" / "hecaton.db"
    await open_database(path).close()
    fill(path, jobs=STEP)
    database = open_database(path)
    slowest = 0.0
    for verb in ("forget_results", "forget_logs", "forget_jobs"):
        removed = 1
        while removed:
            began = time.perf_counter()
            removed = await database.write(lambda store, verb=verb: getattr(store, verb)(1e9, STEP))  # type: ignore[misc]
            slowest = max(slowest, time.perf_counter() - began)
    assert await database.read(lambda store: store.job("1")) is None
    await database.close()
    assert slowest < 0.25


def fill(path: Path, jobs: int) -> None:
    """Finished jobs from long ago, each with a result and a piece of log as large as they come."""
    with sqlite3.connect(path) as connection:
        connection.execute(
            "INSERT INTO user (name, name_key, role, password_hash, created_at) VALUES ('a', 'a', 'admin', '', 0)"
        )
        connection.execute("INSERT INTO image (name, description, created_at, updated_at) VALUES ('i', '', 0, 0)")
        for number in range(1, jobs + 1):
            connection.execute(
                "INSERT INTO job (state, owner_id, image_id, lane, priority, id, key, key_digest, created_at, mode,"
                " spec, retries, payload_kind, payload_size, ended_at, result_kind, attempt)"
                " VALUES ('FINISHED', 1, 1, 1, 0, ?1, ?1, '', 1, 'native', '{}', 0, 'json', 1, 2, 'bytes', 1)",
                (str(number),),
            )
            connection.execute("INSERT INTO result VALUES (?, zeroblob(1048576))", (number,))
            connection.execute("INSERT INTO log_piece VALUES (?, 1, 0, zeroblob(65536))", (number,))
    connection.close()


async def test_a_user_over_the_quota_of_waiting_jobs_is_told_so_and_others_are_not(tmp_path: Path) -> None:
    async with running(tmp_path / "server", max_queued=3) as server:
        await server.image()
        ada: Person = await server.user("ada")
        for number in range(3):
            await ada.submit(IMAGE, number)
        reply = await ada.call("POST", "/v1/jobs", {"image": IMAGE, "input": 4})
        assert reply.status == 429
        assert reply.headers["Retry-After"] == "5"
        assert reply.message == "you have 3 jobs waiting; with 1 more it would be over your quota of 3"
        batch = {"image": IMAGE, "items": [{"input": 1}] * 4}
        assert (await server.admin.call("POST", "/v1/batches", batch)).status == 429
        await server.admin.submit(IMAGE, "another user's")
        worker = await server.worker()
        await worker.take()  # one started: there is room again
        await ada.submit(IMAGE, 5)
