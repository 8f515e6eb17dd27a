"""Small files together in one body, to the server and from it: of each its sha256, its size, and its bytes."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator

from hecaton.core.errors import BadRequest
from hecaton.core.files.kept import Piece

MAX_BUNDLE = 8 * 1024 * 1024
"""Bytes of a bundle that a client sends."""

MAX_BUNDLED = 10_000
"""Files in a bundle."""

SMALL = 1024 * 1024
"""Bytes up to which a file goes with others; a larger one is an upload of its own."""

_HEAD = struct.Struct(">32sQ")
HEAD_SIZE = _HEAD.size


def head(sha256: str, size: int) -> bytes:
    """What stands before a file's bytes."""
    return _HEAD.pack(bytes.fromhex(sha256), size)


def read_head(data: bytes | memoryview) -> tuple[str, int]:
    """From `HEAD_SIZE` bytes."""
    sha256, size = _HEAD.unpack(data)
    return sha256.hex(), size


def checked(bundle: bytes) -> dict[str, Piece]:
    """What is in it, by sha256. BadRequest for what is no bundle, or a file that is not what it is said to be."""
    whole, blob = memoryview(bundle), hashlib.sha256(bundle).hexdigest()
    found = {}
    for said, start, size in _files(bundle):
        sha256 = hashlib.sha256(whole[start : start + size]).hexdigest()
        if sha256 != said:
            raise BadRequest(
                f"a file in the bundle was to have the SHA-256 {said} but has {sha256}",
                "It was changed on its way, or while it was read: send it again.",
            )
        found[sha256] = Piece(blob, start, size)
    return found


def _files(bundle: bytes) -> Iterator[tuple[str, int, int]]:
    """Of each its sha256, where it begins, and its size."""
    start = count = 0
    while start < len(bundle):
        count += 1
        if count > MAX_BUNDLED:
            raise BadRequest(f"a bundle has at most {MAX_BUNDLED:,} files")
        if len(bundle) - start < HEAD_SIZE:
            raise BadRequest(f"the bundle ends in the middle of what stands before file {count}")
        sha256, size = read_head(bundle[start : start + HEAD_SIZE])
        start += HEAD_SIZE
        if size > len(bundle) - start:
            raise BadRequest(f"file {count} of the bundle is said to have {size} bytes, {len(bundle) - start} follow")
        yield sha256, start, size
        start += size
