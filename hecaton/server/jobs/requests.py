"""From what people send to what is stored: options, payload, uploads, checked."""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from hecaton.core.doors import BY_PROTOCOL, DEFAULT, OF_SOME_WAYS, WAYS, WITH_FILE
from hecaton.core.errors import BadRequest, NotFound, TooLarge
from hecaton.core.model import INLINE_LIMIT, Body, JobSpec, Kind
from hecaton.core.options import NOTHING_ASKED, OPTIONS, Options, check, given, options_of, values_of
from hecaton.store.port import Blobs, NewJob, Store
from hecaton.wire import api
from hecaton.wire.api import Retry, RetryBatch

MAX_ARGUMENT = 128 * 1024
"""Bytes: Linux gives a program no longer one."""

MAX_ARGUMENTS = 512 * 1024
"""Bytes of all of a job."""

MAX_FILE_NAME = 128
MAX_NAME = 128
MAX_TAGS = 16
MAX_TAG_KEY = 64
MAX_TAG_VALUE = 128
_TAG_KEY = re.compile(rf"[A-Za-z0-9._/-]{{1,{MAX_TAG_KEY}}}")

MIB = 1024 * 1024

Shared = api.NewJob | api.NewBatch
"""What holds the options of a job, or of all jobs of a batch."""

Content = api.NewJob | api.BatchItem


def require_blobs(store: Store, blobs: Blobs, jobs: Iterable[NewJob], first_item: int | None = None) -> None:
    """In the same transaction as the jobs: an upload that is checked here cannot be cleaned away in between. A server
    that was killed while it cleaned has removed files that it still knows. `first_item`: the jobs are items of a batch
    from there on, and the error names the bad one.

    The same answer for an upload of somebody else as for one that does not exist."""
    wanted: dict[tuple[str, int, int | None], str] = {}
    folders: set[tuple[str, int]] = set()
    for position, job in enumerate(jobs, first_item or 0):
        if job.payload.blob is not None:
            named = "" if first_item is None else f"item {position}: "
            wanted.setdefault((job.payload.blob, job.owner_id, job.payload.size), named)
        if job.spec.file is not None:
            wanted.setdefault((job.spec.file, job.owner_id, None), "")
        if job.spec.workdir is not None:
            folders.add((job.spec.workdir, job.owner_id))
    for workdir, owner_id in folders:
        if not store.has_folder(workdir, owner_id):
            raise NotFound(f"no folder with SHA-256 {workdir[:80]}", "Send it first: PUT /v1/folders/{sha256}")
    for (sha256, owner_id, size), named in wanted.items():
        require_blob(store, blobs, sha256, owner_id, size, named)


def require_blob(
    store: Store, blobs: Blobs, sha256: str, owner_id: int, size: int | None = None, named: str = ""
) -> None:
    path = blobs.path(sha256) if store.has_blob(sha256, owner_id) else None
    if path is None:
        raise NotFound(f"{named}no upload with SHA-256 {sha256[:80]}", "Upload it first: PUT /v1/blobs/{sha256}")
    if size is not None and size != (has := os.path.getsize(path)):
        raise BadRequest(f"{named}the upload {sha256} has {has} bytes, the request says {size}")


def spec_of(request: Shared) -> JobSpec:
    check(request)
    needs_file = WAYS[request.mode].needs_file
    if needs_file and not request.file:
        raise BadRequest(f"a {request.mode} job needs its `file`: the SHA-256 of an uploaded blob")
    if not needs_file and (request.file is not None or request.args):
        raise BadRequest(f"`file` and `args` belong to jobs with mode {' or '.join(WITH_FILE)}")
    # hot: benchmarks/throughput.py - most have none of these
    if request.args:
        _require_arguments(request.args)
    name = None if request.file_name is None else _file_name(request.file_name)
    own_name = request.name if isinstance(request, api.NewJob) else None  # a batch's is its own, not its jobs'
    own_name = None if own_name is None else _job_name(own_name)
    tags = _tags(request.tags) if request.tags else ()
    return JobSpec(
        request.mode, request.file, name, request.args, own_name, tags, request.workdir, **values_of(request)
    )


def spoken_to(spec: JobSpec, of_image: Options) -> JobSpec:
    """As the image is: by the protocol that the job names, else by the image's own. BadRequest for options that mean
    nothing there."""
    # hot: benchmarks/throughput.py - most images and jobs ask for nothing
    if of_image is NOTHING_ASKED and options_of(spec) is NOTHING_ASKED:
        return spec
    native = OPTIONS["protocol"].default
    protocol = of_image.protocol if spec.protocol == native else spec.protocol
    if spec.mode is DEFAULT:
        spec = msgspec.structs.replace(spec, mode=BY_PROTOCOL[protocol])
    elif spec.protocol != native and spec.mode is not BY_PROTOCOL[protocol]:
        raise BadRequest(
            f"a {spec.mode} job brings its own program: no protocol is spoken to its image",
            "Leave out --protocol, or the file.",
        )
    for option, _ in given(spec):
        if option.name in OF_SOME_WAYS and option.name not in WAYS[spec.mode].options:
            raise BadRequest(
                f"{option.flag} means nothing to a {spec.mode} job",
                "It is for images that are servers: with --protocol http, or an image that has it.",
            )
    return spec


