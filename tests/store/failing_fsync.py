"""A process for test_sqlite_faults whose fsync fails: the kernel is told to answer EIO to it (a seccomp filter).

Writes a colour before and tries two after, one line of JSON each: what the caller of the store got to see.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import json
import platform
import struct
import sys
from pathlib import Path

from hecaton.core.errors import Unavailable
from hecaton.store.sqlite.database import SqliteDatabase

_SYNC_CALLS = {"x86_64": (74, 75), "aarch64": (82, 83)}  # fsync, fdatasync
_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _MODE_FILTER = 22, 38, 2
_LOAD_CALL_NUMBER, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_FAIL, _ALLOW = 0x00050000, 0x7FFF0000


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def break_fsync() -> None:
    fsync, fdatasync = _SYNC_CALLS[platform.machine()]
    steps = [
        (_LOAD_CALL_NUMBER, 0, 0, 0),
        (_JUMP_IF_EQUAL, 1, 0, fsync),
        (_JUMP_IF_EQUAL, 0, 1, fdatasync),
        (_RETURN, 0, 0, _FAIL | errno.EIO),
        (_RETURN, 0, 0, _ALLOW),
    ]
    program = _Program(len(steps), b"".join(struct.pack("HBBI", *step) for step in steps))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    assert libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(program)) == 0


async def main() -> None:
    # Inline, because the filter holds for the thread that installs it.
    database = SqliteDatabase(Path(sys.argv[1]), inline=True)
    for colour in ("before", "after", "later"):
        try:
            await database.write(lambda store, colour=colour: store.set_meta("colour", colour))  # type: ignore[misc]
            print(json.dumps([colour, "acknowledged"]))
        except Unavailable as error:
            print(json.dumps([colour, error.message]))
        if colour == "before":
            break_fsync()


if __name__ == "__main__":
    asyncio.run(main())
