"""A folder to the server: one question for what is missing there, and that alone; small files together."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from hecaton.client.files.snapshot import Snapshot, changed, content, snapshot
from hecaton.client.http import Transport
from hecaton.client.payload import open_source
from hecaton.client.submission import new_key, require_fit
from hecaton.core.errors import BadRequest, Unavailable
from hecaton.core.files.manifest import Entry
from hecaton.wire.api import API, Folder, NewJob
from hecaton.wire.bundles import HEAD_SIZE, MAX_BUNDLE, MAX_BUNDLED, SMALL, head

ROUNDS = 3
"""How often what is missing is sent: what nobody had needed for long may be cleaned away at that moment."""

PACE = 64 * 1024
"""Bytes a second that the slowest line takes."""


class SentFolder(msgspec.Struct, frozen=True):
    """A folder that is at the server: for `Client.submit(workdir=)`, as often as one likes."""

    sha256: str
    files: int
    size: int


def send(transport: Transport, folder: str | os.PathLike[str] | Snapshot, exclude: Sequence[str] = ()) -> SentFolder:
    """As it is now, or was. BadRequest and TooLarge as `snapshot`."""
    return send_snapshot(transport, folder if isinstance(folder, Snapshot) else snapshot(folder, exclude))


def with_folder(transport: Transport, request: NewJob, folder: str | os.PathLike[str] | SentFolder) -> NewJob:
    sent = folder if isinstance(folder, SentFolder) else send(transport, folder)
    return msgspec.structs.replace(request, workdir=sent.sha256)


def send_snapshot(transport: Transport, found: Snapshot) -> SentFolder:
    """BadRequest where a file is not any more what it was. Each file is whole; two that changed between their readings
    may be of two moments."""
    text = found.manifest
    sha256 = hashlib.sha256(text).hexdigest()
    path, within = f"{API}/folders/{sha256}", transport.timeout + len(text) / PACE
    for _ in range(ROUNDS):
        missing = {*transport.call("PUT", path, Folder, text, within=within).missing}
        if not missing:
            return SentFolder(sha256, found.files, found.size)
        files = {entry.sha256: entry for entry in found.entries if entry.sha256 in missing}
        _send_files(transport, found.folder, [*files.values()])
    raise Unavailable("the server has not kept what was sent to it of the folder", "Try again.")


def _send_files(transport: Transport, root: Path, files: Sequence[Entry]) -> None:
    total, sent = sum(one.size for one in files), 0
    for bundle in _bundles(one for one in files if one.size <= SMALL):
        data = b"".join(head(one.sha256, one.size) + b"".join(content(root, one)) for one in bundle)
        transport.command("POST", f"{API}/blobs", data, key=new_key(), within=transport.timeout + len(data) / PACE)
        sent += sum(one.size for one in bundle)
        if transport.uploading is not None:
            transport.uploading(root.name or os.fspath(root), sent, total)
    for one in files:
        if one.size > SMALL:
            _send_large(transport, root, one)


def _bundles(files: Iterator[Entry]) -> Iterator[list[Entry]]:
    bundle: list[Entry] = []
    size = 0
    for one in files:
        if bundle and (size + HEAD_SIZE + one.size > MAX_BUNDLE or len(bundle) == MAX_BUNDLED):
            yield bundle
            bundle, size = [], 0
        bundle.append(one)
        size += HEAD_SIZE + one.size
    if bundle:
        yield bundle


def _send_large(transport: Transport, root: Path, file: Entry) -> None:
    """Its bytes are looked at on their way, by the server."""
    with open_source(root / file.path) as source:
        if source.size != file.size:
            raise changed(root / file.path)
        require_fit(transport, source)
        try:
            transport.upload(f"{API}/blobs/{file.sha256}", source)
        except BadRequest as error:
            if file.sha256 in error.message:
                raise changed(root / file.path) from error
            raise
