"""Mutants of rights: who is out, and how soon."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

_CONTRACT = "tests/store/test_sqlite_contract.py::TestSqliteInline::"
_ENTRIES = "tests/server/test_entries.py::"
_ENROLMENT = "tests/server/test_enrolment.py::"
_RIGHTS = "tests/server/test_rights.py::"

MUTANTS = (
    Mutant(
        "removed-but-pending",
        "a removed worker is out within five seconds, also where it has not said hello",
        "server/fleet/workers.py",
        "        for link in self._links.get(record.id, ()):\n            _send_home(link)\n        self._hub",
        "        joined = self._fleet.members.get(record.id)\n"
        "        if joined is not None and joined.link is not None:\n"
        "            _send_home(joined.link)\n"
        "        self._hub",
        (_RIGHTS + "test_a_removed_worker_is_out_also_where_it_has_said_nothing_yet[1]",),
    ),
    Mutant(
        "removed-while-looked-up",
        "a worker that was removed since its token was looked up is out at once",
        "server/fleet/workers.py",
        "        if worker in self._removed:\n            _send_home(link)\n",
        "",
        (_RIGHTS + "test_a_worker_that_is_removed_while_its_token_is_looked_up_gets_no_job",),
    ),
    Mutant(
        "removed-worker-claims",
        "a removed worker is assigned nothing",
        "store/sqlite/verbs/accounts.py",
        "        self._there.workers.forget(worker.id)\n",
        "",
        (_CONTRACT + "test_a_removed_worker_claims_nothing_and_the_job_waits_for_another",),
    ),
    Mutant(
        "stream-outlives-password",
        "an open stream ends within a second of a new password",
        "server/hub.py",
        "        for ended in self._streams.get(holder, ()):\n            _rouse(ended)\n",
        "",
        (_RIGHTS + "test_an_open_stream_ends_with_the_right_to_it",),
    ),
    Mutant(
        "wait-outlives-password",
        "a wait ends within a second of a new password",
        "server/hub.py",
        "                if watch.holder == holder:\n                    watch.wake()\n",
        "                pass\n",
        (_RIGHTS + "test_a_wait_ends_with_the_right_to_the_answer",),
    ),
    Mutant(
        "request-outlives-password",
        "a request whose body comes slowly is worth nothing once the right to it has ended",
        "server/web/http.py",
        "            await self.endpoint.readmit(self)",
        "            pass",
        (_RIGHTS + "test_a_request_that_has_begun_is_worth_nothing_once_the_right_to_it_has_ended",),
    ),
    Mutant(
        "stream-outlives-role",
        "an open stream ends within a second of another role",
        "server/accounts/directory.py",
        "            self._revoke(user.id)\n        return _user_view(user)",
        "            pass\n        return _user_view(user)",
        (_RIGHTS + "test_an_open_stream_ends_with_the_right_to_it",),
    ),
    Mutant(
        "strangers-after-a-restart",
        "where a password was right, nobody else's guesses keep its user out, after a restart either",
        "server/composition.py",
        "        await self._homes.load()\n",
        "",
        ("tests/server/test_logins.py::test_a_restart_lets_nobody_keep_people_out_where_they_were_before",),
    ),
    Mutant(
        "slots-as-said",
        "a worker uses no more slots than when it was here first",
        "server/fleet/checks.py",
        "set(own[slots:])",
        "set()",
        (_ENROLMENT + "test_a_worker_that_says_more_slots_than_at_first_uses_no_more_until_an_admin_lets_it",),
    ),
    Mutant(
        "images-of-others",
        "an image that somebody uses is listed for him alone",
        "server/accounts/entries.py",
        "for (of, name), image in self._own.items() if of == owner_id}",
        "for (of, name), image in self._own.items()}",
        (_ENTRIES + "test_an_image_is_his_who_uses_it_and_nobody_else_hears_of_it",),
    ),
    Mutant(
        "used-before-listed",
        "a server that takes registered images only takes none that was used before, either",
        "server/accounts/entries.py",
        "        if image is not None or self._only_listed:\n",
        "        if image is not None:\n",
        (_ENTRIES + "test_what_was_used_before_images_were_listed_is_refused_too",),
    ),
    Mutant(
        "endless-images",
        "nobody has endless images of his own, nor by removing them",
        "store/sqlite/verbs/accounts.py",
        "(deleted = 0 OR used_at >= ?)",
        "(deleted = 0 OR used_at < ?)",
        (_ENTRIES + "test_nobody_has_endless_ones_and_who_removes_them_has_no_more",),
    ),
)
