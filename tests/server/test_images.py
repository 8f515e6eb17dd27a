"""Images: registered, checked at their registry, changed, removed. Registries are real: Debian's, and small ones of our
own that answer as told."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hecaton.core.errors import NotFound
from hecaton.core.model import Reason
from hecaton.core.options import OF_WORKERS
from hecaton.core.references import parse
from hecaton.server.accounts.questions import MAX_ANSWER
from hecaton.server.accounts.registry import check
from hecaton.wire.channel import Outcome, Pulled, Resolve, Resolved, Started, Warm
from tests.client.scripted import HANG, HTML_502, Answer, ScriptedServer, Seen, reply
from tests.engine.registry import Registry
from tests.server.people import eventually
from tests.server.running import IMAGE, Running, running
from tests.server.scripted_worker import ScriptedWorker, json_body

DIGEST = "sha256:" + "ab" * 32
MANIFEST = "/v2/team/app/manifests/1"
_BOMB = gzip.compress(b'{"token":"t0ken","x":"' + b"x" * 1_000_000 + b'"}')
FOUND = Answer(200, b"", {"Docker-Content-Digest": DIGEST})


async def test_an_image_is_registered_shown_changed_and_removed(server: Running) -> None:
    made = await server.admin.must("POST", "/v1/images", {"name": IMAGE, "description": "first", "verify": False})
    assert (made["name"], made["digest"], made["env"], made["env_revision"]) == (IMAGE, None, {}, 0)
    again = await server.admin.call("POST", "/v1/images", {"name": IMAGE, "verify": False})
    assert (again.status, "is registered already" in again.message) == (409, True)
    changed = await server.admin.must("PATCH", f"/v1/images/{IMAGE}", {"env": {"TOKEN": "s3cret"}})
    assert (changed["env"], changed["env_revision"], changed["description"]) == ({"TOKEN": "s3cret"}, 1, "first")
    changed = await server.admin.must("PATCH", f"/v1/images/{IMAGE}", {"description": "second"})
    assert (changed["env"], changed["env_revision"], changed["description"]) == ({"TOKEN": "s3cret"}, 1, "second")
    await server.admin.must("DELETE", f"/v1/images/{IMAGE}")
    assert await server.admin.get("/v1/images") == []
    missing = await server.admin.call("GET", f"/v1/images/{IMAGE}")
    assert (missing.status, f"hecaton image new {IMAGE}" in missing.json()["error"]["hint"]) == (404, True)


@pytest.mark.parametrize(
    "name", ["python:3.9-slim", "user/name", "ghcr.io/owner/deep/name:v1", "localhost:5000/team/app:1", "app@" + DIGEST]
)
@pytest.mark.parametrize("escaped", [False, True])
async def test_every_image_name_works_in_an_address(server: Running, name: str, escaped: bool) -> None:
    await server.image(name)
    path = name.replace("/", "%2F").replace(":", "%3A").replace("@", "%40") if escaped else name
    assert (await server.admin.get(f"/v1/images/{path}"))["name"] == name
    await server.admin.must("DELETE", f"/v1/images/{path}")


@pytest.mark.parametrize("name", ["", "a b", "../x", "-v/:/h", "UPPER", "x@sha256:short", "ＡＢ", "a\n", "x" * 256])
async def test_names_that_no_engine_takes_are_refused(server: Running, name: str) -> None:
    refused = await server.admin.call("POST", "/v1/images", {"name": name, "verify": False})
    assert (refused.status, "is not an image name" in refused.message) == (400, True)


@pytest.mark.parametrize(("first", "second"), [("team/app", "team/app:latest"), ("team/app:latest", "team/app")])
async def test_a_name_with_and_without_the_tag_latest_is_one_image(server: Running, first: str, second: str) -> None:
    await server.image(first)
    reply = await server.admin.call("POST", "/v1/images", {"name": second, "verify": False})
    assert reply.status == 409
    assert f"registered already as {first!r}" in reply.message
    await server.image("localhost:5000/team/app")


async def test_the_tag_latest_is_implied(server: Running) -> None:
    await server.image("team/app")
    job_id = await server.admin.submit("team/app:latest")
    assert (await server.admin.job(job_id))["image"] == "team/app"


async def test_env_is_shown_to_admins_only_and_reaches_workers(server: Running) -> None:
    await server.image(env={"TOKEN": "s3cret"})
    ada = await server.user("ada")
    assert (await ada.get(f"/v1/images/{IMAGE}"))["env"] is None
    assert (await ada.call("GET", "/v1/images")).body.count(b"s3cret") == 0
    worker = await server.worker()
    await ada.submit(IMAGE)
    first = await worker.start()
    assert (first.image.env, first.image.env_revision) == ({"TOKEN": "s3cret"}, 1)
    await worker.finish(first.ref)
    await server.admin.must("PATCH", f"/v1/images/{IMAGE}", {"env": {"TOKEN": "new"}})
    await ada.submit(IMAGE)
    second = await worker.start()
    assert second.image.env == {"TOKEN": "new"}
    assert second.warm_key != first.warm_key  # a warm container with the old values is not used


async def test_a_container_is_not_warm_for_what_its_image_has_been_given_since(server: Running) -> None:
    await server.image()
    worker = await server.worker(options=(*OF_WORKERS, "shm"))
    keys = []
    for shm in (None, "8G", "16G"):
        await server.admin.must("PATCH", f"/v1/images/{IMAGE}", {"defaults": {"shm": shm}})
        await server.admin.submit(IMAGE)
        given = await worker.start()
        assert given.options.shm == shm
        keys.append(given.warm_key)
        await worker.finish(given.ref)
    assert len({*keys}) == 3


@pytest.mark.parametrize("env", [{"": "x"}, {"A=B": "x"}, {"A\0": "x"}, {"A": "x\0y"}])
async def test_impossible_variables_are_refused(server: Running, env: dict[str, str]) -> None:
    await server.image()
    assert (await server.admin.call("PATCH", f"/v1/images/{IMAGE}", {"env": env})).status == 400


async def test_an_image_with_unfinished_jobs_stays(server: Running) -> None:
    await server.image()
    job_id = await server.admin.submit(IMAGE)
    refused = await server.admin.call("DELETE", f"/v1/images/{IMAGE}")
    assert (refused.status, "has unfinished jobs" in refused.message) == (409, True)
    await server.admin.must("POST", f"/v1/jobs/{job_id}/cancel")
    await server.admin.must("DELETE", f"/v1/images/{IMAGE}")
    assert (await server.admin.job(job_id))["image"] == IMAGE


# -- the registry ----------------------------------------------------------------------------------


async def test_a_real_registry_confirms_the_image_and_names_its_digest(
    server: Running, registry: Registry, base_image: str
) -> None:
    name = registry.push(base_image, "team/app:1")
    made = await server.admin.must("POST", "/v1/images", {"name": name})
    assert (made["digest"], made["warning"]) == (registry.digest(name), None)
    worker = await server.worker()
    await server.admin.submit(name)
    assert (await worker.take()).image.digest == made["digest"]
    missing = await server.admin.call("POST", "/v1/images", {"name": f"{registry.address}/team/app:2"})
    assert (missing.status, "does not exist at" in missing.message) == (404, True)
    assert "--no-verify" in missing.json()["error"]["hint"]


@pytest.fixture
def told() -> Iterator[ScriptedServer]:
    with ScriptedServer() as scripted:
        yield scripted


def _image(told: ScriptedServer, tag: str = "1") -> str:
    return f"{told.address}/team/app:{tag}"


async def test_a_refresh_resolves_the_tag_again(server: Running, told: ScriptedServer) -> None:
    other = "sha256:" + "cd" * 32
    told.on("HEAD", MANIFEST, FOUND, Answer(200, b"", {"Docker-Content-Digest": other}))
    name = _image(told)
    assert (await server.admin.must("POST", "/v1/images", {"name": name}))["digest"] == DIGEST
    assert (await server.admin.must("PATCH", f"/v1/images/{name}", {"description": "x"}))["digest"] == DIGEST
    assert (await server.admin.must("PATCH", f"/v1/images/{name}", {"refresh": True}))["digest"] == other


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (Answer(429, b"", {"Retry-After": "60"}), "limits the rate of requests (429)"),
        (Answer(500, b"oops"), "status 500"),
        (HTML_502, "status 502"),
        (Answer(403), "wants a login"),
        (Answer(401, b"", {"WWW-Authenticate": 'Basic realm="x"'}), "wants a login"),
        (Answer(401), "wants a login"),
        (Answer(200), "names no digest"),
        (Answer(200, b"", {"Docker-Content-Digest": "sha256:short"}), "names no digest"),
        (Answer(307, b"", {"Location": "http://127.0.0.1:1/"}), "status 307"),
    ],
)
async def test_a_registry_that_cannot_say_costs_a_warning(
    server: Running, told: ScriptedServer, answer: Answer, why: str
) -> None:
    told.on("HEAD", MANIFEST, answer)
    made = await server.admin.must("POST", "/v1/images", {"name": _image(told)})
    assert made["digest"] is None
    assert why in made["warning"]


async def test_a_registry_that_is_not_there_costs_a_warning(server: Running) -> None:
    made = await server.admin.must("POST", "/v1/images", {"name": "localhost:1/team/app:1"})
    assert (made["digest"], "could not check localhost:1/team/app:1" in made["warning"]) == (None, True)
    assert "object at 0x" not in made["warning"]


async def test_a_registry_that_never_answers_is_given_up(told: ScriptedServer) -> None:
    told.on("HEAD", MANIFEST, HANG)
    checked = await check(parse(_image(told)), seconds=0.3)
    assert checked.digest is None
    assert "no answer within 0.3 s" in (checked.warning or "")


async def test_a_registry_that_wants_an_anonymous_token_gets_one(told: ScriptedServer) -> None:
    def manifest(seen: Seen) -> Answer:
        if seen.headers.get("authorization") == "Bearer t0ken":
            return FOUND
        realm = f'Bearer realm="{told.url}/token",service="{told.address}",scope="repository:team/app:pull"'
        return Answer(401, b"", {"WWW-Authenticate": realm})

    told.on("HEAD", MANIFEST, manifest)
    told.on("GET", "/token", reply({"token": "t0ken", "expires_in": 60}))
    assert (await check(parse(_image(told)))).digest == DIGEST
    (asked,) = told.asked("GET", "/token")
    assert asked.query == {"scope": "repository:team/app:pull", "service": told.address}


@pytest.mark.parametrize(
    "token",
    [
        HTML_502, Answer(401), reply({}), reply({"token": 5}), reply([]), Answer(200, b"\xff"), Answer(status=0),
        reply({"token": "a\r\nX-Forged: 1"}), reply({"token": ""}), Answer(200, b"[" * 60_000),
        Answer(200, b'{"token":"t0ken"}' + b" " * MAX_ANSWER), Answer(200, _BOMB, {"Content-Encoding": "gzip"}),
    ],
)  # fmt: skip
async def test_a_token_service_that_fails_costs_a_warning(told: ScriptedServer, token: Answer) -> None:
    challenge = {"WWW-Authenticate": f'Bearer realm="{told.url}/token"'}
    told.on("HEAD", MANIFEST, Answer(401, b"", challenge))
    told.on("GET", "/token", token)
    checked = await check(parse(_image(told)))
    assert (checked.digest, bool(checked.warning)) == (None, True)


async def test_an_image_that_the_registry_does_not_know_does_not_exist(told: ScriptedServer) -> None:
    told.on("HEAD", MANIFEST, Answer(404))
    with pytest.raises(NotFound, match="does not exist at"):
        await check(parse(_image(told)))


# -- the workers, whose machines have logins -------------------------------------------------------

LOGIN = Answer(401, b"", {"WWW-Authenticate": 'Basic realm="x"'})
OTHER = "sha256:" + "cd" * 32


async def _answers(worker: ScriptedWorker, **said: Any) -> None:
    """As soon as it is asked what an image is."""
    question = await worker.hear(Resolve)
    fields = {"here": None, "age": None, "digest": None, "why": None}
    await worker.send(Resolved(question.number, **{**fields, **said}))


async def test_a_new_image_of_a_closed_registry_is_looked_up_with_a_workers_login(
    server: Running, told: ScriptedServer
) -> None:
    told.on("HEAD", MANIFEST, LOGIN)
    worker = await server.worker()
    adding = asyncio.create_task(server.admin.must("POST", "/v1/images", {"name": _image(told)}))
    await _answers(worker, digest=DIGEST)
    made = await adding
    assert (made["digest"], made["warning"]) == (DIGEST, None)


async def test_a_refresh_takes_what_a_workers_login_sees(server: Running, told: ScriptedServer) -> None:
    told.on("HEAD", MANIFEST, FOUND, LOGIN)
    name = _image(told)
    await server.admin.must("POST", "/v1/images", {"name": name})
    knows, silent = await server.worker("w1"), await server.worker("w2")
    refreshing = asyncio.create_task(server.admin.must("PATCH", f"/v1/images/{name}", {"refresh": True}))
    assert (await silent.hear(Resolve)).at_registry
    await _answers(knows, digest=OTHER)
    assert (await refreshing)["digest"] == OTHER
    await server.admin.submit(name)
    assert (await knows.take()).image.digest == OTHER


async def test_a_refresh_that_nobody_could_check_changes_nothing_and_says_what_the_machines_have(
    server: Running, told: ScriptedServer
) -> None:
    told.on("HEAD", MANIFEST, LOGIN)
    name = _image(told)
    await server.image(name)
    ada, rig, box = [await server.worker(worker) for worker in ("ada", "rig2", "box7")]
    refreshing = asyncio.create_task(server.admin.call("PATCH", f"/v1/images/{name}", {"refresh": True}))
    why = "no access to it"
    for worker, id, age in (
        (ada, "sha256:1f3c9e", 6 * 86400),
        (rig, "sha256:1f3c9e", 60),
        (box, "sha256:9ab041", 7200),
    ):
        await _answers(worker, here=id, age=age + 5.0, why=why)
    refused = await refreshing
    assert refused.status == 409
    head, *lines = refused.message.splitlines()
    assert head == (
        f"not refreshed: could not check {name} at {told.address}: it wants a login."
        " Nobody here knows what '1' is now. Jobs go on with what each machine has:"
    )
    assert lines == [
        "ada, rig2: 1f3c9e, made 6 days ago",
        "box7: 9ab041, made 2 hours ago  <- other code under the same name",
    ]
    assert "docker login" in refused.json()["error"]["hint"]
    assert (await server.admin.get("/v1/images"))[0]["digest"] is None


async def test_a_refresh_without_anybody_who_could_tell_is_refused(server: Running) -> None:
    await server.image("localhost:1/team/app:1")
    refused = await server.admin.call("PATCH", "/v1/images/localhost:1/team/app:1", {"refresh": True})
    assert (refused.status, "no worker is connected whose login could tell" in refused.message) == (409, True)


async def test_an_image_is_shown_with_what_each_machine_has(server: Running) -> None:
    await server.image()
    ada = await server.worker("ada")
    other = await server.worker("other", runtime="process", serves=("x",))
    showing = asyncio.create_task(server.admin.get(f"/v1/images/{IMAGE}"))
    assert not (await ada.hear(Resolve)).at_registry
    await _answers(ada, here="sha256:1f3c9e", age=3.0)
    (version,) = (await showing)["versions"]
    assert (version["worker"], version["version"], version["warning"]) == ("ada", "sha256:1f3c9e", None)
    assert not [message for message in other.heard if isinstance(message, Resolve)]


async def test_what_the_first_worker_pulls_is_what_all_use(server: Running) -> None:
    await server.image()
    worker = await server.worker()
    await server.admin.submit(IMAGE)
    job = await worker.start()
    assert job.image.digest is None
    await worker.send(Pulled("unknown:1", DIGEST), Pulled(IMAGE, "not a digest"), Pulled(IMAGE, DIGEST))
    await worker.send(Pulled(IMAGE, OTHER))
    await worker.finish(job.ref)

    async def known() -> str:
        return str((await server.admin.get("/v1/images"))[0]["digest"])

    await eventually(known, DIGEST)
    await server.admin.submit(IMAGE)
    assert (await worker.take()).image.digest == DIGEST


async def test_an_image_has_options_for_jobs_that_ask_for_nothing_else(server: Running) -> None:
    made = await server.admin.must(
        "POST", "/v1/images", {"name": IMAGE, "verify": False, "defaults": {"startup_timeout": 1200}}
    )
    assert made["defaults"] == {"startup_timeout": 1200}
    worker = await server.worker()
    job = await server.admin.submit(IMAGE, retries=1)
    first = await worker.start()
    assert (first.options.startup_timeout, first.options.retries) == (1200, 1)
    changed = await server.admin.must("PATCH", f"/v1/images/{IMAGE}", {"description": "large"})
    assert changed["defaults"] == {"startup_timeout": 1200}
    assert (await server.admin.must("PATCH", f"/v1/images/{IMAGE}", {"defaults": {"startup_timeout": None}}))[
        "defaults"
    ] == {}
    await worker.report(Outcome(first.ref, Reason.HANDLER_ERROR, ran=0.1))
    second = await worker.start()
    assert second.options.startup_timeout is None, "joined when it is given out"
    await worker.report(Outcome(second.ref, Reason.OK, json_body(1), ran=0.1))
    shown = await server.admin.ended(job)
    assert [attempt.get("defaults") for attempt in shown["attempts"]] == [{"startup_timeout": 1200}, None]
    assert shown["startup_timeout"] is None, "the job has what its user asked for"


async def test_a_job_that_asks_for_no_timeout_has_that_of_the_server(tmp_path: Path) -> None:
    async with running(tmp_path, default_timeout=3600.0) as server:
        await server.image()
        worker = await server.worker()
        job = await server.admin.submit(IMAGE)
        first = await worker.start()
        assert first.options.timeout == 3600
        await worker.report(Outcome(first.ref, Reason.OK, json_body(1), ran=0.1))
        shown = await server.admin.ended(job)
        assert shown["attempts"][0]["defaults"] == {"timeout": 3600}
        await server.admin.submit(IMAGE, timeout=60)
        assert (await worker.start()).options.timeout == 60
        assert (await server.admin.get(f"/v1/images/{IMAGE}"))["defaults"] == {}


async def test_a_job_that_asks_itself_gets_what_it_asks_for(server: Running) -> None:
    await server.admin.must(
        "POST", "/v1/images", {"name": IMAGE, "verify": False, "defaults": {"startup_timeout": 1200}}
    )
    worker = await server.worker()
    await server.admin.submit(IMAGE, startup_timeout=5)
    assert (await worker.take()).options.startup_timeout == 5


async def test_a_worker_that_does_not_carry_out_what_an_image_has_gets_none_of_its_jobs(server: Running) -> None:
    await server.admin.must(
        "POST", "/v1/images", {"name": IMAGE, "verify": False, "defaults": {"startup_timeout": 1200}}
    )
    await server.worker(options=("timeout",))
    job = await server.admin.submit(IMAGE)
    [waiting] = (await server.admin.get(f"/v1/jobs/{job}"))["waiting"]
    assert "does not carry out --startup-timeout" in str(waiting)


@pytest.mark.parametrize(
    "defaults", [{"retries": 3}, {"startup_timeout": 0}, {"startup_timeout": True}, {"startup_timeout": "1h"}, {"x": 1}]
)
async def test_options_that_no_image_may_have_are_refused(server: Running, defaults: dict[str, object]) -> None:
    refused = await server.admin.call("POST", "/v1/images", {"name": IMAGE, "verify": False, "defaults": defaults})
    assert (refused.status, next(iter(defaults)) in refused.message) == (400, True)
    await server.image()
    refused = await server.admin.call("PATCH", f"/v1/images/{IMAGE}", {"defaults": defaults})
    assert refused.status == 400


async def test_a_job_says_which_image_each_of_its_attempts_ran_in(server: Running) -> None:
    await server.image()
    worker = await server.worker()
    job = await server.admin.submit(IMAGE, retries=1)
    first = await worker.start()
    await worker.report(Outcome(first.ref, Reason.HANDLER_ERROR, ran=0.1, image="sha256:1f3c9e"))
    second = await worker.start()
    await worker.report(Outcome(second.ref, Reason.OK, json_body(1), ran=0.1, image="sha256:9ab041" + "x" * 400))
    shown = await server.admin.ended(job)
    assert [attempt["image_version"][:13] for attempt in shown["attempts"]] == ["sha256:1f3c9e", "sha256:9ab041"]
    assert len(shown["attempts"][1]["image_version"]) == 128


async def test_a_job_says_while_it_runs_which_image_it_runs_in(server: Running) -> None:
    await server.image()
    worker = await server.worker()
    job = await server.admin.submit(IMAGE)

    async def version() -> str:
        shown = await server.admin.job(job)
        return str(shown["attempts"][-1].get("image_version")) if shown["state"] == "IN_PROGRESS" else ""

    await worker.take()
    await worker.send(Warm(0, None, None, "sha256:1f3c9e" + "x" * 400))
    await worker.send(Started((worker.assigned[0].ref,)))
    await eventually(version, ("sha256:1f3c9e" + "x" * 400)[:128])
