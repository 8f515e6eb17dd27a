"""What the store promises about users, images, workers and meta. Part of tests.contracts.store_contract."""

from __future__ import annotations

import pytest

from hecaton.core.errors import Conflict, NotFound, Unauthenticated
from hecaton.core.model import KeyScope, Reason, Role, WorkerId
from hecaton.core.options import Options
from hecaton.store.port import Database, Home, Store
from tests.contracts.store_scene import NOW, OTHER, WORKER, Scene


class AccountContract:
    # -- users ---------------------------------------------------------------------------------
    async def test_a_user_is_found_by_number_and_by_name_in_any_case(self, database: Database) -> None:
        user = await database.write(lambda store: store.create_user("Jörg", "hash", Role.USER, NOW))
        assert (user.name, user.role, user.created_at) == ("Jörg", Role.USER, NOW)
        assert await database.read(lambda store: store.user(user.id)) == user
        assert await database.read(lambda store: store.user_by_name("JÖRG")) == user
        assert await database.read(lambda store: store.user_by_name("nobody")) is None
        assert await database.read(lambda store: store.users()) == [user]

    async def test_a_name_is_taken_in_any_case(self, database: Database) -> None:
        await database.write(lambda store: store.create_user("ann", "hash", Role.USER, NOW))
        with pytest.raises(Conflict, match="Ann"):
            await database.write(lambda store: store.create_user("Ann", "other", Role.ADMIN, NOW))

    async def test_a_new_password_makes_old_tokens_void(self, database: Database) -> None:
        old = await database.write(lambda store: store.create_user("ann", "hash", Role.USER, NOW))
        new = await database.write(lambda store: store.set_password("ANN", "other"))
        assert (new.id, new.password_hash) == (old.id, "other")
        assert new.token_version > old.token_version
        with pytest.raises(NotFound, match="bob"):
            await database.write(lambda store: store.set_password("bob", "other"))

    async def test_a_deleted_user_is_gone_and_the_name_is_free(self, database: Database) -> None:
        await database.write(lambda store: store.create_user("root", "hash", Role.ADMIN, NOW))
        old = await database.write(lambda store: store.create_user("ann", "hash", Role.USER, NOW))
        await database.write(lambda store: store.delete_user("ann"))
        assert await database.read(lambda store: store.user(old.id)) is None
        assert await database.read(lambda store: store.user_by_name("ann")) is None
        assert [user.name for user in await database.read(lambda store: store.users())] == ["root"]
        new = await database.write(lambda store: store.create_user("ann", "hash", Role.USER, NOW))
        assert new.id != old.id
        with pytest.raises(NotFound, match="bob"):
            await database.write(lambda store: store.delete_user("bob"))

    async def test_the_last_admin_stays(self, database: Database) -> None:
        await database.write(lambda store: store.create_user("root", "hash", Role.ADMIN, NOW))
        with pytest.raises(Conflict, match="last admin"):
            await database.write(lambda store: store.delete_user("root"))
        await database.write(lambda store: store.create_user("second", "hash", Role.ADMIN, NOW))
        await database.write(lambda store: store.delete_user("root"))

    async def test_a_role_changes_and_the_last_admin_keeps_his(self, database: Database) -> None:
        await database.write(lambda store: store.create_user("root", "hash", Role.ADMIN, NOW))
        ann = await database.write(lambda store: store.create_user("ann", "hash", Role.USER, NOW))
        with pytest.raises(Conflict, match="last admin"):
            await database.write(lambda store: store.set_role("root", Role.USER))
        await database.write(lambda store: store.set_role("root", Role.ADMIN))  # no other one
        changed = await database.write(lambda store: store.set_role("ANN", Role.ADMIN))
        assert (changed.id, changed.role) == (ann.id, Role.ADMIN)
        await database.write(lambda store: store.set_role("root", Role.WORKER))
        assert [user.role for user in await database.read(lambda store: store.users())] == [Role.ADMIN, Role.WORKER]
        with pytest.raises(NotFound, match="bob"):
            await database.write(lambda store: store.set_role("bob", Role.USER))

    async def test_a_job_is_given_with_the_uid_of_its_owner(self, database: Database) -> None:
        scene = await Scene.on(database)
        assert (await database.write(lambda store: store.set_uid("ANN", 1017))).uid == 1017
        await scene.submit()
        assert [job.uid for job in await scene.claim()] == [1017]
        await database.write(lambda store: store.set_uid("ann", None))
        assert [user.uid for user in await database.read(lambda store: store.users())] == [None]
        with pytest.raises(NotFound, match="bob"):
            await database.write(lambda store: store.set_uid("bob", 1))

    async def test_of_each_user_the_homes_used_last_are_kept(self, database: Database) -> None:
        await database.write(lambda store: store.create_user("root", "hash", Role.ADMIN, NOW))
        ann = await database.write(lambda store: store.create_user("ann", "hash", Role.USER, NOW))
        bob = await database.write(lambda store: store.create_user("bob", "hash", Role.USER, NOW))
        used = [Home(ann.id, f"10.0.0.{n}", NOW + n) for n in range(3)]
        others = Home(bob.id, "10.0.0.0", NOW)

        def add(store: Store) -> None:
            for home in (others, *used, Home(ann.id, "10.0.0.0", NOW + 9), Home(ann.id, "10.0.0.7", NOW + 10)):
                store.add_home(home, 3)

        await database.write(add)
        kept = [used[2], Home(ann.id, "10.0.0.0", NOW + 9), Home(ann.id, "10.0.0.7", NOW + 10)]
        assert await database.read(lambda store: store.homes(0)) == [*kept, others]
        assert await database.read(lambda store: store.homes(NOW + 2)) == kept[1:]
        await database.write(lambda store: store.delete_user("ann"))
        assert await database.read(lambda store: store.homes(0)) == [others]

    async def test_an_owner_of_unfinished_jobs_stays_until_they_end(self, database: Database) -> None:
        scene = await Scene.on(database)
        await database.write(lambda store: store.create_user("second", "hash", Role.ADMIN, NOW))
        job = await scene.submit(retries=1)

        async def refused() -> None:
            with pytest.raises(Conflict, match="unfinished"):
                await database.write(lambda store: store.delete_user("ann"))

        await refused()  # waiting
        [first] = await scene.claim()
        await refused()  # assigned
        await scene.end(first.ref, Reason.HANDLER_ERROR, 1)
        await refused()  # waits for its delay
        [second] = await scene.claim(at=100)
        await scene.end(second.ref, Reason.OK, 101)
        await database.write(lambda store: store.delete_user("ann"))
        assert (await scene.job(job)).owner == "ann"

    # -- keys ----------------------------------------------------------------------------------
    async def test_a_key_is_used_once_for_what_it_is_made_for_and_before_it_expires(self, database: Database) -> None:
        user = await database.write(lambda store: store.create_user("ann", "hash", Role.ADMIN, NOW))
        version = user.token_version

        def add(store: Store, key: bytes) -> None:
            store.add_key(key, KeyScope.ENROL, user.id, version, NOW, NOW + 60)

        for key in (b"1", b"2", b"3"):
            await database.write(lambda store, key=key: add(store, key))  # type: ignore[misc]
        refused = (b"1", KeyScope.LOGIN, NOW), (b"1", KeyScope.ENROL, NOW + 60), (b"9", KeyScope.ENROL, NOW)
        for wrong in refused:
            with pytest.raises(Unauthenticated):
                await database.write(lambda store, wrong=wrong: store.use_key(*wrong))  # type: ignore[misc]
        assert await database.write(lambda store: store.use_key(b"1", KeyScope.ENROL, NOW + 59)) == user
        with pytest.raises(Unauthenticated):
            await database.write(lambda store: store.use_key(b"1", KeyScope.ENROL, NOW + 59))
        await database.write(lambda store: store.set_password("ann", "another"))
        with pytest.raises(Unauthenticated):
            await database.write(lambda store: store.use_key(b"2", KeyScope.ENROL, NOW))

    # -- images --------------------------------------------------------------------------------
    async def test_an_image_is_registered_once(self, database: Database) -> None:
        image = await database.write(lambda store: store.add_image("python:3.9-slim", "sha256:a", "Python", NOW))
        assert (image.digest, image.description, image.env, image.env_revision) == ("sha256:a", "Python", {}, 0)
        assert await database.read(lambda store: store.image(image.id)) == image
        assert await database.read(lambda store: store.image_by_name("python:3.9-slim")) == image
        assert await database.read(lambda store: store.images()) == [image]
        with pytest.raises(Conflict, match="registered already"):
            await database.write(lambda store: store.add_image("python:3.9-slim", None, "", NOW))

    async def test_an_update_changes_only_what_it_names(self, database: Database) -> None:
        await database.write(lambda store: store.add_image("a:1", "sha256:a", "old", NOW))
        described = await database.write(
            lambda store: store.update_image("a:1", NOW + 1, env=None, description="new", digest=None)
        )
        assert (described.digest, described.description, described.env_revision) == ("sha256:a", "new", 0)
        assert (described.created_at, described.updated_at) == (NOW, NOW + 1)
        with pytest.raises(NotFound, match="b:1"):
            await database.write(lambda store: store.update_image("b:1", NOW, env=None, description="", digest=None))

    async def test_an_image_has_options_for_its_jobs_until_they_are_taken_back(self, database: Database) -> None:
        image = await database.write(lambda store: store.add_image("a:1", None, "", NOW, Options(startup_timeout=9.0)))
        assert image.defaults == Options(startup_timeout=9.0)
        for change, left in (({}, 9.0), ({"startup_timeout": 8.0}, 8.0), ({"startup_timeout": None}, None)):
            await database.write(
                lambda store, change=change: store.update_image(  # type: ignore[misc]
                    "a:1", NOW, env=None, description=None, digest=None, defaults=change
                )
            )
            known = await database.read(lambda store: store.image_by_name("a:1"))
            assert known is not None
            assert known.defaults == Options(startup_timeout=left)

    async def test_a_changed_environment_has_a_new_revision_an_equal_one_has_not(self, database: Database) -> None:
        await database.write(lambda store: store.add_image("a:1", None, "", NOW))
        for env, revision in [({"KEY": "ä=1"}, 1), ({"KEY": "ä=1"}, 1), ({}, 2)]:
            image = await database.write(
                lambda store, env=env: store.update_image("a:1", NOW, env=env, description=None, digest=None)  # type: ignore[misc]
            )
            assert (image.env, image.env_revision) == (env, revision)

    async def test_options_that_shape_a_container_have_a_new_revision_and_others_have_not(
        self, database: Database
    ) -> None:
        await database.write(lambda store: store.add_image("a:1", None, "", NOW))
        for change, revision in [
            ({"shm": "8G"}, 1),
            ({"shm": "8G"}, 1),
            ({"startup_timeout": 9.0}, 1),
            ({"shm": None}, 2),
        ]:
            image = await database.write(
                lambda store, change=change: store.update_image(  # type: ignore[misc]
                    "a:1", NOW, env=None, description=None, digest=None, defaults=change
                )
            )
            assert image.env_revision == revision

    async def test_an_image_is_each_ones_own_beside_the_registered_one(self, database: Database) -> None:
        ann = await database.write(lambda store: store.create_user("ann", "hash", Role.USER, NOW))
        bob = await database.write(lambda store: store.create_user("bob", "hash", Role.USER, NOW))
        registered = await database.write(lambda store: store.add_image("a:1", None, "", NOW))
        used = []
        for owner in (ann.id, bob.id, ann.id, None):
            use = await database.write(lambda store, owner=owner: store.use_image("a:1", owner, NOW, 0.0, 9))  # type: ignore[misc]
            used.append(use.image)
        hers, his = used[:2]
        assert (hers.owner_id, his.owner_id, used[2], used[3].id) == (ann.id, bob.id, hers, registered.id)
        assert len({image.id for image in await database.read(lambda store: store.images())}) == 3
        pinned = await database.write(lambda store: store.pin_image("a:1", "sha256:a", NOW + 1))
        assert {image.id: image.digest for image in pinned} == dict.fromkeys(
            (registered.id, hers.id, his.id), "sha256:a"
        )
        assert await database.write(lambda store: store.pin_image("a:1", "sha256:b", NOW + 1)) == []
        await database.write(lambda store: store.delete_image("a:1", ann.id))
        assert await database.read(lambda store: store.image_by_name("a:1", ann.id)) is None
        again = await database.write(lambda store: store.use_image("a:1", ann.id, NOW + 2, 0.0, 1))
        assert (again.image.id, again.image.digest) == (hers.id, None)
        await database.write(lambda store: store.delete_user("bob"))
        assert await database.read(lambda store: store.image(his.id)) is None
        with pytest.raises(NotFound):
            await database.write(lambda store: store.use_image("a:1", bob.id, NOW, 0.0, 9))

    async def test_own_images_have_a_bound_and_go_when_nobody_uses_them(self, database: Database) -> None:
        ann = await database.write(lambda store: store.create_user("ann", "hash", Role.USER, NOW))
        old = (await database.write(lambda store: store.use_image("a:1", ann.id, NOW, 0.0, 2))).image
        await database.write(lambda store: store.use_image("b:1", ann.id, NOW + 5, 0.0, 2))
        await database.write(lambda store: store.delete_image("b:1", ann.id))
        with pytest.raises(Conflict, match="the most for one user"):
            await database.write(lambda store: store.use_image("c:1", ann.id, NOW + 6, 0.0, 2))
        made = await database.write(lambda store: store.use_image("c:1", ann.id, NOW + 6, NOW + 1, 3))
        assert made.forgotten == (old.id,)
        assert await database.read(lambda store: store.images()) == [made.image]

    async def test_an_image_with_unfinished_jobs_stays_and_old_jobs_keep_its_name(self, database: Database) -> None:
        scene = await Scene.on(database)
        job = await scene.submit()
        with pytest.raises(Conflict, match="unfinished"):
            await database.write(lambda store: store.delete_image("python:3.9-slim"))
        await database.write(lambda store: store.cancel(job, NOW))
        await database.write(lambda store: store.delete_image("python:3.9-slim"))
        assert await database.read(lambda store: store.image(scene.image.id)) is None
        assert await database.read(lambda store: store.images()) == []
        assert (await scene.job(job)).image == "python:3.9-slim"
        again = await database.write(lambda store: store.add_image("python:3.9-slim", None, "", NOW))
        assert again.id != scene.image.id

    # -- workers -------------------------------------------------------------------------------
    async def test_a_worker_is_known_by_its_token_until_it_is_removed(self, database: Database) -> None:
        await Scene.on(database)
        record = await database.read(lambda store: store.worker_by_token(b"token-1"))
        assert record is not None
        assert (record.id, record.name, record.registered_by, record.removed) == (WORKER, "gpu-1", "ann", False)
        removed = await database.write(lambda store: store.remove_worker("gpu-1"))
        assert (removed.id, removed.removed) == (WORKER, True)
        assert await database.read(lambda store: store.worker_by_token(b"token-1")) is None
        assert [worker.name for worker in await database.read(lambda store: store.workers())] == ["gpu-2"]
        await database.write(lambda store: store.remove_worker(OTHER))
        with pytest.raises(NotFound, match="gpu-1"):
            await database.write(lambda store: store.remove_worker("gpu-1"))

    async def test_a_workers_name_is_unique_among_those_not_removed(self, database: Database) -> None:
        await Scene.on(database)
        third = WorkerId("third")
        with pytest.raises(Conflict, match="gpu-1"):
            await database.write(lambda store: store.add_worker(third, "gpu-1", "ann", b"token-3", NOW))
        await database.write(lambda store: store.remove_worker("gpu-1"))
        await database.write(lambda store: store.add_worker(third, "gpu-1", "ann", b"token-3", NOW))

    async def test_no_worker_is_named_like_the_id_of_another(self, database: Database) -> None:
        """Each is found by either: it would be drained and removed in place of the other."""
        await Scene.on(database)
        third = WorkerId("third")
        for other in (WORKER, OTHER):
            await database.write(lambda store: store.remove_worker(OTHER)) if other is OTHER else None
            with pytest.raises(Conflict, match=other):
                await database.write(lambda store, other=other: store.add_worker(third, other, "ann", b"token-3", NOW))  # type: ignore[misc]

    async def test_a_drain_stays_until_it_is_ended(self, database: Database) -> None:
        await Scene.on(database)
        assert (await database.write(lambda store: store.set_drained("gpu-1", True))).drained
        workers = await database.read(lambda store: store.workers())
        assert [(worker.name, worker.drained) for worker in workers] == [("gpu-1", True), ("gpu-2", False)]
        assert not (await database.write(lambda store: store.set_drained(WORKER, False))).drained
        with pytest.raises(NotFound, match="gpu-9"):
            await database.write(lambda store: store.set_drained("gpu-9", True))

    async def test_the_slots_of_a_worker_are_those_of_the_first_time_until_more_are_let_in(
        self, database: Database
    ) -> None:
        await Scene.on(database)
        found = []
        for slots, more in ((2, False), (3, False), (1, True), (4, True), (1, False)):
            await database.write(
                lambda store, slots=slots, more=more: store.enrol_slots(WORKER, slots, more)  # type: ignore[misc]
            )
            found.append([worker.slots for worker in await database.read(lambda store: store.workers())])
        assert found == [[2, None], [2, None], [2, None], [4, None], [4, None]]

    async def test_a_quarantine_stays_until_it_is_ended_or_the_worker_undrained(self, database: Database) -> None:
        await Scene.on(database)
        for end in (
            lambda store: store.set_quarantine(WORKER, None, 0.0),
            lambda store: store.set_drained("gpu-1", False),
        ):
            await database.write(lambda store: store.set_quarantine(WORKER, "broken", NOW + 9))
            record = await database.read(lambda store: store.worker_by_token(b"token-1"))
            assert record is not None
            assert (record.quarantine, record.quarantined_until) == ("broken", NOW + 9)
            await database.write(end)
            record = await database.read(lambda store: store.worker_by_token(b"token-1"))
            assert record is not None
            assert record.quarantine is None

    async def test_a_worker_is_seen(self, database: Database) -> None:
        await Scene.on(database)
        await database.write(lambda store: store.seen([WORKER], NOW + 60))
        workers = await database.read(lambda store: store.workers())
        assert [(worker.name, worker.last_seen - NOW) for worker in workers] == [("gpu-1", 60), ("gpu-2", 0)]

    # -- meta ----------------------------------------------------------------------------------
    async def test_a_meta_value_is_replaced(self, database: Database) -> None:
        assert await database.read(lambda store: store.meta("secret")) is None
        await database.write(lambda store: store.set_meta("secret", "one"))
        await database.write(lambda store: store.set_meta("secret", "two"))
        assert await database.read(lambda store: store.meta("secret")) == "two"
