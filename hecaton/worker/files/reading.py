"""Reads what an attempt has made, in loads that can be sent one after the other: many small files together, or one
large file. Memory holds one load's small files, never a large one."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator

import msgspec

from hecaton.core.files.kept import MAX_FILES, PIECE, KeptFile, Piece
from hecaton.wire.api import MAX_TOLD
from hecaton.worker.files.walk import FolderEntry, walk

SMALL = 1024 * 1024
"""Bytes up to which a file travels together with others."""

BUNDLE = 8 * 1024 * 1024
"""Bytes of small files that travel together."""

MAX_KEPT_BYTES = 256 * 1024**3
"""Of all files of one attempt."""

_CHUNK = 1024 * 1024

TOO_MANY = f"an attempt keeps {MAX_FILES:,} files at most"

CHANGED = "it changed while it was read"


class Load(msgspec.Struct):
    """Files with the numbers from `first` on. `bundle`: the bytes of all of them; None: it is one large file, open as
    `large`, whose pieces are to be read from there."""

    first: int
    files: list[KeptFile]
    bundle: bytes | None = None
    large: int | None = None

    def close(self) -> None:
        if self.large is not None:
            os.close(self.large)
            self.large = None


class Loads:
    """Of an open folder, which is closed with this. `known`: so many files are left out, which the server has. `next`
    in one thread at a time; `close` at any time, also while a cancelled task has left that at work: it ends soon."""

    def __init__(self, root: int, leave_out: str, known: int) -> None:
        self._root = root
        self._walk = walk(root, leave_out)
        self._known = known
        self._number = 0
        self._bytes = 0
        self._held: FolderEntry | None = None
        self._given: Load | None = None
        self._closed = False
        self._working = threading.Lock()

    def next(self) -> Load | None:
        """None: that was all. Raises OSError."""
        try:
            with self._working:
                self._given = None if self._closed else self._next()
                return self._given
        finally:
            if self._closed:
                self.close()

    def close(self) -> None:
        """What is open in it, and in a load that nobody was there to take. Twice does no harm."""
        self._closed = True
        if not self._working.acquire(blocking=False):
            return  # `next` does it
        try:
            if self._given is not None:
                self._given.close()
            if self._root >= 0:
                self._walk.close()  # type: ignore[attr-defined]
                os.close(self._root)
                self._root = -1
        finally:
            self._working.release()

    def _next(self) -> Load | None:
        files: list[KeptFile] = []
        bundle = bytearray()
        first = self._number
        for seen in self._remaining():
            if self._number < self._known:
                self._number += 1
                self._bytes += seen.size
                first = self._number
                continue
            if not seen.why and seen.size > SMALL:
                if files:
                    self._held = seen
                    break
                return self._large(seen)
            files.append(self._small(seen, bundle))
            self._number += 1
            if len(files) == MAX_TOLD or len(bundle) >= BUNDLE:
                break
        return Load(first, _in_bundle(files, bundle), bytes(bundle)) if files else None

    def _remaining(self) -> Iterator[FolderEntry]:
        if self._held is not None:
            held, self._held = self._held, None
            yield held
        while self._number < MAX_FILES - 1 and (seen := next(self._walk, None)) is not None:
            yield self._within_bounds(seen)
        if self._number == MAX_FILES - 1 and (seen := next(self._walk, None)) is not None:
            yield msgspec.structs.replace(
                seen,
                size=0,
                why=f"{TOO_MANY}: this one and all behind it are left out",
            )

    def _within_bounds(self, seen: FolderEntry) -> FolderEntry:
        if not seen.why and self._bytes + seen.size > MAX_KEPT_BYTES:
            return msgspec.structs.replace(seen, why=f"the attempt has made more than {MAX_KEPT_BYTES // 1024**3} GiB")
        return seen

    def _small(self, seen: FolderEntry, bundle: bytearray) -> KeptFile:
        """As it will be; where its bytes are is said when the bundle is complete."""
        if seen.why:
            return left(seen, seen.why)
        try:
            fd = seen.open()
            try:
                data = _read(fd, seen.size + 1)
            finally:
                os.close(fd)
        except OSError as error:
            return left(seen, f"it cannot be read: {error.strerror or error}")
        if len(data) != seen.size:
            return left(seen, CHANGED)
        start = len(bundle)
        bundle += data
        self._bytes += seen.size
        pieces = (Piece("", start, seen.size),) if data else ()
        return KeptFile(seen.path, seen.size, hashlib.sha256(data).hexdigest(), seen.executable, pieces)

    def _large(self, seen: FolderEntry) -> Load:
        first = self._number
        self._number += 1
        try:
            fd = seen.open()
        except OSError as error:
            return Load(first, [left(seen, f"it cannot be read: {error.strerror or error}")], b"")
        whole = hashlib.sha256()
        pieces = []
        done = 0
        try:
            while done < seen.size:
                size = min(PIECE, seen.size - done)
                one = hashlib.sha256()
                for chunk in chunks(fd, done, size):
                    if self._closed:
                        raise OSError("nobody waits for it any more")
                    one.update(chunk)
                    whole.update(chunk)
                pieces.append(Piece(one.hexdigest(), 0, size))
                done += size
        except OSError as error:
            os.close(fd)
            return Load(first, [left(seen, f"it cannot be read: {error.strerror or error}")], b"")
        self._bytes += seen.size
        file = KeptFile(seen.path, seen.size, whole.hexdigest(), seen.executable, tuple(pieces))
        return Load(first, [file], None, fd)


def left(seen: FolderEntry | KeptFile, why: str) -> KeptFile:
    return KeptFile(seen.path, seen.size, why=why[:300])


def chunks(fd: int, start: int, size: int) -> Iterator[bytes]:
    """Raises OSError where the file has become shorter."""
    while size > 0:
        chunk = os.pread(fd, min(size, _CHUNK), start)
        if not chunk:
            raise OSError(CHANGED)
        start, size = start + len(chunk), size - len(chunk)
        yield chunk


def _read(fd: int, size: int) -> bytes:
    found = b""
    while size > len(found) and (chunk := os.read(fd, size - len(found))):
        found += chunk
    return found


def _in_bundle(files: list[KeptFile], bundle: bytearray) -> list[KeptFile]:
    """With the name of the blob that they are all in."""
    blob = hashlib.sha256(bundle).hexdigest()
    return [
        msgspec.structs.replace(file, pieces=tuple(Piece(blob, one.start, one.size) for one in file.pieces))
        for file in files
    ]
