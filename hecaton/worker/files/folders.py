"""The folders of this machine that a container sees beside its channel folder: mounts, a cache, room for what is fast
and need not last."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from hecaton.wire.channel import Assignment
from hecaton.worker.files.mounts import Mounts, binds, needs_uid
from hecaton.worker.runtimes.port import CACHE, SCRATCH, Bind

CACHES_NAME = "cache"
"""In the worker's folder: a folder for each owner of jobs."""

SCRATCH_NAME = "scratch"
"""In a container's folder: it goes with the container."""

_OPEN = 0o1777
"""Images run as any user; nobody else enters the worker's folder."""

_SAFE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}", re.ASCII)


class Folders:
    """Looks at file systems and may wait for them: in threads. `mounts`: those that jobs may ask for."""

    def __init__(self, folder: Path, mounts: Mounts) -> None:
        """`folder`: the worker's."""
        self.caches = folder / CACHES_NAME
        self.mounts = mounts

    def binds(self, job: Assignment, own: Path) -> tuple[Bind, ...]:
        """What a container that is started for this job sees. `own`: its channel folder. Raises RuntimeFault where a
        mount is not to be had, OSError."""
        mounted = binds(self.mounts, job.options.mount, job.owner, job.uid)
        cache = _made(self.caches / _name_of(job.owner, self.uid_of(job)))
        scratch = _made(own / SCRATCH_NAME)
        return (*mounted, Bind(str(cache), CACHE, False), Bind(str(scratch), SCRATCH, False))

    def uid_of(self, job: Assignment) -> int | None:
        """As whom its container runs; None: as its image says."""
        return job.uid if needs_uid(self.mounts, job.options.mount) else None


def _name_of(owner: str, uid: int | None) -> str:
    """What root has left in a cache nobody else could change: there is another one for each uid."""
    name = owner if _SAFE.fullmatch(owner) else hashlib.sha256(owner.encode()).hexdigest()
    return name if uid is None else f"{name}+{uid}"


def _made(folder: Path) -> Path:
    folder.parent.mkdir(mode=0o700, exist_ok=True)
    folder.mkdir(exist_ok=True)
    folder.chmod(_OPEN)
    return folder
