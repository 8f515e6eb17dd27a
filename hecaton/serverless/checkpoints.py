"""The folder in which a job keeps what its next attempt goes on with."""

from __future__ import annotations

import os

from hecaton.serverless.protocol import CHECKPOINTS_VARIABLE, COMPLETE_NAME


def checkpoint(folder: str | None = None) -> None:
    """Say that what is in this folder is complete, and may be what another attempt begins with: a folder of
    HECATON_CHECKPOINTS, or all of that. Does nothing outside of Hecaton.

    Where files are renamed into HECATON_CHECKPOINTS one by one nothing needs to be said."""
    where = os.environ.get(CHECKPOINTS_VARIABLE)
    if where is None:
        return
    marker = os.path.join(where, folder or "", COMPLETE_NAME)
    with open(marker + ".new", "w") as file:
        os.fsync(file.fileno())
    os.replace(marker + ".new", marker)
