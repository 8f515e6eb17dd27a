"""The folders in which jobs work: what came along, laid out once for all jobs that bring the same, and for each
container a folder of its own over it, to write to.

No name that a job may write to is a link to a file of `content`: an append would change it for everybody. So its own
folder is an overlay mount, where this machine lets the worker make one that its containers see, else a copy.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import threading
from collections.abc import Awaitable, Callable, Collection, Iterator
from pathlib import Path

import structlog

from hecaton.core.files.manifest import Manifest
from hecaton.wire.channel import FileRef
from hecaton.worker.files import overlay
from hecaton.worker.files.content import OPEN_FOLDER, OPEN_PROGRAM, Contents

MAX_LAID_OUT = 32
"""Folders that stay laid out for the next job that brings the same, those in use not counted."""

_UNFINISHED = ".part-"
_MERGED, _UPPER, _WORK, _COPY, _OF = "merged", "upper", "work", "copy", "of"

_log = structlog.get_logger("hecaton.worker.files.workfolders")


class WorkFolders:
    """`laid/` has a folder per manifest, `work/` one per container: `of` says over which folder it is, and beside that
    lie `merged`, `upper` and `work` of a mount, or `copy`. Methods that touch much say that they are for threads."""

    def __init__(self, folder: Path, contents: Contents, boot: str, remove: Callable[[Path], object]) -> None:
        """`folder`: the worker's. `boot`: of the machine; what an earlier one left may lack what a power cut took.
        `remove`: in the background. Raises OSError."""
        self.contents = contents
        self._laid, self._work = folder / "laid", folder / "work"
        self._remove = remove
        self._mounts = False
        self._used: dict[str, int] = {}  # manifests on their way to a container of their own
        self._lock = threading.Lock()  # so that nothing that is being laid out is pruned
        for path in (self._laid, self._work):
            path.mkdir(mode=0o700, exist_ok=True)
        stamp = self._laid / f".boot-{boot}"
        same_boot = bool(boot) and stamp.exists()
        for path in list(self._laid.iterdir()):
            if path.name.startswith(_UNFINISHED) or not same_boot:
                aside = path.with_name(f"{_UNFINISHED}{path.name.removeprefix(_UNFINISHED)}")
                remove(path.rename(aside))
        stamp.touch()

    async def find_out(self, sees: Callable[[Path], Awaitable[bool]]) -> None:
        """Whether mounts of this process are seen in its containers. `sees`: as `Runtime.sees`."""
        probe = self._work / ".probe"
        try:
            merged = await asyncio.to_thread(_probed, probe)
            self._mounts = await sees(merged / "lower")
            why = "" if self._mounts else "containers do not see what this process mounts"
        except OSError as error:
            why = error.strerror or str(error)
        finally:
            await asyncio.to_thread(_drop, probe)
            self._remove(probe)
        if why:
            _log.info("Jobs get copies of the folders that they bring, which takes longer than a mount", why=why)

    def make(self, container: str, sha256: str, manifest: Manifest) -> Path:
        """The folder of a container's own, over that of this manifest, whose content is here. In a thread. Raises
        OSError."""
        with self._held(sha256):
            lower = self._lay_out(sha256, manifest)
            own = self._work / container
            own.mkdir(mode=0o755)
            (own / _OF).symlink_to(sha256)
            if self._mounts:
                for name in (_UPPER, _WORK, _MERGED):
                    (own / name).mkdir()
                    (own / name).chmod(OPEN_FOLDER)
                overlay.mount(lower, own / _UPPER, own / _WORK, own / _MERGED)
                return own / _MERGED
            _copy(lower, own / _COPY)
            return own / _COPY

    def made(self, container: str) -> tuple[Path, Path] | None:
        """Where what a container has written lies, and over which folder; what it has not touched may be there too.
        None: it has no working folder. What is in it may be anything."""
        own = self._work / container
        try:
            lower = self._laid / os.readlink(own / _OF)
        except OSError:
            return None
        return (own / _UPPER if (own / _UPPER).is_dir() else own / _COPY), lower

    def drop(self, container: str) -> None:
        """Its container is gone, and what it has made was taken."""
        own = self._work / container
        if own.is_dir():
            _drop(own)
            self._remove(own)

    def sweep(self, wanted: Collection[str]) -> None:
        """What an earlier process of this worker has left. `wanted`: containers whose folders are needed. Raises
        OSError."""
        for name in os.listdir(self._work):
            if name not in wanted and name != ".probe":
                self.drop(name)

    def prune_quietly(self) -> None:
        """What cannot be dropped now goes the next time. In a thread."""
        try:
            self.prune()
        except OSError as error:
            _log.warning("Could not look for what folders of jobs have left", error=str(error))

    def prune(self) -> None:
        """Whatever is too much and in nobody's use. In a thread. Raises OSError."""
        with self._lock:
            idle = sorted(self._idle(), key=lambda path: path.lstat().st_mtime)
            for path in idle[: max(0, len(idle) - MAX_LAID_OUT)]:
                self._forget(path)
            idle = idle[-MAX_LAID_OUT:]
            while self.contents.prune() > 0 and idle:
                self._forget(idle.pop(0))

    def _idle(self) -> Iterator[Path]:
        used = set(self._used)
        for own in self._work.iterdir():
            with contextlib.suppress(OSError):
                used.add(os.readlink(own / _OF))
        return (path for path in self._laid.iterdir() if path.name not in used and not path.name.startswith("."))

    def _forget(self, path: Path) -> None:
        aside = path.with_name(_UNFINISHED + path.name)
        path.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)

    @contextlib.contextmanager
    def _held(self, sha256: str) -> Iterator[None]:
        with self._lock:
            self._used[sha256] = self._used.get(sha256, 0) + 1
        try:
            yield
        finally:
            with self._lock:
                self._used[sha256] -= 1
                if not self._used[sha256]:
                    del self._used[sha256]

    def _lay_out(self, sha256: str, manifest: Manifest) -> Path:
        """By links: nobody can write to them there, since it is the lower one of two, or copied from."""
        laid = self._laid / sha256
        with contextlib.suppress(FileNotFoundError):
            os.utime(laid)  # recently used
            return laid
        part = self._laid / f"{_UNFINISHED}{sha256}-{threading.get_ident()}"
        part.mkdir()
        try:
            _fill(part, manifest, self.contents)
            part.rename(laid)
        except OSError:
            shutil.rmtree(part, ignore_errors=True)
            if not laid.is_dir():  # another thread was faster
                raise
        return laid


