"""What a message between server and worker may hold at most. No honest side comes near it; a hostile one costs its own
connection, and a few MiB while its frame is read.

What people read is cut where it is kept (`server.fleet.checks`): a long text is no reason to end a connection.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

MAX_FRAME = 4 * 1024 * 1024
"""Bytes. Whoever has more to say sends several (`wire.frames`)."""

MAX_MESSAGES = 10_000
"""In a frame."""

MAX_SLOTS = 1024
"""Of a worker: as many as `hecaton-gpu --slots` takes."""

MAX_REFS = 16 * 1024
"""Attempts in one message."""

MAX_NAMES = 4096
"""Images, modes or options in one message."""

MAX_NAME = 512
"""Characters of a name: an image's with its digest, a card's, a warm key."""

MAX_TEXT = 1024 * 1024
"""Characters of a text for people."""

MAX_PIECE = 1024 * 1024
"""Bytes of a piece of a log, and of a body that travels inside a message."""

Index = Annotated[int, msgspec.Meta(ge=0, lt=MAX_SLOTS)]
Size = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Number = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Name = Annotated[str, msgspec.Meta(max_length=MAX_NAME)]
Names = Annotated[tuple[Name, ...], msgspec.Meta(max_length=MAX_NAMES)]
Text = Annotated[str, msgspec.Meta(max_length=MAX_TEXT)]
Piece = Annotated[bytes, msgspec.Meta(max_length=MAX_PIECE)]
