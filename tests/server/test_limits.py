"""Limits that make no sense, over HTTP: refused with the field's name before anything is stored."""

from __future__ import annotations

import json

import pytest

from tests.core.test_options import SENSELESS
from tests.server.running import IMAGE, Running

ON_THE_WIRE = [
    "NaN",
    "Infinity",
    "-Infinity",
    "1e300",
    "-1e300",
    "1e400",
    "true",
    "false",
    '"1"',
    "[]",
    "{}",
    "9" * 5000,
]


def _literals(name: str) -> list[str]:
    own = [json.dumps(value) for value in SENSELESS[name] if isinstance(value, int | float) and abs(value) < 1e9]
    # JSON has one kind of number: 1.0 is the integer 1.
    sensible = {"retries": ("1.0", "0.0"), "priority": ("1.0", "0.0"), "no_overlap": ("true", "false"), "env": ("{}",)}
    sensible |= {"mount": ("{}",), "gpu": ('"1"',), "on": ('"1"',)}
    return [text for text in own + ON_THE_WIRE if text not in sensible.get(name, ())]


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/batches"])
@pytest.mark.parametrize("name", list(SENSELESS))
async def test_limits_that_make_no_sense_are_refused_and_nothing_is_stored(
    server: Running, name: str, path: str
) -> None:
    await server.image()
    for literal in _literals(name):
        body = f'{{"image": "{IMAGE}", "{name}": {literal}}}'.encode()
        reply = await server.admin.call("POST", path, body=body, headers={"Content-Type": "application/json"})
        assert reply.status == 400, (literal[:40], reply.body)
        assert name in reply.message or "JSON" in reply.message, (literal[:40], reply.message)
    assert (await server.admin.get("/v1/jobs"))["jobs"] == []
    assert await server.admin.get("/v1/batches") == []


@pytest.mark.parametrize("key", ["", "k" * 129, "a\tb"])
async def test_a_key_that_makes_no_sense_is_refused_and_nothing_is_stored(server: Running, key: str) -> None:
    await server.image()
    reply = await server.admin.call("POST", "/v1/jobs", {"image": IMAGE}, headers={"Idempotency-Key": key})
    assert (reply.status, "Idempotency-Key" in reply.message) == (400, True)
    assert (await server.admin.get("/v1/jobs"))["jobs"] == []


@pytest.mark.parametrize("name", ["0", "-1", "nan", "1e3", "9" * 30, "%00", "abc", "' OR 1=1", "x" * 5000])
async def test_a_job_id_that_makes_no_sense_names_nothing(server: Running, name: str) -> None:
    for method, part in (("GET", ""), ("POST", "/cancel"), ("POST", "/retry"), ("GET", "/logs"), ("GET", "/result")):
        reply = await server.admin.call(method, f"/v1/jobs/{name}{part}")
        assert reply.status == 404, (method, part, reply.body)


@pytest.mark.parametrize("query", ["wait=nan", "wait=-1", "wait=1e300", "wait=inf", "wait=x"])
async def test_waits_that_make_no_sense_are_refused(server: Running, query: str) -> None:
    await server.image()
    job = await server.admin.submit(IMAGE)
    reply = await server.admin.call("GET", f"/v1/jobs/{job}?{query}")
    assert (reply.status, "wait" in reply.message) == (400, True)
    reply = await server.admin.call("POST", f"/v1/jobs?{query}", {"image": IMAGE})
    assert (reply.status, "wait" in reply.message) == (400, True)
    assert len((await server.admin.get("/v1/jobs"))["jobs"]) == 1
