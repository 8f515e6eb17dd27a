"""Where Hecaton keeps its state on this machine: one rule for server, client and worker."""

from __future__ import annotations

import os
from pathlib import Path

from hecaton.core.errors import BadRequest

ENVIRONMENT = "HECATON_HOME"

SERVICE_HOME = Path("/var/lib/hecaton")
"""The same for what root runs, as a service or by hand; each of the programs says when."""


def home() -> Path:
    """The folder that holds `server/`, `client/` and `worker/<name>/`; it need not exist yet.

    HECATON_HOME if it is set and not empty, else `hecaton` in the user's data folder. BadRequest where there is no such
    folder, as for a user number that has no account.
    """
    chosen = os.environ.get(ENVIRONMENT)
    if chosen:
        return Path(chosen).expanduser().absolute()
    from platformdirs import user_data_path

    try:
        return user_data_path("hecaton", appauthor=False)
    except RuntimeError as error:
        raise BadRequest(
            "nothing says where your data is to lie: there is neither a home folder nor HOME",
            f"Set {ENVIRONMENT} to a folder.",
        ) from error
