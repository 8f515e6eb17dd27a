"""Mutants of the client: whose answer it takes, and how long it waits for a server."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

_FORKS = "tests/client/test_forks.py::"
_JOBS = "tests/client/test_jobs.py::"

MUTANTS = (
    Mutant(
        "another-jobs-answer-taken",
        "an answer that is about another job is refused",
        "client/http.py",
        "        if not is_about(answer, path):\n",
        "        if False:\n",
        (_FORKS + "test_an_answer_about_another_job_is_refused_and_asked_for_again_elsewhere",),
    ),
    Mutant(
        "connection-crosses-a-fork",
        "a forked child opens connections of its own",
        "client/http.py",
        "            _of_parents.append(self._connection)\n            self._connection = None\n",
        "            _of_parents.append(self._connection)\n",
        (_FORKS + "test_children_get_their_own_answers",),
    ),
    Mutant(
        "first-request-does-not-wait",
        "a wait that is a client's first request outlives a restart of the server",
        "client/http.py",
        "            elif self._taken:  # it was there a moment ago: it restarts\n",
        "            elif False:\n",
        (_JOBS + "test_so_does_one_that_is_the_first_request",),
    ),
    Mutant(
        "words-in-place-of-a-result",
        "the command line prints the result at every size",
        "cli/hecaton/jobs/text.py",
        '    elif view.result_kind == "bytes" or not has_result(view):\n',
        '    elif view.result_kind == "bytes":\n',
        ("tests/cli/test_jobs.py::test_a_result_is_printed_at_every_size",),
    ),
)
