"""The life of a job as its owner sees it: submitted, run by a worker, read back."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import aiohttp
import msgspec
import pytest

from hecaton.core.model import Body, Failure, Kind, Reason
from hecaton.server.jobs.requests import MAX_TAGS
from hecaton.wire.channel import Log, Note, Outcome, Released, Revoke, Started
from tests.server.people import Person, eventually
from tests.server.running import IMAGE, Running
from tests.server.scripted_worker import json_body, progress, slots


async def test_a_job_goes_to_a_worker_and_its_result_comes_back(server: Running) -> None:
    await server.image()
    worker = await server.worker()
    job_id = await server.admin.submit(IMAGE, {"n": 1})
    job = await worker.start()
    assert (job.payload.kind, job.payload.data, job.image.name, job.owner) == (Kind.JSON, b'{"n":1}', IMAGE, "admin")
    await worker.finish(job.ref, {"answer": 42})
    assert await worker.answer(job.ref) == "accepted"
    view = await server.admin.ended(job_id)
    assert (view["state"], view["reason"], view["result"]) == ("FINISHED", "ok", {"answer": 42})
    assert (view["worker"], view["attempt"], view["payload"]) == ("w1", 1, {"n": 1})
    assert [attempt["reason"] for attempt in view["attempts"]] == ["ok"]
    assert (await server.admin.call("GET", f"/v1/jobs/{job_id}/result")).body == b'{"answer":42}'


async def test_the_number_of_a_job_works_like_its_id(server: Running) -> None:
    await server.image()
    made = await server.admin.must("POST", "/v1/jobs", {"image": IMAGE, "input": 1})
    for name in (str(made["index"]), made["id"], made["id"][:18], made["id"].upper()):
        assert (await server.admin.job(name))["id"] == made["id"]


async def test_a_job_is_told_apart_and_found_by_its_name_and_its_tags(server: Running) -> None:
    await server.image()
    named = {"name": "lr-0.1", "tags": {"team": "vision", "lr": "0.1"}}
    one = await server.admin.must("POST", "/v1/jobs", {"image": IMAGE, "input": 1, **named})
    two = await server.admin.must("POST", "/v1/jobs", {"image": IMAGE, "input": 1, "tags": {"team": "vision"}})
    await server.admin.must("POST", "/v1/jobs", {"image": IMAGE, "input": 1})

    async def found(query: str) -> list[str]:
        return [job["id"] for job in (await server.admin.must("GET", f"/v1/jobs?{query}"))["jobs"]]

    assert await found("tag=team%3Dvision") == [two["id"], one["id"]]
    assert await found("tag=team%3Dvision&name=lr-0.1") == [one["id"]]
    assert await found("tag=lr%3D0.2") == []
    assert await found("tag=lr%3D0.1&tag=team%3Dvision") == [one["id"]]
    assert await found("tag=team%3Dvision&tag=team%3Dspeech") == []
    refused = await server.admin.call("GET", f"/v1/jobs?{'&'.join(['tag=a%3Db'] * (MAX_TAGS + 1))}")
    assert (refused.status, refused.message) == (400, "'tag' stands behind the '?' more than 16 times")
    [shown] = (await server.admin.must("GET", "/v1/jobs?name=lr-0.1"))["jobs"]
    view = await server.admin.job(one["id"])
    assert {key: shown[key] for key in named} == {key: view[key] for key in named} == named
    await server.admin.must("POST", f"/v1/jobs/{one['id']}/cancel")
    again = await server.admin.must("POST", f"/v1/jobs/{one['id']}/retry")
    assert (await server.admin.job(again["id"]))["tags"] == named["tags"]


async def test_everybodys_jobs_are_an_admins_to_see_and_ones_own_are_found_among_them(server: Running) -> None:
    await server.image()
    ann = await server.user("ann")
    jobs = {who: await who.must("POST", "/v1/jobs", {"image": IMAGE, "input": 1}) for who in (ann, server.admin)}

    async def found(who: Person, query: str) -> list[str]:
        return [job["id"] for job in (await who.must("GET", f"/v1/jobs{query}"))["jobs"]]

    both = [jobs[server.admin]["id"], jobs[ann]["id"]]
    assert await found(server.admin, "?whose=mine") == both[:1]
    assert await found(server.admin, "?whose=all") == await found(server.admin, "") == both
    assert await found(ann, "?whose=mine") == await found(ann, "") == both[1:]
    refused = await ann.call("GET", "/v1/jobs?whose=all")
    assert (refused.status, refused.message) == (
        403, "only an admin may see everybody's jobs; 'ann' has the role user",
    )  # fmt: skip


async def test_a_job_is_retried_with_other_options_and_all_else_as_it_was(server: Running) -> None:
    await server.image()
    asked = {"image": IMAGE, "input": {"n": 1}, "timeout": 60, "retries": 3, "priority": 5}
    old = await server.admin.must("POST", "/v1/jobs", asked)
    await server.admin.must("POST", f"/v1/jobs/{old['id']}/cancel")
    again = f"/v1/jobs/{old['id']}/retry"
    made = await server.admin.must("POST", again, {"timeout": 7200, "retries": 0})
    view = await server.admin.job(made["id"])
    assert (view["timeout"], view["retries"], view["priority"], view["payload"]) == (7200, 0, 5, {"n": 1})
    same = await server.admin.job((await server.admin.must("POST", again))["id"])
    assert (same["timeout"], same["retries"]) == (60, 3)
    for body, said in (({"timeout": -1}, "timeout is -1"), ({"tiemout": 3}, "tiemout"), ({"retries": "x"}, "retries")):
        refused = await server.admin.call("POST", again, body)
        assert (refused.status, said in str(refused.json())) == (400, True)


@pytest.mark.parametrize(
    ("labels", "wrong"),
    [
        ({"name": ""}, "is no name of a job"),
        ({"name": "a\nb"}, "is no name of a job"),
        ({"name": "x" * 129}, "is no name of a job"),
        ({"tags": {"": "x"}}, "is no tag"),
        ({"tags": {"a=b": "x"}}, "is no tag"),
        ({"tags": {"a": "x" * 129}}, "the tag a"),
        ({"tags": {str(number): "" for number in range(17)}}, "17 tags"),
    ],
)
async def test_names_and_tags_have_bounds(server: Running, labels: dict[str, Any], wrong: str) -> None:
    await server.image()
    answer = await server.admin.call("POST", "/v1/jobs", {"image": IMAGE, "input": 1, **labels})
    assert (answer.status, wrong in str(answer.json())) == (400, True)


async def test_submitting_with_wait_answers_when_the_job_ends(server: Running) -> None:
    await server.image()
    worker = await server.worker()
    asked = asyncio.create_task(server.admin.must("POST", "/v1/jobs?wait=20", {"image": IMAGE, "input": 1}))
    job = await worker.start()
    assert not asked.done()
    await worker.finish(job.ref, "done")
    view = await asked
    assert (view["state"], view["result"]) == ("FINISHED", "done")


@pytest.mark.parametrize("payload", [{"input": {"n": 1}}, {"text": "a"}, {"base64": "AP8="}, {"input": "x" * 70_000}])
@pytest.mark.parametrize("body", [json_body({"a": 1}), Body.inline(Kind.TEXT, b"t"), Body.inline(Kind.BYTES, b"\xff")])
async def test_its_answer_is_what_the_job_shows_ever_after(server: Running, payload: Any, body: Body) -> None:
    await server.image()
    worker = await server.worker()
    wanted = {"image": IMAGE, "timeout": 50, "retries": 2, "priority": 1, "queue_ttl": 60, **payload}
    asked = asyncio.create_task(server.admin.must("POST", "/v1/jobs?wait=20", wanted))
    job = await worker.start()
    await worker.send(progress(job.ref, 1), Note(job.ref, "half"))
    await worker.report(Outcome(job.ref, Reason.OK, body, ran=0.01, exit_code=0))
    view = await asked
    assert view["state"] == "FINISHED"
    assert view == await server.admin.job(view["id"])


async def test_so_it_is_after_an_attempt_that_failed_and_one_that_was_to_be_cancelled(server: Running) -> None:
    await server.image()
    worker = await server.worker()
    asked = asyncio.create_task(server.admin.must("POST", "/v1/jobs?wait=20", {"image": IMAGE, "retries": 1}))
    await worker.fail((await worker.start()).ref, Reason.HANDLER_ERROR)
    job = await worker.start()
    await server.admin.must("POST", f"/v1/jobs/{job.ref.job}/cancel")
    await worker.finish(job.ref, "done")
    view = await asked
    assert (view["state"], len(view["attempts"])) == ("FINISHED", 2)
    assert view == await server.admin.job(view["id"])


async def test_so_it_is_when_the_job_ended_although_it_was_to_be_cancelled(server: Running) -> None:
    await server.image()
    worker = await server.worker()
    asked = asyncio.create_task(server.admin.must("POST", "/v1/jobs?wait=20", {"image": IMAGE}))
    job = await worker.start()
    await server.admin.must("POST", f"/v1/jobs/{job.ref.job}/cancel")
    await asyncio.sleep(0.1)  # the start is stored
    await worker.finish(job.ref, "done")
    view = await asked
    assert view["started_at"] is not None
    assert view == await server.admin.job(view["id"])


@asynccontextmanager
async def _followed(person: Person, body: Any, query: str = "", key: str = "") -> AsyncIterator[aiohttp.ClientResponse]:
    headers = {"Authorization": f"Bearer {person.token}", **({"Idempotency-Key": key} if key else {})}
    url = f"{person.url}/v1/jobs/followed{query}"
    async with person.session.post(url, json=body, headers=headers) as response:
        yield response


async def test_a_followed_submission_says_that_the_job_is_stored_and_then_how_it_ended(server: Running) -> None:
    await server.image()
    worker = await server.worker()
    async with _followed(server.admin, {"image": IMAGE, "input": 1}, key="once") as response:
        stored = msgspec.json.decode(await response.content.readline())
        assert (response.status, response.content_type) == (201, "application/x-ndjson")
        assert (await server.admin.job(stored["id"]))["state"] == "ASSIGNED"
        await worker.finish((await worker.start()).ref, "done")
        view = msgspec.json.decode(await response.content.readline())
        assert await response.content.read() == b""
    assert view == await server.admin.job(stored["id"])
    async with _followed(server.admin, {"image": IMAGE, "input": 1}, key="once") as response:
        again, ended = (await response.content.read()).splitlines()
    assert response.status == 200
    assert msgspec.json.decode(again) == {**stored, "duplicate": True}
    assert msgspec.json.decode(ended) == view


async def test_one_whose_time_is_over_says_how_the_job_is(server: Running) -> None:
    await server.image()
    async with _followed(server.admin, {"image": IMAGE, "input": 1}, "?wait=0.1") as response:
        _, view = (await response.content.read()).splitlines()
    assert msgspec.json.decode(view)["state"] == "IN_QUEUE"


async def test_one_that_is_refused_is_an_error_as_any_other(server: Running) -> None:
    async with _followed(server.admin, {"image": "no reference"}) as response:
        assert (response.status, (await response.json())["error"]["code"]) == (400, "bad_request")


@pytest.mark.parametrize("seconds", [0.1, 2.5])
async def test_a_wait_that_is_over_shows_the_job_as_it_is(server: Running, seconds: float) -> None:
    await server.image()
    job_id = await server.admin.submit(IMAGE)
    began = time.monotonic()
    async with asyncio.timeout(20):
        view = await server.admin.get(f"/v1/jobs/{job_id}?wait={seconds}")
    assert view["state"] == "IN_QUEUE"
    assert time.monotonic() - began >= seconds


@pytest.mark.parametrize("wait", ["-1", "nan", "inf", "soon", "3601", ""])
async def test_a_wait_that_makes_no_sense_is_refused(server: Running, wait: str) -> None:
    await server.image()
    job_id = await server.admin.submit(IMAGE)
    reply = await server.admin.call("GET", f"/v1/jobs/{job_id}?wait={wait}")
    assert reply.status == 400


# -- idempotency -----------------------------------------------------------------------------------


async def test_the_same_key_with_the_same_request_gives_the_first_job(server: Running) -> None:
    await server.image()
    key = {"Idempotency-Key": "abc"}
    first = await server.admin.call("POST", "/v1/jobs", {"image": IMAGE, "input": 1}, headers=key)
    again = await server.admin.call("POST", "/v1/jobs", {"image": IMAGE, "input": 1}, headers=key)
    assert (first.status, again.status) == (201, 200)
    assert again.json() == {**first.json(), "duplicate": True}


async def test_the_same_key_with_another_request_is_a_conflict_that_names_the_first_job(server: Running) -> None:
    await server.image()
    key = {"Idempotency-Key": "abc"}
    first = await server.admin.call("POST", "/v1/jobs", {"image": IMAGE, "input": 1}, headers=key)
    other = await server.admin.call("POST", "/v1/jobs", {"image": IMAGE, "input": 2}, headers=key)
    assert other.status == 409
    assert first.json()["id"] in other.message
    assert len((await server.admin.get("/v1/jobs"))["jobs"]) == 1


async def test_forty_requests_with_one_key_at_once_make_one_job(server: Running) -> None:
    await server.image()
    worker = await server.worker(slots=slots(4))
    key = {"Idempotency-Key": "abc"}
    replies = await asyncio.gather(
        *(server.admin.call("POST", "/v1/jobs", {"image": IMAGE, "input": 1}, headers=key) for _ in range(40))
    )
    assert sorted(reply.status for reply in replies) == [200] * 39 + [201]
    assert len({reply.json()["id"] for reply in replies}) == 1
    await worker.finish((await worker.take()).ref)
    await server.admin.ended(replies[0].json()["id"])
    assert len(worker.assigned) == 1


async def test_two_users_may_use_the_same_key(server: Running) -> None:
    await server.image()
    ada, bob = await server.user("ada"), await server.user("bob")
    key = {"Idempotency-Key": "abc"}
    replies = [await who.call("POST", "/v1/jobs", {"image": IMAGE, "input": 1}, headers=key) for who in (ada, bob)]
    assert [reply.status for reply in replies] == [201, 201]


@pytest.mark.parametrize("key", ["x" * 129, ""])
async def test_a_key_of_the_wrong_length_is_refused(server: Running, key: str) -> None:
    await server.image()
    reply = await server.admin.call("POST", "/v1/jobs", {"image": IMAGE}, headers={"Idempotency-Key": key})
    assert reply.status == 400


# -- kinds of payloads and results -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "kind", "data", "shown"),
    [
        ({"input": {"a": [1, None, "ä"]}}, Kind.JSON, '{"a":[1,null,"ä"]}'.encode(), {"a": [1, None, "ä"]}),
        ({"input": None}, Kind.JSON, b"null", None),
        ({}, Kind.JSON, b"null", None),
        ({"text": "héllo\n"}, Kind.TEXT, "héllo\n".encode(), "héllo\n"),
        ({"text": ""}, Kind.TEXT, b"", ""),
        ({"base64": base64.b64encode(b"\0\xff").decode()}, Kind.BYTES, b"\0\xff", None),
    ],
)
async def test_payloads_reach_the_worker_as_they_were_sent(
    server: Running, options: dict[str, Any], kind: Kind, data: bytes, shown: Any
) -> None:
    await server.image()
    worker = await server.worker()
    made = await server.admin.must("POST", "/v1/jobs", {"image": IMAGE, **options})
    job = await worker.take()
    assert (job.payload.kind, job.payload.data, job.payload.size) == (kind, data, len(data))
    view = await server.admin.job(made["id"])
    assert (view["payload_kind"], view["payload_size"], view["payload"]) == (kind.value, len(data), shown)
    assert (await server.admin.call("GET", f"/v1/jobs/{made['id']}/payload")).body == data


@pytest.mark.parametrize(
    ("body", "result", "result_base64"),
    [
        (json_body([1, {"b": None}]), [1, {"b": None}], None),
        (Body.inline(Kind.TEXT, "grüße".encode()), "grüße", None),
        (Body.inline(Kind.BYTES, b"\0\1\xfe"), None, base64.b64encode(b"\0\1\xfe").decode()),
        (None, None, None),
    ],
)
async def test_results_of_every_kind_are_shown(
    server: Running, body: Body | None, result: Any, result_base64: str | None
) -> None:
    await server.image()
    worker = await server.worker()
    job_id = await server.admin.submit(IMAGE)
    job = await worker.start()
    await worker.report(Outcome(job.ref, Reason.OK, body, ran=0.1))
    view = await server.admin.ended(job_id)
    assert (view["state"], view["result"], view["result_base64"]) == ("FINISHED", result, result_base64)
    raw = await server.admin.call("GET", f"/v1/jobs/{job_id}/result")
    assert raw.body == (body.data if body else b"null")
    assert raw.headers["X-Content-Type-Options"] == "nosniff"


async def test_a_job_without_result_says_so(server: Running) -> None:
    await server.image()
    job_id = await server.admin.submit(IMAGE)
    reply = await server.admin.call("GET", f"/v1/jobs/{job_id}/result")
    assert reply.status == 404
    assert "has no result: it is IN_QUEUE" in reply.message


# -- failures and retries --------------------------------------------------------------------------


async def test_a_failed_job_tells_why_with_the_last_lines_of_its_log(server: Running) -> None:
    await server.image()
    worker = await server.worker()
    job_id = await server.admin.submit(IMAGE)
    job = await worker.start()
    text = b"".join(b"line %d\n" % number for number in range(80))
    failure = Failure("boom", "ValueError", "Traceback ...", "check the input")
    await worker.send(Log(job.ref, 0, text))
    await worker.report(Outcome(job.ref, Reason.HANDLER_ERROR, None, failure, exit_code=3, ran=0.1))
    view = await server.admin.ended(job_id)
    assert (view["state"], view["reason"], view["exit_code"]) == ("FAILED", "handler_error", 3)
    assert view["failure"] == {
        "message": "boom", "type": "ValueError", "traceback": "Traceback ...", "hint": "check the input",
    }  # fmt: skip
    assert view["log_tail"].splitlines() == [f"line {number}" for number in range(30, 80)]
    assert view["attempts"][0]["charged"] == "user"


async def test_every_attempt_that_failed_has_the_end_of_its_log(server: Running) -> None:
    await server.image()
    worker = await server.worker()
    job_id = await server.admin.submit(IMAGE, retries=1)
    for number in (1, 2):
        job = await worker.start()
        await worker.send(Log(job.ref, 0, b"".join(b"attempt %d line %d\n" % (number, line) for line in range(60))))
        await worker.report(Outcome(job.ref, Reason.HANDLER_EXIT, None, Failure("ended"), exit_code=number, ran=0.1))
    view = await server.admin.ended(job_id)
    for number, attempt in enumerate(view["attempts"], 1):
        assert (attempt["number"], attempt["worker"], attempt["exit_code"]) == (number, "w1", number)
        assert (attempt["reason"], attempt["failure"]["message"]) == ("handler_exit", "ended")
        assert attempt["started_at"] <= attempt["ended_at"]
        assert attempt["log_tail"].splitlines() == [f"attempt {number} line {line}" for line in range(10, 60)]
    assert view["log_tail"] == view["attempts"][1]["log_tail"]


async def test_a_job_that_was_sent_ahead_says_behind_what_it_waits(server: Running) -> None:
    await server.image()
    worker = await server.worker("w1")
    for _ in range(3):  # short jobs: the next ones are sent ahead
        await server.admin.submit(IMAGE)
        job = await worker.start()
        await worker.finish(job.ref, ran=0.001)
        await server.admin.ended(job.ref.job)
    ids = [await server.admin.submit(IMAGE, number) for number in range(3)]
    for _ in ids:
        await worker.take()
    assert (await server.admin.job(ids[0]))["waiting"] == []
    for number, expected in ((1, "behind one job that runs"), (2, "behind 2 jobs")):
        view = await server.admin.job(ids[number])
        assert view["state"] == "ASSIGNED"
        assert view["waiting"] == [
            {"worker": "w1", "why": f"has it already, {expected} on the same slot", "holders": []}
        ]


async def test_a_job_at_a_worker_that_is_away_says_until_when_it_waits(server: Running) -> None:
    await server.image()
    worker = await server.worker("w1")
    job_id = await server.admin.submit(IMAGE)
    await worker.start()
    await worker.cut()

    async def why() -> str:
        return " ".join(line["why"] for line in (await server.admin.job(job_id))["waiting"]).rpartition(" in ")[0]

    await eventually(why, "is not connected: unless it returns, the job is given to another worker")
    await server.admin.must("POST", f"/v1/jobs/{job_id}/cancel")
    await eventually(why, "is not connected: unless it returns, the job counts as cancelled")


async def test_a_job_with_retries_runs_again_after_a_back_off(server: Running) -> None:
    await server.image()
    worker = await server.worker()
    job_id = await server.admin.submit(IMAGE, retries=1)
    first = await worker.start()
    failed_at = time.monotonic()
    await worker.fail(first.ref, Reason.HANDLER_ERROR)
    await worker.answer(first.ref)
    view = await server.admin.job(job_id)
    assert view["state"] == "IN_QUEUE"
    assert "back-off after a failure" in view["waiting"][0]["why"]
    second = await worker.take()
    assert time.monotonic() - failed_at >= 0.95  # one second after the first failure
    assert (second.ref.job, second.ref.attempt, second.key) == (first.ref.job, 2, first.key)
    await worker.finish(second.ref, "at last")
    view = await server.admin.ended(job_id)
    assert (view["state"], [attempt["reason"] for attempt in view["attempts"]]) == (
        "FINISHED",
        ["handler_error", "ok"],
    )


async def test_retry_makes_a_new_job_of_an_ended_one(server: Running) -> None:
    await server.image()
    worker = await server.worker()
    job_id = await server.admin.submit(IMAGE, {"n": 7}, priority=3)
    reply = await server.admin.call("POST", f"/v1/jobs/{job_id}/retry")
    assert reply.status == 409  # it has not ended
    await worker.fail((await worker.start()).ref, Reason.HANDLER_ERROR)
    await server.admin.ended(job_id)
    made = await server.admin.must("POST", f"/v1/jobs/{job_id}/retry")
    job = await worker.take()
    assert (job.ref.job, job.payload.data) == (made["id"], b'{"n":7}')
    view = await server.admin.job(made["id"])
    assert (view["retry_of"], view["priority"]) == (job_id, 3)
    assert (await server.admin.job(job_id))["state"] == "FAILED"


async def test_a_retry_that_is_sent_again_makes_no_second_job(server: Running) -> None:
    await server.image()
    job_id, other_id = await server.admin.submit(IMAGE, 1), await server.admin.submit(IMAGE, 2)
    for job in (job_id, other_id):
        await server.admin.must("POST", f"/v1/jobs/{job}/cancel")
    path, key = f"/v1/jobs/{job_id}/retry", {"Idempotency-Key": "again"}
    first = await server.admin.call("POST", path, headers=key)
    second = await server.admin.call("POST", path, headers=key)
    assert (first.status, second.status) == (201, 200)
    assert second.json() == {**first.json(), "duplicate": True}
    clash = await server.admin.call("POST", f"/v1/jobs/{other_id}/retry", headers=key)
    assert clash.status == 409
    assert first.json()["id"] in clash.message
    assert (await server.admin.call("POST", path)).json()["id"] != first.json()["id"]


async def test_retry_works_after_the_image_was_removed_and_when_it_is_registered_again(server: Running) -> None:
    await server.image()
    job_id = await server.admin.submit(IMAGE, 1)
    await server.admin.must("POST", f"/v1/jobs/{job_id}/cancel")
    await server.admin.must("DELETE", f"/v1/images/{IMAGE}")
    await server.admin.must("POST", f"/v1/jobs/{job_id}/retry")
    assert (await server.admin.get(f"/v1/images/{IMAGE}"))["owner"] == "admin"
    await server.image(env={"A": "1"})
    await server.admin.must("POST", f"/v1/jobs/{job_id}/retry")
    assert (await server.admin.get(f"/v1/images/{IMAGE}"))["env"] == {"A": "1"}


# -- order -----------------------------------------------------------------------------------------


async def test_higher_priority_goes_first_then_the_older(server: Running) -> None:
    await server.image()
    jobs = [await server.admin.submit(IMAGE, name, priority=p) for name, p in (("a", 0), ("b", 5), ("c", 0), ("d", 5))]
    worker = await server.worker()
    order = []
    for _ in jobs:
        job = await worker.start()
        order.append(job.payload.data)
        await worker.finish(job.ref, ran=2.0)  # long jobs: nothing is handed out in advance
    assert order == [b'"b"', b'"d"', b'"a"', b'"c"']


async def test_priority_counts_between_images_too(server: Running) -> None:
    await server.image("team/app:1")
    await server.image("team/app:2")
    await server.admin.submit("team/app:1", "urgent", priority=9)
    await server.admin.submit("team/app:1", "later", priority=0)
    await server.admin.submit("team/app:2", "soon", priority=5)
    worker = await server.worker()
    order = []
    for _ in range(3):
        job = await worker.start()
        order.append(job.payload.data)
        await worker.finish(job.ref, ran=2.0)
    assert order == [b'"urgent"', b'"soon"', b'"later"']


async def test_a_job_that_waited_too_long_fails_with_that_reason(hasty: Running) -> None:
    await hasty.image()
    job_id = await hasty.admin.submit(IMAGE, queue_ttl=0.2)
    view = await hasty.admin.ended(job_id)
    assert (view["state"], view["reason"], view["attempts"]) == ("FAILED", "queue_ttl", [])
    assert "0.2 s" in view["failure"]["message"]
    worker = await hasty.worker()
    other = await hasty.admin.submit(IMAGE, "other")
    assert (await worker.take()).ref.job == other


async def test_jobs_handed_out_in_advance_are_taken_back_when_another_slot_is_free(server: Running) -> None:
    await server.image()
    first = await server.worker("first")
    warm_up = await server.admin.submit(IMAGE, "warm up")
    await first.finish((await first.start()).ref, ran=0.001)
    await server.admin.ended(warm_up)
    for name in ("one", "two", "three"):
        await server.admin.submit(IMAGE, name)
    running, *waiting = [await first.take() for _ in range(3)]
    await first.send(Started((running.ref,)))
    second = await server.worker("second")
    revoked = (await first.hear(Revoke)).refs
    assert revoked == (waiting[-1].ref,)  # one free slot: one job, the last in line
    await first.send(Released(revoked))
    moved = await second.take()
    assert (moved.ref.job, moved.ref.attempt) == (waiting[-1].ref.job, 2)
    view = await server.admin.job(moved.ref.job)
    assert [attempt.get("charged") for attempt in view["attempts"]] == ["none", None]


async def test_of_many_short_jobs_behind_a_long_one_half_is_taken_back_at_once(server: Running) -> None:
    """One at a time would leave the free slot idle for most of the time."""
    await server.image()
    first = await server.worker("first")
    for _ in range(3):
        warm_up = await server.admin.submit(IMAGE, "warm up")
        await first.finish((await first.start()).ref, ran=0.001)
        await server.admin.ended(warm_up)
    ids = [await server.admin.submit(IMAGE, number) for number in range(21)]
    running, *waiting = [await first.take() for _ in ids]
    await first.send(Started((running.ref,)))
    second = await server.worker("second")
    revoked = (await first.hear(Revoke)).refs
    assert set(revoked) == {job.ref for job in waiting[10:]}
    await first.send(Released(revoked))
    assert (await second.take()).ref.job in {ref.job for ref in revoked}


# -- what a waiting or running job tells ------------------------------------------------------------


async def test_a_waiting_job_says_why_for_each_worker(server: Running) -> None:
    await server.image()
    job_id = await server.admin.submit(IMAGE)
    (nobody,) = (await server.admin.job(job_id))["waiting"]
    assert nobody["why"].startswith("no worker is connected: start one with `hecaton-gpu run")
    await server.worker("a-process", runtime="process", serves=("other/image",))
    busy = await server.worker("b-busy")
    await busy.take()
    second = await server.admin.submit(IMAGE)
    view = await server.admin.job(second)
    assert [(line["worker"], line["why"]) for line in view["waiting"]] == [
        ("a-process", f"uses the process runtime and has no handler for {IMAGE!r} (it has: other/image)"),
        ("b-busy", "is busy: 1 of 1 slots run other jobs"),
    ]
    assert view["queue_position"] == 0


async def _state_of(person: Person, job: str) -> str:
    return str((await person.job(job))["state"])


async def test_who_works_where_a_job_waits_to_is_told_to_everybody_and_nothing_else_of_it(server: Running) -> None:
    await server.image()
    ann, bob = await server.user("ann"), await server.user("bob")
    worker = await server.worker("ada")
    first = await ann.must("POST", "/v1/jobs", {"image": IMAGE, "input": "secret", "name": "lr-0.1", "timeout": 600})
    await worker.start()
    await eventually(partial(_state_of, ann, first["id"]), "IN_PROGRESS")
    second = await bob.submit(IMAGE)
    [line] = (await bob.job(second))["waiting"]
    started = (await ann.job(first["id"]))["started_at"]
    holder = {"index": first["index"], "owner": "ann", "name": "lr-0.1", "since": started, "ends_by": started + 600}
    assert line["holders"] == [holder]
    assert (await bob.call("GET", f"/v1/jobs/{first['id']}")).status == 404


async def test_a_worker_gets_no_job_whose_mode_it_does_not_list(server: Running) -> None:
    await server.image()
    older = await server.worker("older", doors=("native", "handler"))
    process = await server.worker("process", runtime="process", serves=(IMAGE,), doors=("native",))
    before = await server.worker("before", runtime="process", serves=(IMAGE,))
    sha256 = await server.admin.upload(b"pass")
    script = await server.admin.submit(IMAGE, mode="script", file=sha256, file_name="a.py")
    assert {line["worker"]: line["why"] for line in (await server.admin.job(script))["waiting"]} == {
        "older": "uses the docker runtime, which runs no script jobs in this version: the worker needs a newer "
        "hecaton-gpu",
        "process": "uses the process runtime, which runs no script jobs",
        "before": "uses the process runtime, which runs no script jobs",
    }
    assert [worker.assigned for worker in (older, process, before)] == [[], [], []]


async def test_progress_and_notes_are_shown_while_the_job_runs(server: Running) -> None:
    await server.image()
    worker = await server.worker()
    job_id = await server.admin.submit(IMAGE)
    job = await worker.take()
    await worker.send(Note(job.ref, "pulling team/app:1, 40 %"), progress(job.ref, {"step": 3}))
    events = server.session.get(
        f"{server.url}/v1/jobs/{job_id}/events", headers={"Authorization": f"Bearer {server.admin.token}"}
    )
    async with events as stream:  # the stream is open: whatever was sent before has been taken in
        await stream.content.readline()
        view = await server.admin.job(job_id)
    assert (view["note"], view["progress"]) == ("pulling team/app:1, 40 %", {"step": 3})
    await worker.finish(job.ref)
    view = await server.admin.ended(job_id)
    assert (view["note"], view["progress"]) == (None, None)


# -- lists -----------------------------------------------------------------------------------------


async def test_jobs_are_listed_newest_first_in_pages(server: Running) -> None:
    await server.image()
    made = [await server.admin.submit(IMAGE, number) for number in range(5)]
    listed, path = [], "/v1/jobs?limit=2"
    while path:
        page = await server.admin.get(path)
        listed += [job["id"] for job in page["jobs"]]
        assert len(page["jobs"]) <= 2
        path = f"/v1/jobs?limit=2&before={page['next']}" if page["next"] else ""
    assert listed == made[::-1]


async def test_lists_can_be_limited_to_a_state(server: Running) -> None:
    await server.image()
    kept, ended = await server.admin.submit(IMAGE), await server.admin.submit(IMAGE)
    await server.admin.must("POST", f"/v1/jobs/{ended}/cancel")
    for state, expected in (("IN_QUEUE", [kept]), ("CANCELLED", [ended]), ("FAILED", [])):
        assert [job["id"] for job in (await server.admin.get(f"/v1/jobs?state={state}"))["jobs"]] == expected
    reply = await server.admin.call("GET", "/v1/jobs?state=DONE")
    assert (reply.status, "'DONE': expected one of IN_QUEUE" in reply.message) == (400, True)


async def test_users_see_their_own_jobs_and_admins_all(server: Running) -> None:
    await server.image()
    ada, bob = await server.user("ada"), await server.user("bob")
    hers, his = await ada.submit(IMAGE), await bob.submit(IMAGE)
    assert [job["id"] for job in (await ada.get("/v1/jobs"))["jobs"]] == [hers]
    assert [job["id"] for job in (await server.admin.get("/v1/jobs"))["jobs"]] == [his, hers]


async def test_a_prefix_of_an_id_is_looked_up_among_ones_own_jobs(server: Running) -> None:
    """Jobs of others that began in the same minute neither hide one's own nor show by an answer that they are there."""
    await server.image()
    ada, bob = await server.user("ada"), await server.user("bob")
    hers = await ada.submit(IMAGE)
    his = await bob.submit(IMAGE)
    prefix = his[:8]
    if hers[:8] != prefix:  # a minute began between them
        hers = await ada.submit(IMAGE)
    assert (await bob.job(prefix))["id"] == his
    assert (await ada.job(prefix))["id"] == hers
    carol = await server.user("carol")
    absent = await carol.call("GET", "/v1/jobs/0192f0c1")
    foreign = await carol.call("GET", f"/v1/jobs/{prefix}")
    assert (foreign.status, foreign.message.replace(prefix, "0192f0c1")) == (404, absent.message)
    assert (await server.admin.call("GET", f"/v1/jobs/{prefix}")).status == 409
    await bob.submit(IMAGE)
    assert (await bob.call("POST", f"/v1/jobs/{prefix}/cancel")).status in (409, 200)


async def test_who_runs_what_is_seen_by_who_may_see_the_job(server: Running) -> None:
    await server.image()
    ada, bob = await server.user("ada"), await server.user("bob")
    worker = await server.worker(slots=slots(2))
    hers, his = await ada.submit(IMAGE), await bob.submit(IMAGE)
    for _ in range(2):
        await worker.start()

    async def seen(person: Person) -> tuple[set[str], list[str]]:
        (view,) = await person.get("/v1/workers")
        return {job for slot in view["slots"] for job in slot["jobs"]}, [slot["state"] for slot in view["slots"]]

    assert await seen(ada) == ({hers}, ["busy", "busy"])
    assert await seen(bob) == ({his}, ["busy", "busy"])
    assert await seen(server.admin) == ({hers, his}, ["busy", "busy"])
    for member in server.server.parts.fleet.members.values():  # as after a start of the server
        for lease in member.leases():
            lease.owner = None
    assert await seen(ada) == ({hers}, ["busy", "busy"])
