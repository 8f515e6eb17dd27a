"""Files with a secret in them: nobody but their owner may read or change them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from hecaton.core.errors import BadRequest


def require_private(path: Path, group_may_read: bool = False) -> None:
    """BadRequest if others than its owner can read or change this file, or if that is somebody else."""
    status = path.stat()
    mode, others = stat.S_IMODE(status.st_mode), 0o027 if group_may_read else 0o077
    if mode & others:
        raise BadRequest(
            f"{path} can be read or changed by others (mode {mode:o})",
            f"chmod 600 {path}; if others may have read it, replace it.",
        )
    if status.st_uid not in (os.geteuid(), 0):
        raise BadRequest(
            f"{path} belongs to user {status.st_uid}, this is user {os.geteuid()}",
            f"Run the server as that user, or give the file to this one: chown {os.geteuid()} {path}",
        )
