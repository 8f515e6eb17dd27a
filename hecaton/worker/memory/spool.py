"""The worker's files on their way: payloads before their job runs, handler files, results over 64 KiB until the server
has them. What touches much data is called in a thread.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from hecaton.core.model import AttemptRef

FILES_LIMIT = 256 * 1024 * 1024
"""Bytes of handler files that are kept for the next container; the least recently used go first."""

_CHUNK = 1024 * 1024


class TooLong(Exception):
    """A result file grew over the limit while it was read."""


class Spool:
    """`payloads/` and `results/` have a file per attempt, `files/` one per content hash. Raises OSError: disk full.

    On the loop, but for what says that it is called in a thread; no two of these have the same attempt."""

    def __init__(self, folder: Path, keep_results_of: Iterable[AttemptRef] = ()) -> None:
        self._payloads, self._results, self._files = (folder / n for n in ("payloads", "results", "files"))
        shutil.rmtree(self._payloads, ignore_errors=True)
        for path in (self._payloads, self._results, self._files):
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
        kept = {file_name(ref) for ref in keep_results_of}
        for path in self._results.iterdir():
            if path.name not in kept:
                path.unlink()
        self._used: set[str] = {path.name for path in self._results.iterdir()}

    def payload(self, ref: AttemptRef) -> Path:
        """Where the payload of an attempt is put until it is given to the container."""
        return self._payloads / self._use(ref)

    def result(self, ref: AttemptRef) -> Path:
        return self._results / self._use(ref)

    def file(self, sha256: str) -> Path:
        """Where a handler file or script is kept; whoever finds it there may use it."""
        return self._files / re.sub(r"[^0-9a-f]", "_", sha256)

    def prune_files(self) -> None:
        """Drop the least recently used handler files over the limit. In a thread."""
        files = sorted(((path.stat(), path) for path in self._files.iterdir()), key=lambda item: -item[0].st_mtime)
        total = 0
        for status, path in files:
            total += status.st_size
            if total > FILES_LIMIT:
                path.unlink(missing_ok=True)

    def keep_bytes(self, ref: AttemptRef, data: bytes) -> tuple[str, int]:
        """Store a result on disk for good. Returns content hash and size. In a thread."""

        def write(target: int, digest: Callable[[bytes], None]) -> int:
            digest(data)
            with open(target, "wb", closefd=False) as file:
                return file.write(data)

        return self._keep(ref, write)

    def keep_file(self, ref: AttemptRef, source: int, limit: int) -> tuple[str, int]:
        """The same for what an open file holds; never more than `limit` bytes: raises TooLong. In a thread."""

        def copy(target: int, digest: Callable[[bytes], None]) -> int:
            size = 0
            while chunk := os.read(source, _CHUNK):
                size += len(chunk)
                if size > limit:
                    raise TooLong(size)
                digest(chunk)
                _write_all(target, chunk)
            return size

        return self._keep(ref, copy)

    def forget(self, ref: AttemptRef) -> None:
        name = file_name(ref)
        if name in self._used:  # most jobs never have a file
            self._used.discard(name)
            (self._payloads / name).unlink(missing_ok=True)
            (self._results / name).unlink(missing_ok=True)

    def _keep(self, ref: AttemptRef, fill: Callable[[int, Callable[[bytes], None]], int]) -> tuple[str, int]:
        path = self.result(ref)
        hasher = hashlib.sha256()
        target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            size = fill(target, hasher.update)
            os.fsync(target)
        except BaseException:
            with contextlib.suppress(OSError):
                path.unlink()
            raise
        finally:
            os.close(target)
        return hasher.hexdigest(), size

    def _use(self, ref: AttemptRef) -> str:
        name = file_name(ref)
        self._used.add(name)
        return name


def file_name(ref: AttemptRef) -> str:
    """Of an attempt's files. A job id comes from the server: it never leads out of its folder."""
    return f"{re.sub(r'[^A-Za-z0-9-]', '_', ref.job)}.{ref.attempt}"


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
