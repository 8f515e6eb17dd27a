"""The description of the API: complete, consistent in itself, and made of the types that are really spoken."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from hecaton.server.web.openapi import BOUNDS, EXAMPLES
from tests.server.running import Running


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref":
                yield value
            else:
                yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)


def _operations(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        f"{method.upper()} {path}": operation
        for path, item in document["paths"].items()
        for method, operation in item.items()
    }


async def test_every_route_is_described(server: Running) -> None:
    document = await server.nobody.get("/openapi.json")
    assert document["openapi"].startswith("3.1")
    mounted = {f"{route.method} {route.path.replace(':path', '')}" for route in server.routes}
    assert set(_operations(document)) == mounted - {"GET /openapi.json"}


async def test_every_reference_leads_somewhere(server: Running) -> None:
    document = await server.nobody.get("/openapi.json")
    references = set(_references(document))
    assert references
    for reference in references:
        node: Any = document
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]


async def test_every_operation_is_well_formed(server: Running) -> None:
    operations = _operations(await server.nobody.get("/openapi.json"))
    names = [operation["operationId"] for operation in operations.values()]
    assert len(set(names)) == len(names)
    for row, operation in operations.items():
        declared = {parameter["name"] for parameter in operation["parameters"] if parameter["in"] == "path"}
        assert declared == set(re.findall(r"\{(\w+)\}", row)), row
        assert operation["responses"]["default"]["content"], row
        assert any(status.startswith("2") for status in operation["responses"]), row
        open_to_all = row in ("GET /", "GET /healthz", "POST /v1/login", "POST /v1/login/key", "POST /v1/enrol")
        assert ("security" in operation) is not open_to_all, row


async def test_the_description_tells_no_secrets(server: Running) -> None:
    await server.image(env={"TOKEN": "s3cret"})
    text = (await server.nobody.call("GET", "/openapi.json")).body
    assert b"s3cret" not in text
    assert b"team/app" not in text


async def test_what_is_asked_behind_the_question_mark_is_described(server: Running) -> None:
    operations = _operations(await server.nobody.get("/openapi.json"))
    for route in server.routes:
        if route.path != "/openapi.json":
            operation = operations[f"{route.method} {route.path.replace(':path', '')}"]
            asked = {one["name"]: one["schema"] for one in operation["parameters"] if one["in"] == "query"}
            assert asked == {one.name: one.schema for one in route.query}
            keyed = [one["name"] for one in operation["parameters"] if one["in"] == "header"]
            assert keyed == (["Idempotency-Key"] if route.keyed else [])
    lines = operations["GET /v1/jobs/{job}/events"]["responses"]["200"]["content"]
    assert set(lines) == {"application/x-ndjson"}
    assert lines["application/x-ndjson"]["schema"]["contentSchema"] == {"$ref": "#/components/schemas/JobEvent"}
    assert set(operations["PUT /v1/blobs/{sha256}"]["requestBody"]["content"]) == {"application/octet-stream"}
    assert len(operations["GET /v1/jobs/{job}/result"]["responses"]["200"]["content"]) == 3
    submitted = operations["POST /v1/jobs"]["responses"]
    either = submitted["201"]["content"]["application/json"]["schema"]["anyOf"]
    assert [one["$ref"].rpartition("/")[2] for one in either] == ["JobView", "Submitted"]
    assert submitted["200"]["content"]["application/json"]["schema"]["$ref"].endswith("/Submitted")


def test_every_body_has_an_example_that_is_one_and_bounds_of_fields_that_it_has() -> None:
    for kind, example in EXAMPLES.items():
        msgspec.json.decode(msgspec.json.encode(example), type=kind)
    for kind, bounds in BOUNDS.items():
        assert bounds.keys() <= {field.name for field in msgspec.structs.fields(kind)}, kind


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/v1/jobs?statee=FINISHED", "Did you mean 'state'?"),
        ("/v1/jobs?state=DONE", "expected one of IN_QUEUE"),
        ("/v1/jobs?state=", "expected one of IN_QUEUE"),
        ("/v1/jobs?before=9007199254740993", "expected a whole number from 0 to 9,007,199,254,740,992"),
        ("/v1/jobs?limit=1&limit=2", "more than once"),
        ("/v1/jobs?limit=2.5", "expected a whole number from 1 to 1,000"),
        ("/v1/jobs?limit=1e2", "expected a whole number from 1 to 1,000"),
        ("/v1/jobs?limit=0", "expected a whole number from 1 to 1,000"),
        ("/v1/jobs?limit=%D9%A1", "expected a whole number"),
        ("/v1/jobs?before=-1", "expected a whole number from 0"),
        ("/v1/jobs?wait=1", "Known here: whose, state, limit, before, name, tag."),
        ("/v1/jobs/1?wait=nan", "expected a number from 0 to 3,600"),
        ("/v1/users?x=1", "Nothing is known there."),
        ("/healthz?x", "'x' is not known here"),
    ],
)
async def test_what_is_unknown_or_makes_no_sense_behind_the_question_mark_is_refused(
    server: Running, path: str, said: str
) -> None:
    refused = await server.admin.call("GET", path)
    error = refused.json()["error"]
    assert (refused.status, said in f"{error['message']} {error.get('hint')}") == (400, True), error


async def test_who_may_not_come_in_is_told_that_first(server: Running) -> None:
    assert (await server.nobody.call("GET", "/v1/jobs?statee=FINISHED")).status == 401


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", "/v1/jobs", "GET, HEAD, POST"),
        ("DELETE", "/v1/jobs/x", "GET, HEAD"),
        ("GET", "/v1/login", "POST"),
        ("POST", "/v1/images/team/app:1", "DELETE, GET, HEAD, PATCH"),
        ("OPTIONS", "/healthz", "GET, HEAD"),
        ("GET", "/v1/blobs/" + "0" * 64, "HEAD, PUT"),
        ("POST", "/", "GET, HEAD"),
    ],
)
async def test_a_wrong_method_is_told_from_a_wrong_address(server: Running, method: str, path: str, allow: str) -> None:
    refused = await server.nobody.call(method, path)
    assert (refused.status, refused.headers["Allow"]) == (405, allow)
    assert (refused.json()["error"]["code"], allow in refused.message) == ("wrong_method", True)
    missing = await server.nobody.call(method, "/v1/nothing")
    assert (missing.status, "Allow" in missing.headers) == (404, False)


async def test_the_bare_address_says_what_answers_there(server: Running) -> None:
    about = await server.nobody.get("/")
    assert (about["name"], about["api"], "GPUs" in about["what"]) == ("Hecaton", "/openapi.json", True)
    for named in (about["api"], about["health"]):
        await server.nobody.get(named)
