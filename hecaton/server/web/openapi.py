"""The API's description (OpenAPI 3.1), made from the routes and the types of `wire.api`: it cannot go out of date."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from hecaton import __version__
from hecaton.server.accounts.permissions import OPEN_TO_ALL, audience
from hecaton.server.web.http import Route
from hecaton.wire.errors import ErrorReply


def describe(routes: list[Route]) -> dict[str, Any]:
    types: list[Any] = [ErrorReply]
    for route in routes:
        types.extend(kind for kind in (route.body, route.reply) if kind is not None)
    schemas, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    by_type = {str(kind): schema for kind, schema in zip(types, schemas, strict=True)}
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        path = re.sub(r"\{(\w+):path\}", r"{\1}", route.path)
        paths.setdefault(path, {})[route.method.lower()] = _operation(route, path, by_type)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Hecaton", "version": __version__, "license": {"name": "Apache-2.0"}},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(route: Route, path: str, by_type: dict[str, Any]) -> dict[str, Any]:
    reply: dict[str, Any] = {"description": route.summary}
    if route.reply is not None:
        reply["content"] = {"application/json": {"schema": by_type[str(route.reply)]}}
    error = {"application/json": {"schema": by_type[str(ErrorReply)]}}
    operation: dict[str, Any] = {
        "summary": route.summary,
        "description": f"For: {audience(route.action)}.",
        "operationId": route.handler.__name__,
        "parameters": [_parameter(name) for name in re.findall(r"\{(\w+)\}", path)],
        "responses": {str(route.status): reply, "default": {"description": "What went wrong", "content": error}},
    }
    if route.body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": by_type[str(route.body)]}},
        }
    if route.action not in OPEN_TO_ALL:
        operation["security"] = [{"token": []}]
    return operation


def _parameter(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
