"""A database file that is unfit is refused with its name and what to do, and never replaced by an empty one."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import zipfile
from contextlib import closing
from pathlib import Path

import pytest

from hecaton.core.errors import Unavailable
from hecaton.store.sqlite.database import open_database
from hecaton.store.sqlite.migrate import apply, migrations, version_of

REPOSITORY = Path(__file__).resolve().parents[2]


async def _set_colour(path: Path, colour: str) -> None:
    database = open_database(path)
    await database.write(lambda store: store.set_meta("colour", colour))
    await database.close()


async def _colour(path: Path) -> str | None:
    database = open_database(path)
    try:
        return await database.read(lambda store: store.meta("colour"))
    finally:
        await database.close()


def colour(path: Path) -> str | None:
    return asyncio.run(_colour(path))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A healthy database with something in it."""
    path = tmp_path / "server" / "hecaton.db"
    asyncio.run(_set_colour(path, "red"))
    return path


async def _files_while_open(path: Path) -> dict[str, int]:
    database = open_database(path)
    await database.write(lambda store: store.set_meta("colour", "blue"))
    try:
        return {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    finally:
        await database.close()


def test_the_file_and_its_folder_are_the_owners_alone(path: Path) -> None:
    files = asyncio.run(_files_while_open(path))
    assert files == {"hecaton.db": 0o600, "hecaton.db-shm": 0o600, "hecaton.db-wal": 0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [file.name for file in path.parent.iterdir()] == ["hecaton.db"]


def refused(path: Path, *words: str) -> None:
    """Opening fails, says what is wrong and names the file; nothing was made or changed."""
    before = {file: file.read_bytes() for file in path.parent.iterdir() if file.is_file()}
    with pytest.raises(Unavailable) as caught:
        open_database(path)
    for word in (str(path), *words):
        assert word in str(caught.value)
    assert caught.value.hint
    assert {file: file.read_bytes() for file in path.parent.iterdir() if file.is_file()} == before


def test_no_two_migrations_have_one_number_and_none_is_missing() -> None:
    """Of two with one number a database that has seen the first would never see the other."""
    numbers = [number for number, _ in migrations()]
    assert numbers == list(range(1, len(numbers) + 1))


def test_a_newer_schema_is_refused_with_both_versions(path: Path) -> None:
    newest = migrations()[-1][0]
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {newest + 1}")
    connection.close()
    refused(path, f"version {newest + 1}", f"up to {newest}", "newer release")


@pytest.mark.parametrize("page", [0, 3, 11])
def test_a_damaged_file_is_refused(path: Path, page: int) -> None:
    content = bytearray(path.read_bytes())
    content[page * 4096 : page * 4096 + 2048] = b"\xa5" * 2048
    path.write_bytes(content)
    refused(path, "backup")


def test_a_file_cut_off_is_refused(path: Path) -> None:
    os.truncate(path, 0)
    refused(path, "empty")


def test_another_programs_database_is_refused(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    path.chmod(0o600)
    refused(path, "not a database of Hecaton")


def test_a_file_that_is_no_database_is_refused(path: Path) -> None:
    path.write_bytes(b"These are notes, not a database.\n" * 300)
    refused(path, "damaged")


def test_a_missing_file_beside_its_log_is_refused(path: Path) -> None:
    path.rename(path.with_name("hecaton.db-wal"))
    refused(path, "hecaton.db-wal")


def test_a_file_that_others_can_read_is_refused(path: Path) -> None:
    path.chmod(0o644)
    refused(path, "0644", f"chmod 600 {path}")


def test_a_file_of_another_user_is_refused(path: Path) -> None:
    os.chown(path, 12345, -1)
    refused(path, "12345", "chown")


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "server").write_text("a file where the folder belongs")
    with pytest.raises(Unavailable, match="server"):
        open_database(tmp_path / "server" / "hecaton.db")


def test_a_migration_that_breaks_off_leaves_nothing_behind(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "some.db", isolation_level=None)
    good, bad = (1, "CREATE TABLE one (x);"), (2, "CREATE TABLE two (x); INSERT INTO nowhere VALUES (1);")
    with pytest.raises(sqlite3.OperationalError, match="nowhere"):
        apply(connection, "some.db", [good, bad])
    assert version_of(connection) == 1
    assert connection.execute("SELECT name FROM sqlite_schema").fetchall() == [("one",)]
    apply(connection, "some.db", [good, (2, "CREATE TABLE two (x);")])
    assert version_of(connection) == 2
    connection.close()


OPEN = """
import sys
from pathlib import Path
from hecaton.store.sqlite.database import open_database
print("opening", flush=True)
open_database(Path(sys.argv[1]))
print("open", flush=True)
sys.stdin.read()
"""


def test_a_first_start_that_is_killed_is_made_good_by_the_next(tmp_path: Path) -> None:
    for delay in range(8):
        path = tmp_path / f"home-{delay}" / "server" / "hecaton.db"
        with subprocess.Popen(
            [sys.executable, "-c", OPEN, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=REPOSITORY
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(timeout=0.003 * delay)
            process.send_signal(signal.SIGKILL)
        assert colour(path) is None
        assert [file.name for file in path.parent.iterdir()] == ["hecaton.db"]


MIGRATE = """
import os, signal, sqlite3, sys
from pathlib import Path
from hecaton.store.sqlite.database import open_database

steps = iter(range(int(sys.argv[2])))

class Dying(sqlite3.Connection):
    def executescript(self, script):
        self.set_progress_handler(lambda: os.kill(os.getpid(), signal.SIGKILL) if next(steps, None) is None else 0, 1)
        return super().executescript(script)

connect = sqlite3.connect
sqlite3.connect = lambda *arguments, **options: connect(*arguments, factory=Dying, **options)
open_database(Path(sys.argv[1]))
"""


def test_a_migration_that_is_killed_is_finished_by_the_next_start(tmp_path: Path) -> None:
    """After any number of SQLite's steps: the database of the release before is whole, nothing of it is lost."""
    found = {0: 1}  # version of what was left, by the steps that were taken
    steps, ended = 1, False
    while not ended:
        found[steps], ended = _killed_after(steps, tmp_path)
        steps = steps * 3 // 2 + 1
    while missed := [pair for pair in itertools.pairwise(sorted(found)) if found[pair[1]] - found[pair[0]] > 1]:
        between = sum(missed[0]) // 2
        found[between], _ = _killed_after(between, tmp_path)
    assert set(found.values()) == set(range(1, len(migrations()) + 1))


def _killed_after(steps: int, folder: Path) -> tuple[int, bool]:
    """The version that is left, from which the next start has gone on; and whether the migration had ended before."""
    path = folder / f"home-{steps}" / "server" / "hecaton.db"
    _make_old(path, jobs=20)
    killed = subprocess.run([sys.executable, "-c", MIGRATE, str(path), str(steps)], cwd=REPOSITORY, check=False)
    assert killed.returncode in (0, -signal.SIGKILL)
    with closing(sqlite3.connect(path)) as connection:
        left = version_of(connection)
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("SELECT count(*) FROM job").fetchone() == (20,)
    assert colour(path) is None  # a start
    with closing(sqlite3.connect(path)) as connection:
        assert version_of(connection) == len(migrations())
        assert connection.execute("SELECT count(*) FROM job WHERE batch IS NULL").fetchone() == (20,)
    return left, killed.returncode == 0


def _make_old(path: Path, jobs: int) -> None:
    """As the first release left it."""
    path.parent.mkdir(parents=True, mode=0o700)
    asyncio.run(open_database(path).close())
    with closing(sqlite3.connect(path)) as connection:
        application_id = connection.execute("PRAGMA application_id").fetchone()[0]
    path.write_bytes(b"")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA application_id = {application_id}")
        apply(connection, str(path), migrations()[:1])
        connection.execute(
            "INSERT INTO user (name, name_key, role, password_hash, created_at) VALUES ('a', 'a', 'admin', '', 0)"
        )
        connection.execute("INSERT INTO image (name, description, created_at, updated_at) VALUES ('i', '', 0, 0)")
        connection.executemany(
            "INSERT INTO job (state, owner_id, image_id, lane, priority, id, key, key_digest, created_at, mode,"
            " spec, retries, payload_kind, payload_size) VALUES ('IN_QUEUE', 1, 1, 1, 0, ?1, ?1, '', 1, 'native',"
            " '{}', 0, 'json', 1)",
            [(str(number),) for number in range(jobs)],
        )


def test_the_wheel_contains_the_migrations(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
    )
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.endswith(".sql")}
    folder = REPOSITORY / "hecaton" / "store" / "sqlite" / "migrations"
    assert packed == {f"hecaton/store/sqlite/migrations/{file.name}" for file in folder.iterdir()}


def test_the_migrations_are_numbered_without_gaps() -> None:
    assert [version for version, _ in migrations()] == list(range(1, len(migrations()) + 1))


def test_a_copied_backup_opens(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "restored" / "hecaton.db"
    copy.parent.mkdir()
    shutil.copy(path, copy)
    assert colour(copy) == "red"


LOCKLESS = """
import asyncio, ctypes, sys, _sqlite3
from pathlib import Path
from hecaton.store.sqlite.database import open_database
from hecaton.store.sqlite.file import without_locks

async def main():
    without_locks()
    database = open_database(Path(sys.argv[1]))
    await asyncio.gather(*(database.write(lambda store, n=n: store.set_meta(str(n), "there")) for n in range(500)))
    found = await asyncio.gather(*(database.read(lambda store, n=n: store.meta(str(n))) for n in range(500)))
    assert set(found) == {"there"}
    used = ctypes.CDLL(_sqlite3.__file__).sqlite3_memory_used()
    await database.close()
    print("counted" if used else "not counted")

asyncio.run(main())
"""


def test_without_locks_two_threads_use_a_connection_each(tmp_path: Path) -> None:
    """SQLite says how much memory it uses where it locks its counts: that is seen from outside, the locks are not."""
    command = [sys.executable, "-c", LOCKLESS, str(tmp_path / "hecaton.db")]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=REPOSITORY)
    expected = "not counted\n" if sys.platform == "linux" else "counted\n"  # elsewhere it goes on locking
    assert (said.stdout, said.stderr) == (expected, "")