def _fill(folder: Path, manifest: Manifest, contents: Contents) -> None:
    """Folders first and links last: so no name leads through a link. Raises OSError."""
    made = {""}
    for entry in manifest.entries:
        _make_folder(folder, entry.path if entry.kind == "dir" else entry.path.rpartition("/")[0], made)
    for entry in manifest.entries:
        if entry.kind == "file":
            os.link(contents.file(entry), f"{folder}/{entry.path}")
    for entry in manifest.entries:
        if entry.kind == "link":
            os.symlink(entry.target, folder / entry.path)
    folder.chmod(OPEN_FOLDER)


def _make_folder(folder: Path, path: str, made: set[str]) -> None:
    if path in made:
        return
    _make_folder(folder, os.path.dirname(path), made)
    (folder / path).mkdir()
    (folder / path).chmod(OPEN_FOLDER)
    made.add(path)


def place_in(manifest: Manifest, file: FileRef) -> str | None:
    """Where in the folder the job's own file came from; None: from elsewhere."""
    return next((one.path for one in manifest.files if (one.path, one.sha256) == (file.name, file.sha256)), None)


def make_program(path: Path, content: bytes) -> None:
    """In a container's own folder, before it starts: as the kernel may be asked to run it. In a thread. Raises
    OSError."""
    path.unlink()  # it may be a link of a file that is not its own
    path.write_bytes(content)
    path.chmod(OPEN_PROGRAM)


def _copy(lower: Path, own: Path) -> None:
    """As it is there, times too, by which it is seen later what has changed. Raises OSError."""
    own.mkdir()
    own.chmod(OPEN_FOLDER)
    with os.scandir(lower) as entries:
        for entry in entries:
            target = own / entry.name
            if entry.is_symlink():
                target.symlink_to(os.readlink(entry.path))
            elif entry.is_dir():
                _copy(Path(entry.path), target)
            else:
                shutil.copy2(entry.path, target)


def _probed(probe: Path) -> Path:
    """An overlay mount with a file in it, which was written to: that is refused where folders cannot carry one."""
    _drop(probe)
    shutil.rmtree(probe, ignore_errors=True)
    lower, upper, work, merged = (probe / name for name in ("lower", _UPPER, _WORK, _MERGED))
    for path in (probe, lower, upper, work, merged):
        path.mkdir()
    (lower / "lower").write_bytes(b"\n")
    overlay.mount(lower, upper, work, merged)
    (merged / "lower").write_bytes(b"changed\n")
    return merged


def _drop(own: Path) -> None:
    overlay.unmount(own / _MERGED)


__all__ = ["MAX_LAID_OUT", "WorkFolders", "make_program", "place_in"]
