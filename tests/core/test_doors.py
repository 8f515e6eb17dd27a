"""The rows that say what each way of speaking to a container needs, and that keys of lanes do not depend on them."""

from __future__ import annotations

from hecaton.core import doors
from hecaton.core.batches import lane_of
from hecaton.core.doors import WAYS
from hecaton.core.model import JobSpec, Mode, WorkerId, WorkerStatus
from hecaton.core.options import FOLDER, OPTIONS, demands
from hecaton.core.placement.matching import Ability, Host, Lane, Want, refusal, warm_key


def test_every_mode_has_a_row_and_is_asked_for_by_an_option_or_a_protocol_of_its_own() -> None:
    assert set(WAYS) == set(Mode)
    asked = {mode: doors.asked_for([way.option]) for mode, way in WAYS.items() if way.option is not None}
    spoken = {mode: doors.BY_PROTOCOL[way.protocol] for mode, way in WAYS.items() if way.protocol is not None}
    assert {**asked, **spoken} == {mode: mode for mode in WAYS}
    assert set(doors.BY_PROTOCOL) == set(OPTIONS["protocol"].words)


def test_what_an_option_means_to_some_ways_only_is_said_by_their_rows() -> None:
    assert set(OPTIONS) >= doors.OF_SOME_WAYS


def test_a_file_is_part_of_what_stays_warm_and_of_nothing_else() -> None:
    for mode, way in WAYS.items():
        lane = lane_of(1, 2, JobSpec(mode, "f" * 64 if way.needs_file else None))
        assert (lane.file is not None) == (way.needs_file and way.warm)
        assert (warm_key(lane, None, 1) is not None) == way.warm


def test_a_worker_of_the_release_before_carries_out_what_it_did_without_a_list() -> None:
    assert doors.carried_out(None, any_image=True) == {"native", "handler", "script"}
    assert doors.carried_out(None, any_image=False) == {"native"}
    assert doors.carried_out(("native", "of the release after"), any_image=True) == {"native", "of the release after"}


def test_keys_of_lanes_and_containers_are_what_databases_and_workers_have() -> None:
    """A key that changed would strand every job that waits, and start every warm container anew."""
    lanes = [Lane(1, 2), Lane(1, 2, Mode.HANDLER, "f" * 64), Lane(1, 2, Mode.SCRIPT)]
    assert [lane.key() for lane in lanes] == [6864722077160733516, 1207416049911834840, 4641641959624432240]
    containers = [warm_key(lane, "sha256:" + "d" * 64, 3) for lane in lanes]
    assert containers == ["1-2-dddddddddddd-3-", "1-2-dddddddddddd-3-ffffffffffffffff", None]


def test_another_folder_is_another_warm_container_and_needs_a_worker_that_knows_of_folders() -> None:
    for mode, way in WAYS.items():
        file = "f" * 64 if way.needs_file else None
        none, one, other = (lane_of(1, 2, JobSpec(mode, file, workdir=folder)) for folder in (None, "a" * 64, "b" * 64))
        assert none.key() != one.key()
        assert (one.key() != other.key()) == way.warm
        assert demands(one.asks) == {FOLDER}
        keys = [warm_key(lane, None, 1) for lane in (none, one, other)]
        assert len(set(keys)) == (3 if way.warm else 1)
        host = Host(WorkerId("w1"), "old", WorkerStatus.ONLINE, (), Ability(options=frozenset({"timeout"})))
        said = refusal(Want(1, "image", mode, None, 1, 0, 0.0, asks=demands(one.asks)), host)
        assert said is not None
        assert "does not carry out --workdir there" in said
