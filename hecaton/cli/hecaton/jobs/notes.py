"""What is likely to go wrong with a job, seen before it is submitted: warnings, for it may be meant so."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from hecaton.core.doors import WAYS
from hecaton.core.scripts import interpreters

if TYPE_CHECKING:
    from hecaton.core.model import Mode

MAX_LOOKED_AT = 64 * 1024 * 1024
"""Bytes of a payload that are read for a warning: to say where one is no JSON takes all of it in memory."""


def of_submission(path: Path, handler: Path | None, image: str, mode: Mode, alone: bool) -> Iterator[str]:
    """`path`: the payload, or where the way takes none the file that is run. `alone`: no folder goes along."""
    if not WAYS[mode].takes_payload:
        yield from _empty(path, "nothing runs")
        yield from _of_script(path, image, alone)
        return
    yield from _of_payload(path)
    if handler is not None:
        yield from of_handler(handler, image, alone)
    elif interpreters(path.name):
        yield f"{path} travels as payload, not as a program. To run it: --script"


def of_handler(file: Path, image: str, alone: bool) -> Iterator[str]:
    from hecaton.client.python_file import look

    seen = look(file)
    if seen is not None:
        if not seen.names_start:
            yield f"{file} does not import start from hecaton.serverless: a handler has to call it. A script: --script"
        yield from _missing(file, image, seen.local if alone else (), seen.foreign)


def _of_script(file: Path, image: str, alone: bool) -> Iterator[str]:
    from hecaton.client.python_file import look

    seen = look(file) if not file.suffix or file.suffix == ".py" else None
    if seen is not None:
        yield from _missing(file, image, seen.local if alone else (), seen.foreign)


def _missing(file: Path, image: str, local: tuple[str, ...], foreign: tuple[str, ...]) -> Iterator[str]:
    from hecaton.core.errors import BadRequest
    from hecaton.core.references import parse

    if local:
        yield f"{file} imports {', '.join(local)} from beside it, which does not travel: --workdir . sends the folder"
    try:
        bare = parse(image).repository == "library/python"
    except BadRequest:
        bare = False
    if bare and foreign:
        yield f"{file} imports {', '.join(foreign)}: {image} as it is published has Python's own library only."


def _of_payload(path: Path) -> Iterator[str]:
    from hecaton.client.payload import fault_of_json

    yield from _empty(path, "the job gets an empty text")
    if path.suffix.lower() == ".json" and os.path.isfile(path) and 0 < os.path.getsize(path) <= MAX_LOOKED_AT:
        fault = fault_of_json(path)
        if fault is not None:
            yield f"{path} is not JSON ({fault}): it travels as it is, and reaches the handler as text or bytes"


def _empty(path: Path, therefore: str) -> Iterator[str]:
    if os.path.isfile(path) and not os.path.getsize(path):
        yield f"{path} is empty: {therefore}"
