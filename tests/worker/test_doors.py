"""The table of doors: what each says of itself agrees with the row that everybody else reads."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from hecaton.core.doors import WAYS
from hecaton.core.model import Mode
from hecaton.wire.channel import FileRef
from hecaton.worker.doors.channel_folder import LAYOUT, ChannelFolder
from hecaton.worker.doors.door import Door
from hecaton.worker.doors.table import DOORS
from hecaton.worker.runtimes.docker import DockerRuntime
from hecaton.worker.runtimes.process import ProcessRuntime
from tests.worker.brain import assignment
from tests.worker.test_native import Visitor

FILE = FileRef("f" * 64, "my file.py")


def made(mode: Mode, folder: ChannelFolder, nonce: str | None = None) -> Door:
    job = assignment("a", mode=mode, file=FILE if WAYS[mode].needs_file else None)
    return DOORS[mode].of(job, folder, Visitor(), 1000, nonce)


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
    commands = made(mode, folder).commands(job, lambda file: kept)
    folder.close()
    assert (commands is not None) == way.needs_file
    assert all("/run/hecaton/in/my_file.py" in command.words for command in commands or ())


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
