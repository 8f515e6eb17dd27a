"""What is old is removed: results, logs and jobs, by their age, and nobody else has to wait for it."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from hecaton.server.duties import STEP, Duties
from hecaton.server.settings import DAY
from hecaton.store.blobs import blob_files
from hecaton.store.sqlite.database import open_database
from hecaton.store.sqlite.inspection import inspect
from tests.server.people import Person
from tests.server.running import IMAGE, PASSWORD, Running, running

MIB = 1024 * 1024


def duties(server: Running) -> Duties:
    own = server.server.parts
    return Duties(own.resources, own.fleet, own.quarantine, own.workers, own.dispatcher, own.hub, own.budget)


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
            404, f"job {view['index']} has no result any longer: the result was removed after 30 days",
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
        assert server.server.parts.resources.blobs.path(sha256) is None


CLEANING_SERVER = """
from hecaton.cli.hecaton_server.main import main
from hecaton.server import duties
duties.CLEAN_EVERY = 0.0
main()
"""


async def test_a_cleaning_that_is_killed_is_finished_by_the_next_start_and_breaks_nothing(tmp_path: Path) -> None:
    """Among steps and in the middle of them, also while files are removed that the database still knows."""
    folder = tmp_path / "home" / "server"
    async with running(folder) as server:
        await server.image()
    fill(folder / "hecaton.db", jobs=40)
    async with running(folder) as server:
        await server.worker()
        young = await finished(server, "young")
        named = await server.admin.upload(b"named")
        await server.admin.submit(IMAGE, 1, mode="script", file=named)
        for number in range(300):
            await server.admin.upload(b"%d" % number)
    with sqlite3.connect(folder / "hecaton.db") as connection:
        connection.execute("UPDATE blob SET added_at = 1")
    connection.close()
    for left in [(119, 300), (60, 300), (20, 300), (0, 299), (0, 150), (0, 0)]:
        clean_until(lambda left=left: old(folder, named) <= left, folder)  # type: ignore[misc]
        assert inspect(folder).problems == ()
    async with running(folder) as server:
        assert (await server.admin.job(young))["result"] == "young"
        assert server.server.parts.resources.blobs.path(named) is not None


def clean_until(enough: Callable[[], bool], folder: Path) -> None:
    """A server of its own process that cleans without a pause, and is killed then."""
    with subprocess.Popen(
        [sys.executable, "-c", CLEANING_SERVER, "--host", "127.0.0.1", "--port", "0"],
        env={**os.environ, "HECATON_HOME": str(folder.parent), "HECATON_ADMIN_PASS": PASSWORD},
        stdout=subprocess.DEVNULL,
    ) as process:
        try:
            deadline = time.monotonic() + 60
            while not enough():
                assert time.monotonic() < deadline
                time.sleep(0.002)
        finally:
            process.kill()


def old(folder: Path, named: str) -> tuple[int, int]:
    """What is left to be removed: rows of old results, logs and jobs; uploads that no job names."""
    with sqlite3.connect(folder / "hecaton.db") as connection:
        rows = connection.execute(
            "SELECT count(job.seq) + count(result.seq) + count(log_piece.seq) FROM job"
            " LEFT JOIN result USING (seq) LEFT JOIN log_piece USING (seq) WHERE job.ended_at = 2"
        ).fetchone()[0]
    connection.close()
    return rows, sum(sha256 != named for sha256, _ in blob_files(folder / "blobs"))


async def test_no_job_may_name_an_upload_that_a_killed_cleaning_has_removed(tmp_path: Path) -> None:
    async with running(tmp_path / "server") as server:
        await server.image()
        sha256 = await server.admin.upload(b"print()")
        server.server.parts.resources.blobs.delete(sha256)  # and then it was killed, before the database knew
        reply = await server.admin.call("POST", "/v1/jobs", {"image": IMAGE, "mode": "script", "file": sha256})
        assert (reply.status, f"no upload with SHA-256 {sha256}" in reply.message) == (404, True)
        batch = {"image": IMAGE, "mode": "script", "file": sha256, "items": [{"input": 1}]}
        assert (await server.admin.call("POST", "/v1/batches", batch)).status == 404
        await server.admin.upload(b"print()")
        await server.admin.submit(IMAGE, 1, mode="script", file=sha256)


async def test_no_step_of_the_cleaning_holds_the_database_for_more_than_a_few_megabytes(tmp_path: Path) -> None:
    """Whatever the number of rows: their size is what takes the time."""
    path = tmp_path / "server" / "hecaton.db"
    await open_database(path).close()
    fill(path, jobs=24)
    database = open_database(path)
    steps = []
    for verb in ("forget_results", "forget_logs", "forget_jobs"):
        removed = 1
        while removed:
            before = unused(path)
            removed = await database.write(lambda store, verb=verb: getattr(store, verb)(1e9, STEP))  # type: ignore[misc]
            steps.append(unused(path) - before)
    assert await database.read(lambda store: store.job("1")) is None
    await database.close()
    assert sum(steps) > 24 * MIB
    assert max(steps) < 6 * MIB


def unused(path: Path) -> int:
    """Bytes of the file that hold nothing any more."""
    with sqlite3.connect(path) as connection:
        pages = connection.execute("PRAGMA freelist_count").fetchone()[0]
        size = connection.execute("PRAGMA page_size").fetchone()[0]
    connection.close()
    return int(pages * size)


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
