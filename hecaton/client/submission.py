"""From what a user hands in to the request that submits it: payload inline or as an upload, handler or script file.
Called by `Client.submit`."""

from __future__ import annotations

import base64
import os
import secrets
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from hecaton.client import payload as payloads
from hecaton.client.http import Transport
from hecaton.client.payload import Source
from hecaton.core.errors import BadRequest
from hecaton.core.model import INLINE_LIMIT, Kind, Mode
from hecaton.wire.api import API, BlobRef, NewJob, Submitted

PathLike = str | os.PathLike[str]

_ESCAPED_LIMIT = INLINE_LIMIT * 3 // 2
"""Of text inside a message: control characters take six bytes there, and the server takes 2 MiB in all."""


class Payload(msgspec.Struct, frozen=True):
    """The fields of NewJob that carry a payload."""

    input: msgspec.Raw = msgspec.Raw(b"")
    text: str | None = None
    base64: str | None = None
    payload: BlobRef | None = None


def new_key() -> str:
    """An idempotency key that no other submit has: a UUIDv7, because keys that come in order cost an index least."""
    stamp = time.time_ns() // 1_000_000
    bits = (stamp & (1 << 48) - 1) << 80 | 7 << 76 | secrets.randbits(12) << 64 | 2 << 62 | secrets.randbits(62)
    return str(uuid.UUID(int=bits))


def submit(
    transport: Transport,
    image: str,
    payload: Payload,
    *,
    mode: Mode,
    file: PathLike | None,
    args: Sequence[str],
    timeout: float | None,
    retries: int,
    priority: int,
    queue_ttl: float | None,
    key: str | None,
) -> Submitted:
    """Uploads the handler or script if the server lacks it, then submits."""
    if isinstance(args, str):
        raise BadRequest(f"args is the text {args!r}: give a list of arguments")
    if (file is None) != (mode is Mode.NATIVE):
        raise BadRequest(
            f"a {mode} job needs its file" if file is None else f"a file was given, but the mode is {mode}",
            'mode="handler" or mode="script" goes with file=PATH; native jobs run what is in the image.',
        )
    if key is not None and not (0 < len(key) <= 128 and key.isascii() and key.isprintable()):
        raise BadRequest(f"{key[:130]!r} is no idempotency key: give 1 to 128 printable ASCII characters")
    request = NewJob(
        image=image,
        input=payload.input,
        text=payload.text,
        base64=payload.base64,
        payload=payload.payload,
        mode=mode,
        file=_upload_file(transport, file) if file is not None else None,
        file_name=Path(file).name if file is not None else None,
        args=tuple(args),
        timeout=timeout,
        retries=retries,
        priority=priority,
        queue_ttl=queue_ttl,
    )
    return transport.call("POST", f"{API}/jobs", Submitted, request, key=key or new_key())


def payload_of(transport: Transport, value: Any, data: bytes | None, file: PathLike | None) -> Payload:
    """At most one of the three: a Python value, bytes, a file. None of them: the input is null."""
    if sum(given is not None for given in (value, data, file)) > 1:
        raise BadRequest("give one of input, payload and payload_file, not several")
    if file is not None:
        with payloads.open_source(file) as source:
            kind = source.kind()
            return _inline_or_upload(transport, kind, source)
    if data is None:
        data, kind = payloads.encode(value), Kind.JSON
    else:
        data = payloads.without_bom(data)
        kind = payloads.kind_of(data)
    if len(data) <= INLINE_LIMIT:
        small = _inline(kind, data)
        if small is not None:
            return small
    with payloads.bytes_source(data) as source:
        return _upload_payload(transport, kind, source)


def _inline_or_upload(transport: Transport, kind: Kind, source: Source) -> Payload:
    small = _inline(kind, source.read()) if source.size <= INLINE_LIMIT else None
    return small or _upload_payload(transport, kind, source)


def _inline(kind: Kind, data: bytes) -> Payload | None:
    """None when it grows too much inside a message."""
    if kind is Kind.JSON:
        return Payload(input=msgspec.Raw(data))
    if kind is Kind.BYTES:
        return Payload(base64=base64.b64encode(data).decode())
    text = data.decode()
    return Payload(text=text) if len(msgspec.json.encode(text)) <= _ESCAPED_LIMIT else None


def _upload_payload(transport: Transport, kind: Kind, source: Source) -> Payload:
    return Payload(payload=BlobRef(_upload(transport, source), source.size, kind))


def _upload_file(transport: Transport, file: PathLike) -> str:
    with payloads.open_source(file) as source:
        return _upload(transport, source)


def _upload(transport: Transport, source: Source) -> str:
    """Its SHA-256. Content that this user has uploaded before does not travel again."""
    sha256 = source.sha256()
    path = f"{API}/blobs/{sha256}"
    if not transport.exists(path):
        transport.upload(path, source)
    return sha256
