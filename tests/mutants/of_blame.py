"""Mutants of whose fault it was: images that cannot be had, machines that start nothing, and what their names mean."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

_PULLS = "tests/server/test_pulls.py::"
_LIFECYCLE = "tests/core/test_lifecycle.py::"

MUTANTS = (
    Mutant(
        "barred-machine-tried",
        "an image is not tried on a machine that cannot get it, before the time",
        "core/placement/matching.py",
        "if host.id not in want.barred and unable(want, host.ability) is None\n        ]",
        "if unable(want, host.ability) is None\n        ]",
        (_PULLS + "test_an_image_that_cannot_be_pulled_takes_no_machine_from_another_image",),
    ),
    Mutant(
        "no-hope-for-images",
        "a job waits for a machine that may have its image",
        "core/lifecycle.py",
        "if reason in NO_IMAGE and hope:",
        "if False:",
        (_PULLS + "test_a_job_waits_for_a_busy_machine_that_may_have_its_image",),
    ),
    Mutant(
        "patience-without-end",
        "an image that no machine can get is given up in the end",
        "server/fleet/images/pulls.py",
        "if waited < self._patience and (",
        "if (",
        (_PULLS + "test_the_patience_ends_with_a_sentence",),
    ),
    Mutant(
        "pull-charged-to-the-machine",
        "an image that cannot be had is no machine's fault",
        "core/lifecycle.py",
        "if reason in NO_IMAGE and hope:\n        return Verdict(Event.REQUEUE, reason, Charged.NONE)",
        "if reason in NO_IMAGE and hope:\n        return Verdict(Event.REQUEUE, reason, Charged.INFRA)",
        (_LIFECYCLE + "test_an_image_that_may_yet_be_had_costs_nobody_anything",),
    ),
    Mutant(
        "one-refusal-is-final",
        "an image is refused only by all machines",
        "server/fleet/images/pulls.py",
        "if any(other not in marks or marks[other].is_stale(now) for other in others):",
        "if False:",
        (_PULLS + "test_an_image_that_every_machine_is_refused_fails_at_once_after_each_was_tried_once",),
    ),
    Mutant(
        "poison-for-any-third-loss",
        "poison is said only of a job whose worker was lost each time",
        "core/lifecycle.py",
        "Reason.POISON if alone else reason",
        "Reason.POISON if reason is Reason.WORKER_LOST else reason",
        (_LIFECYCLE + "test_poison_is_a_job_whose_worker_was_lost_each_time",),
    ),
    Mutant(
        "moved-name-unnoticed",
        "the next job runs what the image's name means now",
        "worker/brain/state.py",
        "            container.outdated = True\n",
        "            pass\n",
        ("tests/worker/test_image_watch.py::test_an_idle_container_whose_image_is_another_now_goes_at_once",),
    ),
    Mutant(
        "unknown-is-unchanged",
        "a refresh that nobody could check is refused",
        "server/accounts/resolver.py",
        "            raise self._unknown(reference, checked, versions)\n",
        "            return ''\n",
        ("tests/server/test_images.py::test_a_refresh_without_anybody_who_could_tell_is_refused",),
    ),
    Mutant(
        "machine-never-probed",
        "a machine that starts not even what ran last is to blame",
        "worker/runtimes/docker.py",
        "            starts = await self._starts_what_ran_before(spec)\n",
        "            starts = True\n",
        ("tests/worker/test_blame.py::test_a_machine_that_starts_not_even_what_ran_last_is_broken",),
    ),
    Mutant(
        "machine-never-cleared",
        "an image that does not start where another does is to blame",
        "worker/runtimes/docker.py",
        "            if not starts:\n",
        "            if True:\n",
        ("tests/worker/test_blame.py::test_an_image_that_does_not_start_where_another_does_is_to_blame",),
    ),
    Mutant(
        "broken-machine-stays",
        "a machine that says that it starts nothing is out at once",
        "server/fleet/channel.py",
        "                self._tasks.start(self._guarded(link, self._quarantine.broken(worker, why)))\n",
        "                pass\n",
        (
            "tests/server/test_quarantine.py::"
            "test_a_machine_that_says_it_starts_nothing_is_out_at_once_and_eats_no_queue",
        ),
    ),
    Mutant(
        "image-for-the-machine",
        "what is not in an image is no fault of the machine",
        "worker/runtimes/docker_faults.py",
        'if "hook" not in low and any(',
        'if "hook" in low and any(',
        ("tests/worker/test_blame.py::test_what_is_not_in_the_image_is_the_images_fault",),
    ),
)  # fmt: skip
