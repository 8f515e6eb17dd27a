"""The description of the API: complete, consistent in itself, and made of the types that are really spoken."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

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
        open_to_all = row in ("GET /healthz", "POST /v1/login")
        assert ("security" in operation) is not open_to_all, row


async def test_the_description_tells_no_secrets(server: Running) -> None:
    await server.image(env={"TOKEN": "s3cret"})
    text = (await server.nobody.call("GET", "/openapi.json")).body
    assert b"s3cret" not in text
    assert b"team/app" not in text