def _require_arguments(arguments: Sequence[str]) -> None:
    if any("\0" in argument for argument in arguments):
        raise BadRequest("an argument holds a NUL character: no program can be given that")
    sizes = [len(argument.encode()) for argument in arguments]
    if max(sizes) >= MAX_ARGUMENT:
        raise BadRequest(f"an argument has {MAX_ARGUMENT} bytes or more: no program can be given that")
    if sum(sizes) > MAX_ARGUMENTS:
        raise BadRequest(
            f"the arguments have more than {MAX_ARGUMENTS} bytes together", "Send what is long as the job's payload."
        )


def changed_spec(spec: JobSpec, changes: bytes) -> JobSpec:
    """The same with the options that stand in an `Retry`; nothing at all changes none. BadRequest."""
    if not changes.strip():
        return spec
    try:
        asked = msgspec.json.decode(changes, type=Retry)
        named = msgspec.json.decode(changes, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"the request makes no sense: {error}") from None
    check(asked)
    return msgspec.structs.replace(spec, **{name: getattr(asked, name) for name in named})


def with_other_file(spec: JobSpec, changes: RetryBatch) -> JobSpec:
    """BadRequest where there is no file that could be another."""
    if changes.file is None:
        return spec
    if not WAYS[spec.mode].needs_file:
        raise BadRequest(f"the jobs of this batch have the mode {spec.mode}: no file runs in them")
    name = changes.file_name or spec.file_name
    return msgspec.structs.replace(spec, file=changes.file, file_name=_file_name(name))


def _file_name(name: str | None) -> str | None:
    if name is not None and (not 0 < len(name) <= MAX_FILE_NAME or "/" in name or "\0" in name or name in (".", "..")):
        raise BadRequest(f"{name[:80]!r} is not a file name")
    return name


def _job_name(name: str | None) -> str | None:
    if name is not None and (not 0 < len(name) <= MAX_NAME or not name.isprintable()):
        raise BadRequest(f"{name[:80]!r} is no name of a job: expected 1 to {MAX_NAME} printable characters")
    return name


def _tags(tags: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    if len(tags) > MAX_TAGS:
        raise BadRequest(f"{len(tags)} tags: a job may have {MAX_TAGS}")
    for key, value in tags.items():
        if not _TAG_KEY.fullmatch(key):
            raise BadRequest(
                f"{key[:80]!r} is no tag: expected 1 to {MAX_TAG_KEY} letters, digits and . _ - /", "Write key=value."
            )
        if len(value) > MAX_TAG_VALUE or not value.isprintable():
            raise BadRequest(f"the tag {key} is longer than {MAX_TAG_VALUE} characters, or holds some that are unseen")
    return tuple(sorted(tags.items()))


class Sought(NamedTuple):
    """Which jobs: `whose` and in which `state`, where that is said."""

    whose: str | None = None
    state: str | None = None
    labels: Sequence[tuple[str, str]] = ()


def labels_of(name: str | None, tags: Sequence[str]) -> list[tuple[str, str]]:
    """What jobs are asked for by: a name, tags `key=value`. BadRequest."""
    labels = [] if name is None else [("", name)]
    for tag in tags:
        key, separator, value = tag.partition("=")
        if not separator or not key:
            raise BadRequest(f"{tag[:80]!r} is no tag", "Write key=value.")
        labels.append((key, value))
    return labels


def payload_of(request: Content, limit: int) -> Body:
    """BadRequest and TooLarge say what is wrong with it. Whether a blob is there, `require_blobs` looks."""
    others = 3 - (request.text, request.base64, request.payload).count(None)
    if others > 1 or (others and request.input is not msgspec.UNSET):
        raise BadRequest("give one of `input`, `text`, `base64` and `payload`, not several")
    if request.payload is not None:
        blob = request.payload
        if blob.size > limit:
            raise TooLarge(
                f"the payload has {blob.size / MIB:.1f} MiB, this server takes {limit / MIB:g} MiB",
                "hecaton-server --max-payload MIB sets the limit.",
            )
        return Body(blob.kind, b"", blob.sha256, blob.size)
    body = _inline(request)
    if body.size > INLINE_LIMIT:
        raise TooLarge(
            f"the payload has {body.size} bytes: up to {INLINE_LIMIT} may be sent inside the request",
            "Upload it with PUT /v1/blobs/{sha256} and name it in `payload`.",
        )
    if request.input is not msgspec.UNSET:
        _require_json(body.data)  # lists of nothing take 30 times their text in memory: not before their size is known
    return body


def _inline(request: Content) -> Body:
    if request.text is not None:
        return Body.inline(Kind.TEXT, request.text.encode())
    if request.base64 is not None:
        try:
            return Body.inline(Kind.BYTES, base64.b64decode(request.base64, validate=True))
        except ValueError as error:  # binascii.Error, and what is not ASCII
            raise BadRequest(f"`base64` is not base64: {error}") from None
    return Body.inline(Kind.JSON, b"null" if request.input is msgspec.UNSET else bytes(request.input))


def _require_json(text: bytes) -> None:
    """The bytes go to the handler and back to users as they are; the parser has so far only skipped over them."""
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"`input` is not JSON: {error}") from None


def request_digest(body: bytes) -> bytes:
    """Tells whether an idempotency key came with the same request again."""
    return hashlib.blake2b(body, digest_size=16).digest()
