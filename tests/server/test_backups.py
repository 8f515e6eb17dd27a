"""`hecaton-server backup` and `check`, on servers that run and that do not."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import aiohttp
import pytest

from hecaton.cli import units
from hecaton.cli.hecaton_server.unit import FINAL_EXIT, service
from hecaton.core.errors import Unavailable
from hecaton.core.model import AttemptRef, JobId, Reason
from hecaton.store.instance import Instance
from hecaton.store.sqlite.database import open_database
from hecaton.wire.channel import Outcome
from tests.contracts.store_scene import NOW, Scene
from tests.server.people import Person
from tests.server.running import IMAGE, PASSWORD
from tests.server.scripted_worker import ScriptedWorker, holding
from tests.server.server_process import COMMAND, ServerProcess
from tests.server.test_retention import fill

BIG = b"x" * (2 * 1024 * 1024)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def server(home: Path) -> Iterator[ServerProcess]:
    process = ServerProcess(home)
    yield process
    process.kill()


def run(home: Path, *arguments: str, code: int = 0) -> str:
    """What a command says, with the exit code it has to have."""
    done = subprocess.run(
        [str(COMMAND), *arguments], env={**os.environ, "HECATON_HOME": str(home)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def enter_blobs(folder: Path, count: int) -> None:
    """As if a user had uploaded them."""
    (folder / "blobs").mkdir()
    for number in range(count):
        content = b"%d" % number
        sha256 = hashlib.sha256(content).hexdigest()
        (folder / "blobs" / sha256[:2]).mkdir(exist_ok=True)
        (folder / "blobs" / sha256[:2] / sha256[2:]).write_bytes(content)


async def _submit(session: aiohttp.ClientSession, url: str, count: int) -> list[str]:
    admin = await Person(session, url).login("admin", PASSWORD)
    await admin.call("POST", "/v1/images", {"name": IMAGE, "verify": False})
    return [await admin.submit(IMAGE, number) for number in range(count)]


async def _with_upload(url: str) -> list[str]:
    """Ids of three jobs, the last one with a payload in a blob."""
    async with aiohttp.ClientSession() as session:
        jobs = await _submit(session, url, 2)
        admin = await Person(session, url).login("admin", PASSWORD)
        sha256 = await admin.upload(BIG)
        jobs.append(await admin.submit(IMAGE, payload={"sha256": sha256, "size": len(BIG)}))
    return jobs


async def test_a_backup_of_a_running_server_is_whole_and_can_be_put_in_its_place(
    server: ServerProcess, home: Path, tmp_path: Path
) -> None:
    jobs = await _with_upload(server.ready())
    copy = tmp_path / "backups" / "monday"
    assert "3 jobs, 1 blobs" in run(home, "backup", str(copy))
    assert "is whole: schema version" in run(home, "check", str(copy))
    async with aiohttp.ClientSession() as session:
        later = (await _submit(session, server.ready(), 1))[0]
    server.kill()

    shutil.move(home / "server", tmp_path / "lost")
    shutil.copytree(copy, home / "server")
    restored = ServerProcess(home)
    try:
        async with aiohttp.ClientSession() as session:
            admin = await Person(session, restored.ready()).login("admin", PASSWORD)
            listed = await admin.get("/v1/jobs")
            assert sorted(job["id"] for job in listed["jobs"]) == sorted(jobs)
            assert (await admin.call("GET", f"/v1/jobs/{later}")).status == 404
            payload = (await admin.call("GET", f"/v1/jobs/{jobs[2]}/payload")).body
            assert hashlib.sha256(payload).digest() == hashlib.sha256(BIG).digest()
    finally:
        restored.kill()


async def test_a_backup_made_while_jobs_are_submitted_holds_every_job_acknowledged_before_it(
    server: ServerProcess, home: Path, tmp_path: Path
) -> None:
    url = server.ready()
    async with aiohttp.ClientSession() as session:
        before = await _submit(session, url, 50)
        backup = asyncio.create_task(asyncio.to_thread(run, home, "backup", str(tmp_path / "copy")))
        while not backup.done():
            await _submit(session, url, 5)
    await backup
    with sqlite3.connect(tmp_path / "copy" / "hecaton.db") as connection:
        copied = {row[0] for row in connection.execute("SELECT id FROM job")}
    assert set(before) <= copied
    assert "is whole" in run(home, "check", str(tmp_path / "copy"))


def test_backup_and_check_work_without_a_running_server(server: ServerProcess, home: Path, tmp_path: Path) -> None:
    server.ready()
    server.stop()
    run(home, "backup", str(tmp_path / "copy"))
    assert (tmp_path / "copy" / "secret").read_bytes() == (home / "server" / "secret").read_bytes()
    assert "is whole" in run(home, "check")


def test_a_backup_that_is_killed_is_never_taken_for_one(home: Path, tmp_path: Path) -> None:
    """Whenever that is: it has its name only when it is complete."""
    folder = home / "server"
    asyncio.run(open_database(folder / "hecaton.db").close())
    fill(folder / "hecaton.db", jobs=10)
    enter_blobs(folder, 500)
    cut_off: set[bool] = set()
    number = 0
    while cut_off != {False, True}:  # while blobs are linked, and while the database is copied
        number += 1
        assert number < 20
        copy = tmp_path / f"copy-{number}"
        building = tmp_path / f"copy-{number}.incomplete"
        begun = building / "hecaton.db" if number % 2 else building
        with subprocess.Popen(
            [str(COMMAND), "backup", str(copy)],
            env={**os.environ, "HECATON_HOME": str(home)},
            stdout=subprocess.DEVNULL,
        ) as process:
            wait_for(lambda begun=begun, copy=copy: begun.exists() or copy.exists())  # type: ignore[misc]
            process.kill()
        if copy.exists():
            assert "is whole" in run(home, "check", str(copy))
            continue
        cut_off.add((building / "hecaton.db").exists())
        assert f"there is no database {copy}/hecaton.db" in run(home, "check", str(copy), code=1)
        assert f"{building} is left over from a backup that was cut off" in run(home, "backup", str(copy), code=1)
        shutil.rmtree(building)
        assert "10 jobs, 500 blobs" in run(home, "backup", str(copy))
        assert "is whole" in run(home, "check", str(copy))
    assert "is whole" in run(home, "check")


def test_nothing_is_written_over_and_a_folder_without_data_is_named(
    server: ServerProcess, home: Path, tmp_path: Path
) -> None:
    server.ready()
    there = tmp_path / "there"
    there.mkdir()
    assert f"there is something at {there} already" in run(home, "backup", str(there), code=1)
    empty = tmp_path / "empty"
    assert f"there is no database {empty}/server/hecaton.db" in run(empty, "check", code=1)
    assert not (tmp_path / "copy").exists()
    assert "there is no database" in run(empty, "backup", str(tmp_path / "copy"), code=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "home.log", "there"]


async def test_check_names_blobs_that_are_missing_or_cut_off_and_counts_those_of_no_job(
    server: ServerProcess, home: Path
) -> None:
    await _with_upload(server.ready())
    assert "is whole" in run(home, "check")
    sha256 = hashlib.sha256(BIG).hexdigest()
    blob = home / "server" / "blobs" / sha256[:2] / sha256[2:]
    blob.write_bytes(BIG[:1000])
    assert f"the payload of job 3 has 1000 bytes instead of {len(BIG)}" in run(home, "check", code=1)
    blob.unlink()
    assert f"the payload of job 3 is missing: blob {sha256}" in run(home, "check", code=1)
    blob.write_bytes(BIG)
    (blob.parent / ("0" * 62)).write_bytes(b"nobody's")
    assert "1 blobs (8 B) belong to no job" in run(home, "check")


def test_damage_inside_the_database_is_found_and_a_schema_of_the_future_ends_the_server_for_good(
    server: ServerProcess, home: Path
) -> None:
    server.ready()
    server.stop()
    path = home / "server" / "hecaton.db"
    good = path.read_bytes()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 9999")
    connection.close()
    assert "the schema version is 9999" in run(home, "check", code=1)
    said = run(home, "--port", "0", code=FINAL_EXIT)
    assert "It was written by a newer release: install that release again" in said
    unit = units.unit_text(service(home, ()))
    assert f"\nRestartPreventExitStatus={FINAL_EXIT}\n" in unit, "or systemd starts it every two seconds for ever"
    path.write_bytes(good[: 4096 * 3] + b"\xff" * 4096 + good[4096 * 4 :])
    assert "damaged" in run(home, "check", code=1)


async def test_no_attempt_that_was_given_out_after_a_backup_is_given_out_again_by_it(
    server: ServerProcess, home: Path, tmp_path: Path
) -> None:
    """However often the backup is put in place."""
    copy = tmp_path / "copy"
    async with aiohttp.ClientSession() as session:
        url = server.ready()
        [job] = await _submit(session, url, 1)
        admin = await Person(session, url).login("admin", PASSWORD)
        token = (await admin.must("POST", "/v1/workers", {"name": "w1"}))["token"]
        worker = ScriptedWorker(session, url, token)
        await worker.connect()
        first = await worker.start()
        await asyncio.to_thread(run, home, "backup", str(copy))
        await worker.report(Outcome(first.ref, Reason.RELEASED))
        running = await worker.take()
        assert (first.ref, running.ref) == (AttemptRef(JobId(job), 1), AttemptRef(JobId(job), 2))
        await worker.gone()
        server.kill()
        given = [running]
        for again in range(2):
            shutil.move(home / "server", tmp_path / f"lost-{again}")
            shutil.copytree(copy, home / "server")
            restored = ServerProcess(home)
            try:
                worker = ScriptedWorker(session, restored.ready(), token)
                welcome = await worker.connect(held=tuple(map(holding, given)))
                assert welcome.drop == tuple(one.ref for one in given)
                given.append(await worker.take())
                for late in given[:-1]:
                    await worker.finish(late.ref, "late")
                    assert await worker.answer(late.ref) == "fenced"
                await worker.finish(given[-1].ref, "now")
                assert await worker.answer(given[-1].ref) == "accepted"
                await worker.gone()
            finally:
                restored.kill()
    assert len({one.ref for one in given}) == 3
    assert {one.ref.job for one in given} == {job}


def test_a_copy_that_was_taken_over_is_an_ordinary_database_again(
    server: ServerProcess, home: Path, tmp_path: Path
) -> None:
    server.ready()
    run(home, "backup", str(tmp_path / "copy"))
    server.kill()
    shutil.rmtree(home / "server")
    shutil.copytree(tmp_path / "copy", home / "server")
    said = []
    for _ in range(2):
        restored = ServerProcess(home)
        restored.ready()
        restored.kill()
        said.append("This is a backup" in restored.said)
    assert said == [True, False]


async def test_no_token_of_before_holds_in_a_backup_and_no_user_has_the_number_of_another(
    server: ServerProcess, home: Path, tmp_path: Path
) -> None:
    """Carol was made after the backup: her token is not that of whoever is made next. Bob's password was changed after
    it, because his token had been stolen."""
    copy = tmp_path / "copy"
    async with aiohttp.ClientSession() as session:
        url = server.ready()
        admin = await Person(session, url).login("admin", PASSWORD)
        await admin.must("POST", "/v1/users", {"username": "bob", "password": PASSWORD})
        bob = await Person(session, url).login("bob", PASSWORD)
        await asyncio.to_thread(run, home, "backup", str(copy))
        await admin.must("PUT", "/v1/users/bob/password", {"password": "another password"})
        await admin.must("POST", "/v1/users", {"username": "carol", "password": PASSWORD})
        carol = await Person(session, url).login("carol", PASSWORD)
        server.kill()
        shutil.move(home / "server", tmp_path / "lost")
        shutil.copytree(copy, home / "server")
        restored = ServerProcess(home)
        try:
            url = restored.ready()
            admin = await Person(session, url).login("admin", PASSWORD)
            await admin.must("POST", "/v1/users", {"username": "dave", "password": PASSWORD, "role": "admin"})
            dave = await Person(session, url).login("dave", PASSWORD)
            assert (await dave.get("/v1/server"))["username"] == "dave"
            for old in (bob, carol):
                old.url = url
                assert (await old.call("GET", "/v1/server")).status == 401
        finally:
            restored.kill()
    with (
        sqlite3.connect(tmp_path / "lost" / "hecaton.db") as before,
        sqlite3.connect(home / "server" / "hecaton.db") as now,
    ):
        [(hers,)] = before.execute("SELECT id FROM user WHERE name = 'carol'").fetchall()
        [(daves,)] = now.execute("SELECT id FROM user WHERE name = 'dave'").fetchall()
    before.close()
    now.close()
    assert daves > hers


async def test_an_older_copy_of_the_database_alone_is_told_from_it_by_whichever_means_it_was_made(
    server: ServerProcess, home: Path, tmp_path: Path
) -> None:
    """And a database that was stopped, or killed, is none."""
    database, copy = home / "server" / "hecaton.db", tmp_path / "copy.db"
    async with aiohttp.ClientSession() as session:
        url = server.ready()
        await _submit(session, url, 1)
        admin = await Person(session, url).login("admin", PASSWORD)
        await admin.must("POST", "/v1/users", {"username": "bob", "password": PASSWORD})
        token = (await admin.must("POST", "/v1/workers", {"name": "w1"}))["token"]
        server.stop()
        shutil.copy(database, copy)
        for end in (ServerProcess.kill, ServerProcess.stop):
            url = (server := ServerProcess(home)).ready()
            assert "old copy" not in server.said
            admin.url = url
            assert (await admin.call("GET", "/v1/users")).status == 200
            worker = ScriptedWorker(session, url, token)
            await worker.connect()
            running = await worker.start()
            await worker.gone()
            end(server)
        shutil.copy(copy, database)
        server = ServerProcess(home)
        try:
            admin.url = url = server.ready()
            assert "old copy" in server.said
            assert (await admin.call("GET", "/v1/users")).status == 401
            worker = ScriptedWorker(session, url, token)
            welcome = await worker.connect(held=(holding(running),))
            assert welcome.drop == (running.ref,)
            assert (await worker.take()).ref.attempt > running.ref.attempt + 1000
            await worker.gone()
        finally:
            server.kill()
        server = ServerProcess(home)
        server.ready()
        server.kill()
        assert "old copy" not in server.said


async def test_a_database_between_two_stamps_is_no_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk was full, or the power went, at each of the three steps."""
    database = open_database(tmp_path / "hecaton.db")
    instance = Instance(tmp_path / "instance", database)
    try:
        assert await instance.last_known() is None  # of a release that stamped nothing
        await instance.mark(1.0)
        written = instance._write
        for fails in (1, 2):
            steps = iter(range(1, 3))

            def write(stamps: list[str], fails: int = fails, steps: Iterator[int] = steps) -> None:
                if next(steps) == fails:
                    raise OSError(errno.ENOSPC, "full")
                written(stamps)

            monkeypatch.setattr(instance, "_write", write)
            with pytest.raises(OSError, match="full"):
                await instance.mark(2.0)
            assert await instance.last_known() is None
        monkeypatch.undo()

        async def refuse(work: object) -> None:
            raise Unavailable("the disk is full")

        monkeypatch.setattr(database, "write", refuse)
        with pytest.raises(Unavailable):
            await instance.mark(2.0)
        assert await instance.last_known() is None
        monkeypatch.undo()
        await instance.mark(3.0)
        stamp = await database.read(lambda store: store.meta("instance"))
        await instance.mark(4.0)
        await database.write(lambda store: store.set_meta("instance", stamp or ""))
        assert await instance.last_known() == 3.0
    finally:
        await database.close()


