"""Each container works in a folder of its own over what came along, and whatever it does there changes nothing for
anybody else: natively as the worker does it, with mounts and with copies. `test_docker` has it seen from inside."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import pytest
import pytest_asyncio

from hecaton.core.files import manifest
from hecaton.core.files.manifest import Entry, Manifest
from hecaton.wire.bundles import head
from hecaton.worker.doors.removal import remove
from hecaton.worker.files import overlay
from hecaton.worker.files.content import Arriving, Contents, Damaged, Unpacking
from hecaton.worker.files.workfolders import MAX_LAID_OUT, WorkFolders

FILES = {"train.py": b"import helper\n", "pkg/ü.py": b"x = 1\n", "data.csv": b"1,2\n", "empty.txt": b""}
BOOT = "this boot"


def name_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def bundle(*contents: bytes) -> bytes:
    return b"".join(head(name_of(data), len(data)) + data for data in contents)


def fill(contents: Contents, *wanted: bytes) -> None:
    unpacking = Unpacking(contents, {name_of(data): len(data) for data in wanted})
    unpacking.feed(bundle(*wanted))
    unpacking.close()
    assert not unpacking.missing


def folder_of(files: Mapping[str, bytes], *others: Entry, programs: tuple[str, ...] = ()) -> tuple[str, Manifest]:
    entries = [Entry(path, "file", name_of(data), len(data), path in programs) for path, data in files.items()]
    text = manifest.encoded([*entries, *others])
    return name_of(text), manifest.decoded(text)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """The worker's folder."""
    yield tmp_path
    for merged in tmp_path.glob("work/*/merged"):
        overlay.unmount(merged)


@pytest.fixture
def contents(place: Path) -> Contents:
    contents = Contents(place / "content")
    fill(contents, *FILES.values())
    return contents


async def sees(path: Path) -> bool:
    return await asyncio.to_thread(path.exists)


async def blind(path: Path) -> bool:
    return False


@pytest_asyncio.fixture(params=["mounts", "copies"])
async def folders(request: pytest.FixtureRequest, place: Path, contents: Contents) -> AsyncIterator[WorkFolders]:
    folders = WorkFolders(place, contents, BOOT, remove)
    await folders.find_out(sees if request.param == "mounts" else blind)
    assert os.listdir(place / "work") == []
    yield folders
    folders.sweep(())
    assert os.listdir(place / "work") == []


def stored(contents: Contents) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in contents.folder.iterdir()}


class TestOwnFolder:
    def test_has_what_came_along(self, folders: WorkFolders) -> None:
        link, empty = Entry("pkg/up", "link", target="../train.py"), Entry("nothing/here", "dir")
        own = folders.make("c1", *folder_of(FILES, link, empty, programs=("train.py",)))
        assert {path: (own / path).read_bytes() for path in FILES} == FILES
        assert (own / "pkg/up").readlink() == Path("../train.py")
        assert list((own / "nothing/here").iterdir()) == []
        assert os.access(own / "train.py", os.X_OK)
        assert not (own / "data.csv").stat().st_mode & 0o111

    def test_whatever_a_job_does_there_changes_it_for_nobody(self, folders: WorkFolders, contents: Contents) -> None:
        """Fails where its names are links to what is kept."""
        before = stored(contents)
        folder = folder_of(FILES)
        own = folders.make("c1", *folder)
        with (own / "data.csv").open("ab") as file:
            file.write(b"3,4\n")
        with (own / "train.py").open("r+b") as file:
            file.truncate(1)
        (own / "new").write_bytes(b"another")
        (own / "new").rename(own / "pkg/ü.py")
        (own / "empty.txt").chmod(0)
        (own / "empty.txt").unlink()
        assert (own / "pkg/ü.py").read_bytes() == b"another"
        assert (own / "data.csv").read_bytes() == b"1,2\n3,4\n"
        assert stored(contents) == before
        assert all(path.stat().st_mode & 0o777 == 0o666 for path in contents.folder.iterdir())
        another = folders.make("c2", *folder)
        assert {path: (another / path).read_bytes() for path in FILES} == FILES

    def test_what_a_job_has_made_is_found_beside_what_it_was_made_over(self, folders: WorkFolders) -> None:
        own = folders.make("c1", *folder_of(FILES))
        (own / "pkg/result").write_bytes(b"42")
        made = folders.made("c1")
        assert made is not None
        assert (made[0] / "pkg/result").read_bytes() == b"42"
        assert not (made[1] / "pkg/result").exists()
        assert (made[1] / "train.py").read_bytes() == FILES["train.py"]
        assert folders.made("c2") is None

    def test_goes_with_its_container(self, folders: WorkFolders, place: Path) -> None:
        folders.make("c1", *folder_of(FILES))
        folders.make("c2", *folder_of(FILES))
        folders.drop("c1")
        folders.drop("never there")
        assert os.listdir(place / "work") == ["c2"]

    async def test_a_killed_worker_leaves_those_that_still_run_and_no_others(
        self, folders: WorkFolders, place: Path, contents: Contents
    ) -> None:
        own = folders.make("adopted", *folder_of(FILES))
        (own / "made").touch()
        folders.make("orphan", *folder_of(FILES))
        reborn = WorkFolders(place, Contents(place / "content"), BOOT, remove)
        await reborn.find_out(sees)
        reborn.sweep({"adopted"})
        assert os.listdir(place / "work") == ["adopted"]
        assert (own / "made").exists()
        assert (own / "train.py").read_bytes() == FILES["train.py"]

    def test_is_laid_out_anew_after_a_power_cut(self, folders: WorkFolders, place: Path, contents: Contents) -> None:
        sha256, folder = folder_of(FILES)
        folders.make("c1", sha256, folder)
        (contents.folder / name_of(FILES["train.py"])).write_bytes(b"imp")  # its end was not on the disk
        reborn = WorkFolders(place, contents, "the next boot", remove)
        reborn.sweep(())
        assert contents.lacks(folder.files) == {name_of(FILES["train.py"]): len(FILES["train.py"])}
        fill(contents, FILES["train.py"])
        assert (reborn.make("c2", sha256, folder) / "train.py").read_bytes() == FILES["train.py"]


