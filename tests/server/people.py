"""HTTP as people's programs speak it: thin, so that tests see statuses and bodies as they are."""

from __future__ import annotations

import asyncio
import hashlib
import io
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import aiohttp
import msgspec

T = TypeVar("T")

ENDED = ("FINISHED", "FAILED", "CANCELLED")


async def eventually(question: Callable[[], Awaitable[T]], wanted: T, seconds: float = 60) -> None:
    """Asks again until the answer is the wanted one, for what nobody announces."""
    async with asyncio.timeout(seconds):
        while await question() != wanted:  # noqa: ASYNC110 - the answer comes over HTTP: there is no event
            await asyncio.sleep(0.02)


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def message(self) -> str:
        return str(self.json()["error"]["message"])


class Person:
    """Somebody with a token (or none) and a connection to one server."""

    def __init__(self, session: aiohttp.ClientSession, url: str, token: str | None = None) -> None:
        self.session = session
        self.url = url
        self.token = token

    async def call(
        self, method: str, path: str, value: Any = None, *, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """`value` is sent as JSON, `body` (bytes or an async iterator) as it is."""
        every = dict(headers or {})
        if self.token is not None:
            every.setdefault("Authorization", f"Bearer {self.token}")
        data = msgspec.json.encode(value) if value is not None else body
        if isinstance(data, bytes):
            data = io.BytesIO(data)
        async with self.session.request(
            method, self.url + path, data=data, headers=every, allow_redirects=False
        ) as response:
            return Reply(response.status, response.headers, await response.read())

    async def get(self, path: str) -> Any:
        """The JSON of a call that has to succeed."""
        return await self.must("GET", path)

    async def must(self, method: str, path: str, value: Any = None, **more: Any) -> Any:
        reply = await self.call(method, path, value, **more)
        assert reply.status < 300, (method, path, reply.status, reply.body)
        return reply.json() if reply.body else None

    async def login(self, name: str, password: str) -> Person:
        reply = await self.must("POST", "/v1/login", {"username": name, "password": password})
        return Person(self.session, self.url, reply["token"])

    async def submit(self, image: str, value: Any = None, **options: Any) -> str:
        """Gives the id. Without another kind of payload among the options, `value` is the input."""
        request: dict[str, Any] = {"image": image, **options}
        if not {"text", "base64", "payload"} & set(options):
            request["input"] = value
        return str((await self.must("POST", "/v1/jobs", request))["id"])

    async def job(self, job: str) -> Any:
        return await self.get(f"/v1/jobs/{job}")

    async def state(self, job: str) -> str:
        return str((await self.job(job))["state"])

    async def ended(self, job: str) -> Any:
        """The job once it has ended; the server tells when."""
        view = await self.get(f"/v1/jobs/{job}?wait=20")
        assert view["state"] in ENDED, view
        return view

    async def upload(self, content: bytes) -> str:
        sha256 = hashlib.sha256(content).hexdigest()
        await self.must("PUT", f"/v1/blobs/{sha256}", body=content)
        return sha256
