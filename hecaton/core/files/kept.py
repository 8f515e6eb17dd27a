"""The files that an attempt has made: by which names and in which pieces they are kept."""

from __future__ import annotations

import re

import msgspec

from hecaton.core.errors import BadRequest

MAX_FILES = 100_000
"""Files of one attempt that are kept, those that are only named included."""

MAX_NAME_BYTES = 1024
"""Of a file's name with the folders before it, in UTF-8."""

MAX_LEVELS = 64
"""Folders in each other."""

PIECE = 64 * 1024 * 1024
"""Bytes of a large file that travel at once: after a cut, so much goes again."""

MAX_PIECES = 16 * 1024
"""Of one file."""

MAX_WHY = 300
"""Characters that say why a file is not kept."""

MAX_SIZE = 2**50
"""Bytes of one file."""

_SHA256 = re.compile(r"[0-9a-f]{64}")


class Piece(msgspec.Struct, frozen=True, array_like=True):
    """Bytes of a file: `size` of them, from `start` of a blob on. Small files share a blob, large ones have several."""

    blob: str
    start: int
    size: int


class KeptFile(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """`path`: relative to the folder of outputs, with '/' between names. `why`: it is not kept, and this is why; then
    it has no content here."""

    path: str
    size: int
    sha256: str = ""
    executable: bool = False
    pieces: tuple[Piece, ...] = ()
    why: str = ""


def fault_of_name(path: str) -> str | None:
    """Why this cannot be the name of a kept file, to follow "its name"; None: it can."""
    try:
        size = len(path.encode())
    except UnicodeEncodeError:
        return "is no UTF-8"
    names = path.split("/")
    if size > MAX_NAME_BYTES:
        return f"has more than {MAX_NAME_BYTES} bytes"
    if len(names) - 1 > MAX_LEVELS:
        return f"lies under more than {MAX_LEVELS} folders"
    if "\0" in path or any(name in ("", ".", "..") for name in names):
        return "leads out of its folder, or nowhere"
    return None


def require_sound(file: KeptFile) -> None:
    """BadRequest for what no worker says of a file."""
    fault = fault_of_name(file.path)
    if fault is not None:
        raise BadRequest(f"{file.path[:80]!r} is not kept: its name {fault}")
    if not 0 <= file.size <= MAX_SIZE or len(file.why) > MAX_WHY:
        raise BadRequest(f"{file.path[:80]!r} is not kept: size or reason are out of bounds")
    if file.why:
        if file.pieces or file.sha256:
            raise BadRequest(f"{file.path[:80]!r} is said to be kept and not to be kept")
        return
    if not _SHA256.fullmatch(file.sha256) or len(file.pieces) > MAX_PIECES:
        raise BadRequest(f"{file.path[:80]!r} has no SHA-256, or more than {MAX_PIECES} pieces")
    sound = all(_SHA256.fullmatch(one.blob) and one.start >= 0 and one.size > 0 for one in file.pieces)
    if not sound or sum(one.size for one in file.pieces) != file.size:
        raise BadRequest(f"{file.path[:80]!r} has pieces that do not make up its {file.size} bytes")