class TestContents:
    @pytest.mark.parametrize("step", [1, 7, 1000])
    def test_a_bundle_may_come_in_any_pieces(self, place: Path, step: int) -> None:
        contents = Contents(place / "content")
        data = bundle(*FILES.values())
        unpacking = Unpacking(contents, {name_of(one): len(one) for one in FILES.values()})
        for start in range(0, len(data), step):
            unpacking.feed(data[start : start + step])
        assert not unpacking.missing
        assert set(stored(contents).values()) == set(FILES.values())

    @pytest.mark.parametrize(
        "data",
        [
            bundle(b"not asked for"),
            head(name_of(b"good"), 4) + b"evil",
            head(name_of(b"good"), 2**60) + b"good",
            bundle(b"good") + bundle(b"good"),
        ],
        ids=["another", "wrong", "size", "twice"],
    )
    def test_what_is_not_what_was_asked_for_is_refused(self, place: Path, data: bytes) -> None:
        contents = Contents(place / "content")
        unpacking = Unpacking(contents, {name_of(b"good"): 4})
        with pytest.raises(Damaged):
            unpacking.feed(data)
        unpacking.close()
        assert set(stored(contents).values()) <= {b"good"}

    def test_what_was_cut_off_is_not_there(self, place: Path) -> None:
        contents = Contents(place / "content")
        for closes in (True, False):
            unpacking = Unpacking(contents, {name_of(b"whole"): 5})
            unpacking.feed(bundle(b"whole")[:-1])
            if closes:
                unpacking.close()
                assert stored(contents) == {}
        contents = Contents(place / "content")
        assert stored(contents) == {}
        assert contents.lacks(folder_of({"a": b"whole"})[1].files)

    def test_what_is_closed_while_it_is_written_is_written_first(
        self, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A descriptor that is closed under a thread is soon that of another file, into which it writes then."""
        begun, goes_on = threading.Event(), threading.Event()
        write = Arriving.write

        def waiting(arriving: Arriving, data: memoryview) -> None:
            begun.set()
            goes_on.wait()
            write(arriving, data)

        monkeypatch.setattr(Arriving, "write", waiting)
        contents = Contents(place / "content")
        unpacking = Unpacking(contents, {name_of(b"whole"): 5, name_of(b"other"): 5})
        feeds = threading.Thread(target=unpacking.feed, args=(bundle(b"whole"),))
        closes = threading.Thread(target=unpacking.close)
        feeds.start()
        begun.wait()
        closes.start()
        closes.join(0.2)  # it may not end, and would without waiting
        goes_on.set()
        for thread in (feeds, closes):
            thread.join()
        unpacking.feed(bundle(b"other"))
        assert set(stored(contents).values()) == {b"whole"}

    def test_what_was_used_least_recently_goes_first_and_nothing_that_is_laid_out(self, place: Path) -> None:
        contents = Contents(place / "content", limit=20)
        folders = WorkFolders(place, contents, BOOT, remove)
        used, new, old = b"in use....", b"newer.....", b"older....."
        fill(contents, used, old, new)
        folders.make("c1", *folder_of({"a": used}))
        for data, seconds in ((used, 1), (old, 2), (new, 3)):
            os.utime(contents.folder / name_of(data), (seconds, seconds))
        folders.prune()
        assert set(stored(contents).values()) == {used, new}
        folders.sweep(())
        contents = Contents(place / "content", limit=0)
        WorkFolders(place, contents, BOOT, remove).prune()
        assert stored(contents) == {}

    def test_folders_in_nobodys_use_are_laid_out_no_longer_than_there_are_newer_ones(self, place: Path) -> None:
        contents = Contents(place / "content")
        folders = WorkFolders(place, contents, BOOT, remove)
        fill(contents, b"x")
        folders.make("in use", *folder_of({"in use": b"x"}))
        for number in range(MAX_LAID_OUT + 3):
            folders.make(str(number), *folder_of({str(number): b"x"}))
            folders.drop(str(number))
        folders.prune()
        laid = [name for name in os.listdir(place / "laid") if not name.startswith(".")]
        assert len(laid) == MAX_LAID_OUT + 1
        assert folder_of({"in use": b"x"})[0] in laid
        assert folder_of({"0": b"x"})[0] not in laid


async def test_many_containers_that_begin_at_once_share_one_layout(place: Path, contents: Contents) -> None:
    folders = WorkFolders(place, contents, BOOT, remove)
    await folders.find_out(sees)
    folder = folder_of(FILES)
    made = [asyncio.to_thread(folders.make, f"c{number}", *folder) for number in range(8)]
    assert len({own.stat().st_ino for own in await asyncio.gather(*made)}) == 8
    assert sum(not name.startswith(".") for name in os.listdir(place / "laid")) == 1
    folders.sweep(())
