"""The API's description (OpenAPI 3.1), made from the routes and the types of `wire.api`: it cannot go out of date."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from hecaton import __version__
from hecaton.core.model import INLINE_LIMIT
from hecaton.core.references import MAX_NAME as MAX_IMAGE
from hecaton.server.accounts.auth import MAX_PASSWORD, MIN_PASSWORD
from hecaton.server.accounts.directory import MAX_NAME, NAME
from hecaton.server.accounts.permissions import OPEN_TO_ALL, REGISTERED_WORKER, audience
from hecaton.server.jobs.batches import LONGEST_NAME
from hecaton.server.jobs.requests import MAX_FILE_NAME, MAX_TAGS
from hecaton.server.jobs.requests import MAX_NAME as MAX_JOB_NAME
from hecaton.server.web.api import MAX_KEY
from hecaton.server.web.http import Route
from hecaton.server.web.transfer import BYTES, JSON, LINES
from hecaton.wire import api
from hecaton.wire.api import Clear, Enrolment, KeyLogin, NewKey, Retry, RetryBatch, UserChange
from hecaton.wire.errors import ErrorReply

Described = dict[str, Any]

_SHA256 = "^[0-9a-f]{64}$"
_NAME = {"minLength": 1, "maxLength": MAX_NAME, "pattern": f"^{NAME.pattern}$"}
_PASSWORD = {"minLength": MIN_PASSWORD, "maxLength": MAX_PASSWORD}
_IMAGE = {"minLength": 1, "maxLength": MAX_IMAGE}
_FILE: Mapping[str, Mapping[str, Any]] = {
    "file": {"pattern": _SHA256},
    "file_name": {"minLength": 1, "maxLength": MAX_FILE_NAME},
}

# What the types cannot say. It is use cases that hold the bounds, for their sentences.
BOUNDS: Mapping[type, Mapping[str, Mapping[str, Any]]] = {
    api.NewUser: {"username": _NAME, "password": _PASSWORD},
    api.NewPassword: {"password": _PASSWORD},
    api.NewWorker: {"name": _NAME},
    api.NewImage: {"name": _IMAGE},
    api.BlobRef: {"sha256": {"pattern": _SHA256}, "size": {"minimum": 0}},
    api.NewJob: {
        "image": _IMAGE, "text": {"maxLength": INLINE_LIMIT}, "name": {"minLength": 1, "maxLength": MAX_JOB_NAME},
        "tags": {"maxProperties": MAX_TAGS}, **_FILE,
    },
    api.BatchItem: {"text": {"maxLength": INLINE_LIMIT}},
    api.NewBatch: {
        "image": _IMAGE, "items": {"maxItems": api.MAX_ITEMS}, "name": {"maxLength": LONGEST_NAME},
        "tags": {"maxProperties": MAX_TAGS}, **_FILE,
    },
    RetryBatch: {**_FILE},
    api.NewItems: {"items": {"maxItems": api.MAX_ITEMS}, "offset": {"minimum": 0}},
}  # fmt: skip

EXAMPLES: Mapping[type, Any] = {
    api.Login: {"username": "ada", "password": "mysecurepassword"},
    api.NewUser: {"username": "ada", "password": "mysecurepassword", "role": "user"},
    api.NewPassword: {"password": "anothersecurepassword"},
    NewKey: {"scope": "enrol"},
    KeyLogin: {"key": "what-a-line-ends-with"},
    Enrolment: {"key": "what-a-line-ends-with", "name": "gpu-1"},
    UserChange: {"role": "admin"},
    api.NewImage: {"name": "python:3.9-slim", "description": "Python and nothing else"},
    api.ImageChange: {"env": {"HF_HOME": "/models"}},
    api.NewWorker: {"name": "gpu-1"},
    api.NewJob: {"image": "python:3.9-slim", "input": {"prompt": "a cat"}, "timeout": 600, "retries": 1},
    api.NewBatch: {"image": "python:3.9-slim", "items": [{"input": 1}, {"text": "two"}], "name": "two of them"},
    api.NewItems: {"offset": 2, "items": [{"input": 3}], "closed": True},
    Clear: {"older_than": 604800},
    Retry: {"timeout": 7200},
    RetryBatch: {},
    api.Wanted: {"files": ["0" * 64]},
    api.NewCheckpoint: {
        "attempt": 1,
        "files": [
            {
                "path": "model.pt",
                "size": 0,
                "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            }
        ],
    },
    api.NewFiles: {"attempt": 1, "first": 0, "files": [{"path": "run/fifo", "size": 0, "why": "it is a pipe"}]},
}

_MAY_BE_MISSING = (Retry, RetryBatch)
"""Bodies that change something; without one nothing is changed."""

_BINARY: Described = {"schema": {"type": "string", "format": "binary"}}  # as generators of clients know bytes

# Of the parts of paths.
_PARTS: Mapping[str, tuple[str, Described]] = {
    "job": ("Its id, the beginning of that (8 characters or more), or its index.", {"minLength": 1}),
    "batch": ("Its id, the beginning of that (8 characters or more), or its index.", {"minLength": 1}),
    "sha256": ("Of the content, in small hex.", {"pattern": _SHA256}),
    "number": ("Of a file, as it is listed.", {"pattern": "^[0-9]{1,9}$"}),
    "name": ("As it was registered.", {"minLength": 1}),
}


def describe(routes: list[Route], root_path: str | None = None) -> dict[str, Any]:
    types: list[Any] = [ErrorReply]
    for route in routes:
        types.extend(kind for kind in (route.body, *_replies(route)) if kind is not None)
    schemas, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    by_type = {str(kind): schema for kind, schema in zip(types, schemas, strict=True)}
    _add_bounds(components)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        path = re.sub(r"\{(\w+):path\}", r"{\1}", route.path)
        paths.setdefault(path, {})[route.method.lower()] = _operation(route, path, by_type)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Hecaton",
            "version": __version__,
            "summary": api.About(__version__).what,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        **({"servers": [{"url": root_path}]} if root_path else {}),
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "A user's, from POST /v1/login."},
                "worker": {"type": "http", "scheme": "bearer", "description": "A worker's, from POST /v1/workers."},
            },
        },
    }


def _replies(route: Route) -> tuple[Any, ...]:
    return route.reply if isinstance(route.reply, tuple) else (route.reply,)


def _add_bounds(components: dict[str, Any]) -> None:
    for kind, fields in BOUNDS.items():
        for name, bounds in fields.items():
            field = components[kind.__name__]["properties"][name]
            # Where null is allowed, too, they are of the other.
            given = next((one for one in field.get("anyOf", ()) if one.get("type") != "null"), field)
            given.update(bounds)


def _operation(route: Route, path: str, by_type: dict[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": route.summary,
        "description": f"For: {audience(route.action)}.",
        "operationId": route.handler.__name__,
        "tags": [_group(path)],
        "parameters": [_part(name) for name in re.findall(r"\{(\w+)\}", path)] + _asked(route),
        "responses": _responses(route, by_type),
    }
    if route.upload:
        operation["requestBody"] = {"required": True, "content": {BYTES: _BINARY}}
    elif route.body is not None:
        content = {"schema": by_type[str(route.body)], "example": EXAMPLES[route.body]}
        operation["requestBody"] = {"required": route.body not in _MAY_BE_MISSING, "content": {JSON: content}}
    if route.action in REGISTERED_WORKER:
        operation["security"] = [{"worker": []}]
    elif route.action not in OPEN_TO_ALL:
        operation["security"] = [{"token": []}]
    return operation


def _group(path: str) -> str:
    """Those of one thing are together: jobs, batches, users."""
    return next((part for part in path.removeprefix(api.API).split("/") if part), "server")


def _responses(route: Route, by_type: dict[str, Any]) -> Described:
    schemas = [by_type[str(kind)] for kind in _replies(route) if kind is not None]
    reply: Described = {"description": route.summary}
    if route.media:
        reply["content"] = {media: _in_pieces(media, schemas) for media in route.media}
    elif schemas:
        reply["content"] = {JSON: {"schema": schemas[0] if len(schemas) == 1 else {"anyOf": schemas}}}
    error = {"description": "What went wrong", "content": {JSON: {"schema": by_type[str(ErrorReply)]}}}
    replies = {str(route.status): reply}
    if route.keyed:
        known = reply["content"] if route.media else {JSON: {"schema": schemas[-1]}}
        replies["200"] = {"description": "The Idempotency-Key was known: nothing new", "content": known}
    waits = {"description": "Seconds after which it makes sense to try again", "schema": {"type": "integer"}}
    replies["429"] = {**error, "description": "Over a rate or a quota", "headers": {"Retry-After": waits}}
    replies["default"] = error
    return replies


def _in_pieces(media: str, schemas: list[Any]) -> Described:
    if media == LINES:
        line = schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
        return {"schema": {"type": "string", "contentMediaType": JSON, "contentSchema": line}}
    if media.startswith("text/"):
        return {"schema": {"type": "string"}}
    return {"schema": {}} if media == JSON else _BINARY


def _part(name: str) -> Described:
    summary, bounds = _PARTS[name]
    return {
        "name": name, "in": "path", "required": True, "description": summary, "schema": {"type": "string", **bounds}
    }  # fmt: skip


def _asked(route: Route) -> list[Described]:
    asked = [
        {"name": one.name, "in": "query", "required": False, "description": one.summary, "schema": one.schema}
        for one in route.query
    ]
    if route.keyed:
        summary = "One of your own making: with it again, the first answer comes again and nothing new is made."
        schema = {"type": "string", "minLength": 1, "maxLength": MAX_KEY, "pattern": "^[ -~]+$"}
        asked.append(
            {
                "name": api.IDEMPOTENCY_HEADER,
                "in": "header",
                "required": False,
                "description": summary,
                "schema": schema,
            }
        )
    return asked
