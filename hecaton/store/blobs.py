"""Large payloads, results and handler files as files in a folder, named by their SHA-256.

<root>/ab/cdef…      complete, fsynced content; the folder is the first byte of the hash
<root>/incoming/…    being written; emptied at start, so one process at a time may own the folder
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hecaton.core.errors import BadRequest, Unavailable
from hecaton.store.durable import sync_folder

_SHA256 = re.compile(r"[0-9a-f]{64}")

AHEAD = 8 * 1024 * 1024
"""Bytes after which the disk begins to write what it has of a blob: the fsync at the end finds little left to do."""


class FolderBlobs:
    """The `Blobs` port over a local folder. Unavailable if the disk is full or the folder cannot be used. Keeps nothing
    but the path: any thread may call it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._incoming = root / "incoming"
        with _disk(root):
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._incoming.mkdir(mode=0o700, exist_ok=True)
            for leftover in self._incoming.iterdir():
                leftover.unlink()
            for first_byte in range(256):
                (root / f"{first_byte:02x}").mkdir(mode=0o700, exist_ok=True)
            sync_folder(root)

    def path(self, sha256: str) -> str | None:
        file = self._file(sha256)
        return str(file) if file and file.is_file() else None

    def writer(self) -> FolderBlobWriter:
        return FolderBlobWriter(self._root, self._incoming / uuid.uuid4().hex)

    def delete(self, sha256: str) -> None:
        if file := self._file(sha256):
            with _disk(file):
                file.unlink(missing_ok=True)

    def _file(self, sha256: str) -> Path | None:
        """None for what is no hash: such a name must never become part of a path."""
        return self._root / sha256[:2] / sha256[2:] if _SHA256.fullmatch(sha256) else None


def blob_files(root: Path) -> Iterator[tuple[str, Path]]:
    """(SHA-256, file) of every complete blob under the root."""
    for folder in sorted(root.glob("[0-9a-f][0-9a-f]")):
        for file in folder.iterdir():
            if _SHA256.fullmatch(folder.name + file.name):
                yield folder.name + file.name, file


class FolderBlobWriter:
    """Hashes while it writes. Two writers of the same content are fine: the second replaces equal with equal. For one
    thread at a time."""

    def __init__(self, root: Path, temporary: Path) -> None:
        self._root = root
        self._temporary = temporary
        self._hash = hashlib.sha256()
        self._size = self._on_its_way = 0
        with _disk(temporary):
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
            self._file = os.fdopen(os.open(temporary, flags, 0o600), "wb", buffering=0)

    def write(self, data: bytes) -> None:
        self._hash.update(data)
        rest = memoryview(data)
        with _disk(self._temporary):
            while rest:
                rest = rest[self._file.write(rest) :]
        self._size += len(data)
        if self._size - self._on_its_way >= AHEAD:
            self._send_to_disk()

    def _send_to_disk(self) -> None:
        """Linux begins at once to write pages that it is told to drop, and keeps them while it writes: unlike fsync
        this waits for nothing. A failure of the disk meanwhile is reported by the fsync of `commit`."""
        if sys.platform == "linux":  # elsewhere the fsync of `commit` does all of it
            with _disk(self._temporary):
                length = self._size - self._on_its_way
                os.posix_fadvise(self._file.fileno(), self._on_its_way, length, os.POSIX_FADV_DONTNEED)
        self._on_its_way = self._size

    def commit(self, expected_sha256: str | None = None) -> str:
        sha256 = self._hash.hexdigest()
        try:
            if expected_sha256 is not None and expected_sha256 != sha256:
                raise BadRequest(
                    f"the upload was to have the SHA-256 {expected_sha256} but has {sha256}",
                    "It was changed or cut off on its way: send it again.",
                )
            with _disk(self._temporary):
                os.fsync(self._file.fileno())
                self._file.close()
                folder = self._root / sha256[:2]
                self._temporary.rename(folder / sha256[2:])
                sync_folder(folder)
        except BaseException:
            self.abort()
            raise
        return sha256

    def abort(self) -> None:
        self._file.close()
        self._temporary.unlink(missing_ok=True)


@contextmanager
def _disk(path: Path) -> Iterator[None]:
    """Puts errors of the disk into words."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Unavailable(
                "the server's disk is full: an upload cannot be written",
                "Free some space; the server goes on by itself.",
                path,
            ) from error
        why = error.strerror or type(error).__name__
        raise Unavailable(
            f"the server's folder of uploads cannot be read or written: {why}", "Check its owner and its disk.", path
        ) from error
