"""Images that nobody has registered: each user has his own of a name, others see nothing of it, and nobody has endless
ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from hecaton.server.accounts import entries
from hecaton.server.accounts.entries import KEPT_UNUSED
from hecaton.wire.channel import Pulled, Resolve, Resolved, Warm
from tests.client.scripted import ScriptedServer
from tests.server.people import Person, eventually
from tests.server.running import IMAGE, Running, running

NAME = "ghcr.io/team/tool:2"
DIGEST = "sha256:" + "ab" * 32


@pytest.fixture
async def listed(tmp_path: Path) -> AsyncIterator[Running]:
    async with running(tmp_path / "server", images="listed", default_image="team/default:1") as server:
        yield server


async def _names(person: Person) -> list[tuple[str, str | None]]:
    return [(image["name"], image.get("owner")) for image in await person.get("/v1/images")]


async def _digest(person: Person) -> str:
    return str((await person.get(f"/v1/images/{NAME}"))["digest"])


async def _ended(person: Person, image: str) -> None:
    await person.must("POST", f"/v1/jobs/{await person.submit(image)}/cancel")


async def test_an_image_is_his_who_uses_it_and_nobody_else_hears_of_it(server: Running) -> None:
    await server.image()
    ada, bob = await server.user("ada"), await server.user("bob")
    job = await ada.submit(NAME)
    assert (await ada.job(job))["image"] == NAME
    assert await _names(ada) == [(NAME, "ada"), (IMAGE, None)]
    for other in (bob, server.admin):
        assert await _names(other) == [(IMAGE, None)]
        assert (await other.call("GET", f"/v1/images/{NAME}")).status == 404
        assert (await other.call("DELETE", f"/v1/images/{NAME}")).status == 404
    await bob.submit(NAME)
    assert await _names(bob) == [(NAME, "bob"), (IMAGE, None)]


async def test_what_is_warm_for_somebody_names_his_image_to_himself_and_admins(server: Running) -> None:
    await server.image()
    ada, bob = await server.user("ada"), await server.user("bob")
    await _ended(ada, NAME)
    worker = await server.worker()

    async def warm(person: Person) -> str:
        return str((await person.get("/v1/workers"))[0]["slots"][0].get("image"))

    await worker.send(Warm(0, "key", NAME))
    await eventually(partial(warm, server.admin), NAME)
    assert (await warm(ada), await warm(bob)) == (NAME, "None")
    await worker.send(Warm(0, "key", IMAGE))
    await eventually(partial(warm, bob), IMAGE)


async def test_two_who_use_one_name_share_no_container(server: Running) -> None:
    ada, bob = await server.user("ada"), await server.user("bob")
    worker = await server.worker()
    keys = []
    for person in (ada, bob, ada):
        await person.submit(NAME)
        assignment = await worker.take()
        assert assignment.image.name == NAME
        keys.append(assignment.warm_key)
        await worker.finish(assignment.ref)
    assert keys[0] == keys[2] != keys[1]


async def test_a_registered_image_goes_before_ones_own(server: Running) -> None:
    ada = await server.user("ada")
    await _ended(ada, NAME)
    await server.image(NAME, env={"A": "1"})
    assert await _names(ada) == [(NAME, None)]
    worker = await server.worker()
    await ada.submit(NAME)
    assert (await worker.take()).image.env == {"A": "1"}
    assert (await ada.call("DELETE", f"/v1/images/{NAME}")).status == 403


async def test_with_the_tag_latest_and_without_it_is_one(server: Running) -> None:
    ada = await server.user("ada")
    await _ended(ada, "team/tool")
    await _ended(ada, "team/tool:latest")
    assert await _names(ada) == [("team/tool", "ada")]


@pytest.mark.parametrize("name", ["-v/:/h", ""])  # the second is what a variable that is not set leaves
async def test_what_is_no_reference_is_refused(server: Running, name: str) -> None:
    refused = await (await server.user("ada")).call("POST", "/v1/jobs", {"image": name, "input": 1})
    assert (refused.status, "is not an image name" in refused.message) == (400, True)


async def test_a_job_without_an_image_has_the_default_one_which_is_his_own_as_any_other(server: Running) -> None:
    ada = await server.user("ada")
    job = (await ada.must("POST", "/v1/jobs", {"input": 1}))["id"]
    assert (await ada.job(job))["image"] == "python:3.12-slim"
    assert (await _names(ada), await _names(server.admin)) == ([("python:3.12-slim", "ada")], [])
    assert (await ada.get("/v1/server"))["default_image"] == "python:3.12-slim"
    batch = await ada.must("POST", "/v1/batches", {"items": [{"input": 1}]})
    assert (await ada.get(f"/v1/batches/{batch['id']}"))["image"] == "python:3.12-slim"


@pytest.mark.parametrize("change", [{"env": {"A": "1"}}, {"description": "mine"}, {"defaults": {"startup_timeout": 9}}])
async def test_settings_are_an_admins_and_of_registered_images(server: Running, change: dict[str, object]) -> None:
    ada = await server.user("ada")
    await _ended(ada, NAME)
    await _ended(server.admin, NAME)
    assert (await ada.call("PATCH", f"/v1/images/{NAME}", change)).status == 403
    refused = await server.admin.call("PATCH", f"/v1/images/{NAME}", change)
    assert refused.json()["error"]["hint"] == f"Register it: hecaton image new {NAME}"


async def test_who_may_not_change_what_is_everybodys_hears_whom_to_ask_for_that(server: Running) -> None:
    await server.image()
    ada = await server.user("ada")
    path = f"/v1/images/{IMAGE}"
    for method, body, hint in (
        ("PATCH", {"refresh": True}, f"Ask an admin: hecaton image update {IMAGE} --refresh"),
        ("PATCH", {"env": {"A": "1"}}, "For your own jobs: hecaton run -e KEY=VALUE FILE"),
        ("DELETE", None, f"Ask an admin: hecaton image delete {IMAGE}"),
    ):
        refused = await ada.call(method, path, body)
        assert (refused.status, refused.json()["error"]["hint"]) == (403, hint)


async def test_one_refreshes_and_removes_ones_own(server: Running) -> None:
    """The registry is asked by a worker: this server asks none in a private network for somebody who is no admin."""
    with ScriptedServer() as registry:
        name = f"localhost:{registry.port}/team/tool"
        ada = await server.user("ada")
        await _ended(ada, name)
        worker = await server.worker()

        async def answer() -> None:
            question = await worker.hear(Resolve)
            assert (question.name, question.at_registry) == (name, True)
            await worker.send(Resolved(question.number, None, None, DIGEST, None))

        answering = asyncio.create_task(answer())
        assert (await ada.must("PATCH", f"/v1/images/{name}", {"refresh": True}))["digest"] == DIGEST
        await answering
        assert registry.seen == []
        await ada.must("DELETE", f"/v1/images/{name}")
        assert await _names(ada) == []


async def test_what_a_worker_pulls_is_told_to_all_who_use_the_name(server: Running) -> None:
    ada, bob = await server.user("ada"), await server.user("bob")
    worker = await server.worker()
    for person in (ada, bob):
        await person.submit(NAME)
    await worker.send(Pulled(NAME, DIGEST))
    for person in (ada, bob):
        await eventually(partial(_digest, person), DIGEST)


# -- bounds ----------------------------------------------------------------------------------------


async def test_nobody_has_endless_ones_and_who_removes_them_has_no_more(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hecaton.server.accounts.directory.MOST_OWN", 2)
    assert entries.MOST_OWN == 200
    ada, bob = await server.user("ada"), await server.user("bob")
    for name in ("team/a", "team/b", "team/a"):
        await _ended(ada, name)
    await ada.must("DELETE", "/v1/images/team/b")
    await _ended(ada, "team/b")
    await ada.must("DELETE", "/v1/images/team/b")
    refused = await ada.call("POST", "/v1/jobs", {"image": "team/c", "input": 1})
    assert (refused.status, "the most for one user" in refused.message) == (409, True)
    await _ended(bob, "team/c")


async def test_what_nobody_has_used_for_a_month_goes_and_what_is_used_stays(tmp_path: Path) -> None:
    async with running(tmp_path / "server", token_life=10 * KEPT_UNUSED) as server:
        ada, bob = await server.user("ada"), await server.user("bob")
        await _ended(ada, "team/old")
        await _ended(ada, "team/used")
        await ada.submit("team/waits")
        for _ in range(2):
            server.later(KEPT_UNUSED * 0.6)
            await _ended(ada, "team/used")
        await _ended(bob, "team/new")
        assert await _names(ada) == [("team/used", "ada"), ("team/waits", "ada")]


async def test_with_a_user_his_images_go(server: Running) -> None:
    await _ended(await server.user("ada"), NAME)
    await server.admin.must("DELETE", "/v1/users/ada")
    assert await _names(await server.user("ada")) == []
    assert not server.server.parts.directory._entries.has(NAME)


# -- a server that takes registered ones only ------------------------------------------------------


async def test_where_images_are_listed_others_are_refused_with_what_to_do(listed: Running) -> None:
    await listed.image("python:3.9-slim")
    ada = await listed.user("ada")
    for person, image, hint in (
        (ada, "team/tool", "Ask an admin to register it. Those that there are: hecaton image list"),
        (listed.admin, "team/tool", "Register it: hecaton image new team/tool"),
        (ada, "python", "Did you mean 'python:3.9-slim'?"),
    ):
        for path, body in (("/v1/jobs", {"input": 1}), ("/v1/batches", {"items": [{"input": 1}]})):
            refused = await person.call("POST", path, {"image": image, **body})
            assert refused.status == 404
            assert refused.message == (
                f"image {image!r} is not registered, and this server takes no other ones (--images listed)"
            )
            assert refused.json()["error"]["hint"] == hint
    assert await _names(ada) == [("python:3.9-slim", None)]


async def test_where_images_are_listed_the_default_one_may_be_used(listed: Running) -> None:
    ada = await listed.user("ada")
    assert (await ada.job((await ada.must("POST", "/v1/jobs", {"input": 1}))["id"]))["image"] == "team/default:1"
    await ada.submit("team/default:1")


async def test_what_was_used_before_images_were_listed_is_refused_too(tmp_path: Path) -> None:
    async with running(tmp_path / "server") as server:
        ada = await server.user("ada")
        job = await ada.submit(NAME)
        await ada.must("POST", f"/v1/jobs/{job}/cancel")
        token = ada.token
    async with running(tmp_path / "server", images="listed") as server:
        ada = Person(server.session, server.url, token)
        assert await _names(ada) == []
        for path, body in (("/v1/jobs", {"image": NAME}), (f"/v1/jobs/{job}/retry", None)):
            assert (await ada.call("POST", path, body)).status == 404