async def test_a_copy_of_years_ago_leaves_numbers_for_attempts(tmp_path: Path) -> None:
    """They have 31 bits."""
    database = open_database(tmp_path / "hecaton.db")
    try:
        scene = await Scene.on(database)
        job = await scene.submit()
        for years in range(1, 100):
            now = NOW + years * 365 * 86400
            assert await database.write(lambda store, now=now: store.adopt_copy(now, NOW)) == now - NOW  # type: ignore[misc]
        assert 0 < (await scene.job(job)).attempt < 2**30
    finally:
        await database.close()


async def test_a_copy_of_the_folder_that_is_no_backup_takes_no_token_for_that_of_another(
    server: ServerProcess, home: Path, tmp_path: Path
) -> None:
    """A snapshot of the disk, say: nobody can tell that it was put back, and numbers of users come again."""
    async with aiohttp.ClientSession() as session:
        server.ready()
        server.stop()
        shutil.copytree(home / "server", tmp_path / "snapshot")
        url = (server := ServerProcess(home)).ready()
        admin = await Person(session, url).login("admin", PASSWORD)
        await admin.must("POST", "/v1/users", {"username": "carol", "password": PASSWORD})
        carol = await Person(session, url).login("carol", PASSWORD)
        server.stop()
        shutil.rmtree(home / "server")
        shutil.copytree(tmp_path / "snapshot", home / "server")
        server = ServerProcess(home)
        try:
            url = server.ready()
            admin = await Person(session, url).login("admin", PASSWORD)
            await admin.must("POST", "/v1/users", {"username": "dave", "password": PASSWORD})
            carol.url = url
            assert (await carol.call("GET", "/v1/server")).status == 401
        finally:
            server.kill()
