"""Mutants of what is given of a machine: cards and parts of them, memory, and who is told what when it runs out."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

_PLACES = "tests/worker/test_places.py::"
_SHORTAGE = "tests/worker/test_shortage.py::"

MUTANTS = (
    Mutant(
        "card-given-twice",
        "no card, and no byte of one, is held by two containers",
        "worker/brain/steps.py",
        " and self._has_room(slot, job):",
        ":",
        (_PLACES + "test_a_job_waits_for_what_another_one_still_works_with",),
    ),
    Mutant(
        "waits-for-ever",
        "a job that waits for room begins as soon as there is some",
        "worker/brain/state.py",
        "        self._steps.advance_waiting(now)\n",
        "",
        (_PLACES + "test_idle_containers_that_are_in_the_way_go_first",),
    ),
    Mutant(
        "warm-with-less",
        "a job gets a container that holds what its place holds",
        "worker/brain/slots.py",
        " and (self.holds is job.holds or self.holds == job.holds)",
        "",
        (_PLACES + "test_another_holding_of_the_same_place_is_another_container",),
    ),
    Mutant(
        "one-more-goes",
        "what is being stopped anyway makes the room, and what is warm stays",
        "worker/brain/places.py",
        'float("-inf") if container.phase is Phase.STOPPING else container.since',
        "container.since",
        (_PLACES + "test_what_is_being_stopped_already_makes_the_room",),
    ),
    Mutant(
        "killed-long-ago",
        "a job is not blamed for what an earlier one in its container ran out of",
        "worker/containers/kills.py",
        " and _at(line) >= since",
        "",
        (_SHORTAGE + "test_what_was_killed_long_ago_ended_another_job",),
    ),
    Mutant(
        "machines-end-blamed-on-the-job",
        "a job that the machine's end took along is tried elsewhere",
        "worker/containers/kills.py",
        'machine = container not in (kill[2] or "")',
        "machine = False",
        (_SHORTAGE + "test_the_kernel_says_who_was_killed_and_whose_limit_that_was",),
    ),
)
