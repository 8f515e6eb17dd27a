"""The table of doors: what each says of itself agrees with the row that everybody else reads."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import msgspec
import pytest

from hecaton.core.doors import WAYS
from hecaton.core.model import Mode, Reason
from hecaton.core.options import Options
from hecaton.wire.channel import FileRef
from hecaton.worker.doors.channel_folder import LAYOUT, ChannelFolder
from hecaton.worker.doors.door import Door, Known, Lies
from hecaton.worker.doors.table import DOORS
from hecaton.worker.runtimes.docker import DockerRuntime
from hecaton.worker.runtimes.port import Exit
from hecaton.worker.runtimes.process import ProcessRuntime
from tests.worker.brain import assignment
from tests.worker.test_native import Visitor

FILE = FileRef("f" * 64, "my file.py")


def made(mode: Mode, folder: ChannelFolder, nonce: str | None = None) -> Door:
    job = assignment("a", mode=mode, file=FILE if WAYS[mode].needs_file else None)
    return DOORS[mode].of(Known(job, folder, Visitor(), 1000, nonce))


def test_every_way_has_a_door_of_its_own() -> None:
    assert {mode: door.mode for mode, door in DOORS.items()} == {mode: mode for mode in WAYS}


@pytest.mark.parametrize("mode", DOORS)
def test_a_door_agrees_with_the_row_of_its_way(mode: Mode, tmp_path: Path) -> None:
    way, door = WAYS[mode], DOORS[mode]
    job = assignment("a", mode=mode, file=FILE)
    assert (door.files(job) == (FILE,)) == way.needs_file
    assert door.begins_at_start != way.warm
    kept = tmp_path / "file"
    kept.write_bytes(b"pass")
    folder = ChannelFolder(tmp_path / "c")
    commands = made(mode, folder).commands(job, lambda file: Lies(kept, "/workdir/my_file.py"))
    folder.close()
    assert (commands is not None) == way.needs_file
    assert all("/workdir/my_file.py" in command.words for command in commands or ())


@pytest.mark.parametrize("mode", DOORS)
async def test_what_the_journal_keeps_of_a_door_is_enough_to_make_it_again(mode: Mode, tmp_path: Path) -> None:
    folder = ChannelFolder(tmp_path / "c")
    first = made(mode, folder)
    job = assignment("a", mode=mode, file=FILE)
    again = ChannelFolder(folder.path, made=LAYOUT)
    later = made(mode, again, first.nonce)
    assert later.nonce == first.nonce
    assert later.environment(job) == first.environment(job)
    await later.open()
    later.adopted("handle")
    assert later.withdraw() == ()
    for _ in range(2):
        await later.close()
    again.close()
    folder.close()


def test_a_runtime_says_which_doors_it_carries() -> None:
    assert DockerRuntime.doors == set(DOORS)
    assert ProcessRuntime.doors == {Mode.NATIVE}


def test_an_assignment_without_its_file_places_nothing() -> None:
    for mode, door in DOORS.items():
        assert door.files(msgspec.structs.replace(assignment("a", mode=mode), file=None)) == ()


@pytest.mark.parametrize("mode", [Mode.SCRIPT, Mode.HANDLER])
async def test_a_file_that_was_never_launched_is_told_apart(mode: Mode, tmp_path: Path) -> None:
    folder = ChannelFolder(tmp_path / "c")
    job, door = assignment("a", mode=mode, file=FILE), made(mode, folder)
    tool = door.unready(job, ("/usr/bin/ffmpeg", "-y"))
    assert "was run" in tool.how
    assert "(/usr/bin/ffmpeg)" in tool.hint
    assert "--entrypoint none" in tool.hint
    left_out = msgspec.structs.replace(job, options=Options(entrypoint="none"))
    for other in (door.unready(left_out, ("/usr/bin/ffmpeg",)), door.unready(job, ())):
        assert "ENTRYPOINT" not in other.hint, "it is not to blame"
    os.write(folder.launched_fd, b"\n")
    if mode is Mode.HANDLER:
        assert "must call hecaton.serverless.start" in door.unready(job, ("/usr/bin/ffmpeg",)).hint
    folder.close()


async def test_a_script_that_was_never_launched_is_no_success(tmp_path: Path) -> None:
    folder, visitor = ChannelFolder(tmp_path / "c"), Visitor()
    door = DOORS[Mode.SCRIPT].of(Known(assignment("a", mode=Mode.SCRIPT, file=FILE), folder, visitor, 1000))
    await door.open()
    door.started("handle")
    assert door.ended(Exit(0)) is None
    os.write(folder.launched_fd, b"\n")
    answer = door.ended(Exit(0))
    assert answer is not None
    assert answer.reason is Reason.OK
    await door.close()
    folder.close()


async def test_a_script_is_at_work_when_its_launcher_says_so(tmp_path: Path) -> None:
    folder, visitor = ChannelFolder(tmp_path / "c"), Visitor()
    door = DOORS[Mode.SCRIPT].of(Known(assignment("a", mode=Mode.SCRIPT, file=FILE), folder, visitor, 1000))
    await door.open()
    door.started("handle")
    await asyncio.sleep(0)
    assert visitor.heard == []
    os.write(folder.launched_fd, b"\n")
    assert await visitor.has_heard(1) == ()
    assert door.ended(Exit(1)) is None
    assert visitor.heard == [()], "once"
    await door.close()
    folder.close()


async def test_a_handler_file_that_runs_is_no_fault_of_the_entrypoint(tmp_path: Path) -> None:
    """As long as a model takes to load."""
    folder, visitor = ChannelFolder(tmp_path / "c"), Visitor()
    door = DOORS[Mode.HANDLER].of(Known(assignment("a", mode=Mode.HANDLER, file=FILE), folder, visitor, 1000))
    await door.open()
    os.write(folder.launched_fd, b"\n" * 9)
    assert "must call hecaton.serverless.start" in str(await visitor.has_heard(1))
    assert os.read(folder.launched_fd, 100) == b"\n" * 8, "nobody listens any more"
    await door.close()
    folder.close()
