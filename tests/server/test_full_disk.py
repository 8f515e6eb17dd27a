"""A server whose disk is full goes on by itself when there is room, and its log stays readable meanwhile."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import aiohttp
import pytest

from tests.server.people import Person
from tests.server.running import IMAGE, PASSWORD
from tests.server.server_process import ServerProcess
from tests.small_disk import fill, small_disk

JOBS = 300


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    """Its home is on a disk of 4 MiB."""
    with small_disk(tmp_path / "disk") as disk:
        process = ServerProcess(disk / "home", "--port", "0", "--max-user-bytes", "100")
        yield process
        process.kill()


def expiring(seconds: float) -> dict[str, object]:
    """A batch of jobs that wait no longer than that."""
    return {"image": IMAGE, "queue_ttl": seconds, "pause": False, "items": [{"input": n} for n in range(JOBS)]}


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not come true within a minute"
        await asyncio.sleep(0.05)


async def test_a_duty_that_a_full_disk_stops_is_named_once_and_once_when_it_works_again(server: ServerProcess) -> None:
    url = server.ready()
    async with aiohttp.ClientSession() as session:
        admin = await Person(session, url).login("admin", PASSWORD)
        await admin.must("POST", "/v1/images", {"name": IMAGE, "verify": False})
        # Many at once, so that their end needs more room than the log's last pages offer; some later ones, for slow
        # machines.
        batches = [await admin.must("POST", "/v1/batches", expiring(seconds)) for seconds in (2, 5, 8)]
        ballast = await asyncio.to_thread(fill, server.home.parent)
        while (await admin.call("POST", "/v1/jobs", {"image": IMAGE, "text": "x" * 4000})).status == 201:
            pass
        await until(lambda: "A duty fails" in server.said)
        await asyncio.sleep(3)  # the duty is tried again every second
        await asyncio.to_thread(ballast.unlink)
        await until(lambda: "A duty works again" in server.said)
        for batch in batches:
            results = (await admin.call("GET", f"/v1/batches/{batch['id']}/results?wait=60")).body.splitlines()
            assert [json.loads(line)["reason"] for line in results if line] == ["queue_ttl"] * JOBS
    lines = [line for line in server.said.splitlines() if "duty=" in line]
    assert len(lines) == 2
    assert "duty=expire_queued" in lines[0]
    assert "disk is full" in lines[0]
    assert "Traceback" not in server.said


async def test_an_upload_that_does_not_fit_is_refused_and_leaves_nothing(server: ServerProcess) -> None:
    url = server.ready()
    large, small = b"x" * (12 * 1024 * 1024), b"fits"
    async with aiohttp.ClientSession() as session:
        admin = await Person(session, url).login("admin", PASSWORD)
        refused = await admin.call("PUT", f"/v1/blobs/{hashlib.sha256(large).hexdigest()}", body=large)
        assert (refused.status, "disk is full" in refused.message) == (503, True)
        assert b"/" not in refused.body.replace(b"application/json", b"")  # where its data are is nobody's business
        blobs = server.home / "server" / "blobs"
        assert [path for path in blobs.rglob("*") if path.is_file()] == []
        assert await admin.upload(small) == hashlib.sha256(small).hexdigest()
    assert "Traceback" not in server.said
