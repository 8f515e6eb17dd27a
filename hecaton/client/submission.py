"""From what a user hands in to the request that submits it: payload inline or as an upload, handler or script file."""

from __future__ import annotations

import base64
import os
import secrets
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from hecaton.client import payload as payloads
from hecaton.client.following import MOST_FOLLOWED, Following
from hecaton.client.http import Transport
from hecaton.client.payload import Source
from hecaton.client.python_file import look
from hecaton.core.doors import WAYS, WITH_FILE, WITHOUT_FILE
from hecaton.core.errors import BadRequest, TooLarge
from hecaton.core.model import INLINE_LIMIT, Kind, Mode
from hecaton.core.options import checked, values_of
from hecaton.core.scripts import LOOKED_AT, check
from hecaton.wire.api import API, BatchItem, BlobRef, NewJob, RetryBatch, ServerInfo, Submitted

Holder = TypeVar("Holder", NewJob, BatchItem)
"""What holds a payload."""

PathLike = str | os.PathLike[str]

MIB = 1024 * 1024

LOOK_FIRST = 8 * MIB
"""Bytes from which an upload is worth the question whether the server takes so many."""

_ESCAPED_LIMIT = INLINE_LIMIT * 3 // 2
"""Of text inside a message: control characters take six bytes there, and the server takes 2 MiB in all."""

_WITH_FILE = " or ".join(f'mode="{mode}"' for mode in WITH_FILE)
_WITHOUT_FILE = " and ".join(WITHOUT_FILE)


def new_key() -> str:
    """An idempotency key that no other submit has: a UUIDv7, because keys that come in order cost an index least."""
    stamp = time.time_ns() // 1_000_000
    bits = (stamp & (1 << 48) - 1) << 80 | 7 << 76 | secrets.randbits(12) << 64 | 2 << 62 | secrets.randbits(62)
    return str(uuid.UUID(int=bits))


def new_job(
    image: str | None,
    *,
    mode: Mode,
    file: PathLike | None,
    args: Sequence[str],
    options: Mapping[str, Any],
) -> NewJob:
    """The request without what has to be read: payload and file. BadRequest for what makes no sense, TypeError for
    options that there are not."""
    if isinstance(args, str):
        raise BadRequest(f"args is the text {args!r}: give a list of arguments")
    asked = checked(options)
    if (file is None) == WAYS[mode].needs_file:
        raise BadRequest(
            f"a {mode} job needs its file" if file is None else f"a file was given, but the mode is {mode}",
            f"{_WITH_FILE} goes with file=PATH; {_WITHOUT_FILE} jobs run what is in the image.",
        )
    return NewJob(
        image=image,
        mode=mode,
        file_name=Path(file).name if file is not None else None,
        args=tuple(args),
        **values_of(asked),
    )


def labelled(request: NewJob, name: str | None, tags: Mapping[str, str] | None) -> NewJob:
    return msgspec.structs.replace(request, name=name, tags=dict(tags or {})) if name is not None or tags else request


def send(transport: Transport, request: NewJob, key: str | None) -> tuple[Submitted, Following | None]:
    """And what is still to come of the answer. Safe to repeat: `key`, or a fresh one, makes one job of all tries."""
    key = checked_key(key)
    if transport.follows and transport.may_follow and len(transport.followed) < MOST_FOLLOWED:
        following = Following(transport, request, key)
        submitted = following.submitted()
        if submitted is not None:
            return submitted, following
    return transport.call("POST", f"{API}/jobs", Submitted, request, key=key), None


def checked_key(key: str | None) -> str:
    if key is not None and not (0 < len(key) <= 128 and key.isascii() and key.isprintable()):
        raise BadRequest(f"{key[:130]!r} is no idempotency key: give 1 to 128 printable ASCII characters")
    return key or new_key()


def with_file(transport: Transport, request: NewJob, file: PathLike) -> NewJob:
    """The handler or script is uploaded if the server lacks it. BadRequest for what no image could run."""
    with payloads.open_source(file) as source:
        check(request.file_name or source.name, source.start(LOOKED_AT), WAYS[request.mode].run_by)
        if not WAYS[request.mode].takes_payload:
            _refuse_handler(file)
        return msgspec.structs.replace(request, file=_upload(transport, source))


def other_file(transport: Transport, mode: Mode, file: PathLike) -> RetryBatch:
    """Uploaded as `with_file` does it."""
    request = with_file(transport, NewJob(image="", mode=mode, file_name=Path(file).name), file)
    return RetryBatch(request.file, request.file_name)


def _refuse_handler(file: PathLike) -> None:
    """What is run once, as a program, has nobody there whom `start()` could ask for work."""
    seen = look(file)
    if seen is not None and seen.starts_at_once:
        raise BadRequest(
            f"{file} calls start(): it is a handler file, not a script",
            f"Run it with a payload: hecaton job new payload.json IMAGE --handler {file}",
        )


def with_payload(
    transport: Transport, request: Holder, value: Any, data: bytes | None, file: PathLike | None
) -> Holder:
    """At most one of the three: a Python value, bytes, a file. None of them: the input is null."""
    if sum(given is not None for given in (value, data, file)) > 1:
        raise BadRequest("give one of input, payload and payload_file, not several")
    if file is not None:
        with payloads.open_source(file) as source:
            kind = source.kind()
            small = _inline(request, kind, source.read()) if source.size <= INLINE_LIMIT else None
            return small or _uploaded(transport, request, kind, source)
    if data is None:
        data, kind = payloads.encode(value), Kind.JSON
    else:
        data = payloads.without_bom(data)
        kind = payloads.kind_of(data)
    small = _inline(request, kind, data) if len(data) <= INLINE_LIMIT else None
    if small is not None:
        return small
    with payloads.bytes_source(data) as source:
        return _uploaded(transport, request, kind, source)


def _inline(request: Holder, kind: Kind, data: bytes) -> Holder | None:
    """None when the payload grows too much inside a message."""
    if kind is Kind.JSON:
        return msgspec.structs.replace(request, input=msgspec.Raw(data))
    if kind is Kind.BYTES:
        return msgspec.structs.replace(request, base64=base64.b64encode(data).decode())
    text = data.decode()
    if len(msgspec.json.encode(text)) > _ESCAPED_LIMIT:
        return None
    return msgspec.structs.replace(request, text=text)


def _uploaded(transport: Transport, request: Holder, kind: Kind, source: Source) -> Holder:
    reference = BlobRef(_upload(transport, source), source.size, kind)
    return msgspec.structs.replace(request, payload=reference)


def _upload(transport: Transport, source: Source) -> str:
    """Its SHA-256. Content that this user has uploaded before does not travel again."""
    if source.size > LOOK_FIRST:
        require_fit(transport, source)
    sha256 = source.sha256()
    path = f"{API}/blobs/{sha256}"
    if not transport.exists(path):
        transport.upload(path, source)
    return sha256


def require_fit(transport: Transport, source: Source) -> None:
    """TooLarge before the first byte has travelled."""
    limit = transport.call("GET", f"{API}/server", ServerInfo).max_payload
    if source.size > limit:
        raise TooLarge(
            f"{source.name} has {source.size / MIB:.1f} MiB: this server takes payloads of at most {limit / MIB:g} MiB",
            "hecaton-server --max-payload MIB raises the limit.",
        )
