"""The state of a job that outlives an attempt: what its container keeps in /checkpoints.

A file counts when it was renamed into place, or is closed and was not changed for a while; a folder when it says that
it is complete (`COMPLETE_NAME`), or was not changed for longer. Of names that differ in their numbers only, the newest
counts alone. What counts is linked to a folder of the worker's, so that it stays as it is while it is sent, and leaves
one after the other, the newest first: what became older meanwhile is dropped.
"""

from __future__ import annotations

import asyncio
import fcntl
import itertools
import os
import re
import shutil
import signal
import stat
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec
import structlog

from hecaton.core.files.kept import KeptFile, fault_of_name
from hecaton.core.model import AttemptRef, JobId
from hecaton.serverless.protocol import COMPLETE_NAME
from hecaton.wire.api import MAX_TOLD, NewCheckpoint
from hecaton.worker.files.made import MadeFiles
from hecaton.worker.files.reading import Loads
from hecaton.worker.files.walk import FOLDER, walk
from hecaton.worker.link.bodies import Bodies, BodyRefused, Say
from hecaton.worker.memory.spool import file_name

LOOK_EVERY = 1.0
"""Seconds between two looks at what a container has in /checkpoints."""

FILE_QUIET = 2.0
"""Seconds without a change after which a closed file is complete."""

FOLDER_QUIET = 10.0
"""The same for a folder that does not say itself that it is complete."""

SAID_AFTER = 5.0
"""Seconds that a checkpoint may take to leave before who looks at the job is told of it."""

MAX_CHECKPOINT_FILES = MAX_TOLD
"""Of one checkpoint: one that has more is not sent."""

_log = structlog.get_logger("hecaton.worker.files.checkpoints")


class _Counted(msgspec.Struct, frozen=True):
    """A file or folder that counts, as it is in /checkpoints; an empty name: all of it. `files`: of each its path, and
    what changes when it does. `at`: seconds since the epoch, when it was changed last. `settled`: from when on it is
    sure to be complete, if it is not changed until then."""

    name: str
    at: float
    settled: float
    files: tuple[tuple[str, int, int, int], ...]


def complete(root: int, now: float, ahead: float = 0.0) -> list[_Counted]:
    """What counts in the open folder, or will in so many seconds if nobody changes it. In a thread."""
    now += ahead
    newest: dict[str, _Counted] = {}
    with os.scandir(root) as entries:
        names = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    if (COMPLETE_NAME, False) in names:  # its job says when: files of two moments are no checkpoint
        whole = _folder(root, ".", now, inside="")
        return [] if whole is None else [whole]
    for name, is_folder in names:
        if name.startswith("."):
            continue
        unit = _folder(root, name, now, inside=name) if is_folder else _file(root, name, now)
        alike = re.sub(r"\d+", "#", name)
        if unit is not None and (alike not in newest or newest[alike].at < unit.at):
            newest[alike] = unit
    return list(newest.values())


def _file(root: int, name: str, now: float) -> _Counted | None:
    try:
        found = os.stat(name, dir_fd=root, follow_symlinks=False)
    except OSError:
        return None
    at = max(found.st_mtime, found.st_ctime)
    renamed = found.st_ctime_ns > found.st_mtime_ns  # a write sets both; but clocks of file systems move in steps
    settled = at if renamed else at + FILE_QUIET
    if not stat.S_ISREG(found.st_mode) or settled > now or not _is_closed(root, name):
        return None
    return _Counted(name, at, settled, ((name, found.st_ino, found.st_size, found.st_mtime_ns),))


def _is_closed(folder: int, name: str) -> bool:
    """Nobody has it open for writing: then the kernel gives a lease to read. True where that cannot be known."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        return False
    try:
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)  # who opens it just now breaks the lease: SIGIO would end us
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        os.close(fd)
    return True


def _folder(root: int, name: str, now: float, inside: str) -> _Counted | None:
    """None: it is not complete, or holds what can be part of no checkpoint."""
    files: list[tuple[str, int, int, int]] = []
    newest, said = 0.0, None
    try:
        fd = os.open(name, FOLDER, dir_fd=root)
    except OSError:
        return None
    seen = walk(fd, "")
    try:
        for one in seen:
            if one.why or len(files) >= MAX_CHECKPOINT_FILES:
                return None
            found = os.stat(one.name, dir_fd=one.folder, follow_symlinks=False)
            path = f"{inside}/{one.path}" if inside else one.path
            files.append((path, found.st_ino, found.st_size, found.st_mtime_ns))
            if one.path == COMPLETE_NAME:
                said = found.st_mtime
            else:
                newest = max(newest, found.st_mtime)
    except OSError:
        return None
    finally:
        seen.close()  # type: ignore[attr-defined]
        os.close(fd)
    is_complete = said is not None and said >= newest
    if not files or not (is_complete or (inside and now - newest >= FOLDER_QUIET)):
        return None
    at = newest if said is None else said
    return _Counted(inside, at, at if is_complete else at + FOLDER_QUIET, tuple(sorted(files)))


def stage(root: int, units: list[_Counted], into: Path) -> None:
    """Link them to a folder that is made for it: nobody renames or removes anything there. Names are only ever opened
    in the folder that they are in: a link that takes the place of one leads nowhere. Raises OSError."""
    into.mkdir(mode=0o700)
    for unit in units:
        for path, *_ in unit.files:
            *folders, name = path.split("/")
            target = into.joinpath(*folders)
            target.mkdir(mode=0o700, parents=True, exist_ok=True)
            fds = [root]
            try:
                for folder in folders:
                    fds.append(os.open(folder, FOLDER, dir_fd=fds[-1]))
                os.link(name, target / name, src_dir_fd=fds[-1], follow_symlinks=False)
            finally:
                for fd in fds[1:]:
                    os.close(fd)


def _is_as_it_was(staged: Path, units: list[_Counted]) -> bool:
    """Nobody has written to what was linked."""
    for path, _, size, changed in _files_of(units):
        found = os.stat(staged / path, follow_symlinks=False)
        if (found.st_size, found.st_mtime_ns) != (size, changed):
            return False
    return True


class Checkpoints:
    """`remove`: in the background, what nobody needs. On the loop, with looks and reads in threads."""

    def __init__(self, folder: Path, bodies: Bodies, made: MadeFiles, remove: Callable[[Path], None]) -> None:
        """`folder`: the worker's. Raises OSError."""
        self._folder = folder / "checkpoints"
        self._folder.mkdir(mode=0o700, exist_ok=True)
        self._bodies = bodies
        self._made = made
        self._remove = remove
        self._watched: dict[AttemptRef, asyncio.Task[None]] = {}
        self._kept: dict[AttemptRef, list[_Counted]] = {}  # what the server has
        self._last: dict[AttemptRef, tuple[list[_Counted], Path]] = {}  # staged when the container had ended
        self._numbers = itertools.count(1)
        for path in self._folder.iterdir():
            remove(path)

    def watch(self, ref: AttemptRef, path: Path, say: Say) -> None:
        """As long as its container runs."""
        self._watched[ref] = asyncio.get_running_loop().create_task(self._watch(ref, path, say))

    def stop(self, ref: AttemptRef) -> None:
        if (watching := self._watched.pop(ref, None)) is not None:
            watching.cancel()

    def take(self, ref: AttemptRef, path: Path) -> None:
        """What it has left when its container has ended, and the server lacks."""
        self.stop(ref)
        staged = self._stage(ref, path)
        if staged is not None:
            self._last[ref] = staged

    def has(self, ref: AttemptRef) -> bool:
        return ref in self._last

    async def send(self, ref: AttemptRef, say: Say) -> None:
        await self._send(ref, *self._last[ref], say)

    def forget(self, ref: AttemptRef) -> None:
        self.stop(ref)
        self._kept.pop(ref, None)
        if (left := self._last.pop(ref, None)) is not None:
            self._remove(left[1])

    async def restore(self, job: JobId, into: Path, owner: int | None) -> None:
        """What the server has of an earlier attempt, laid out in an empty folder. `owner`: whose it is to be. Raises
        BodyRefused, OSError."""
        found = await self._bodies.checkpoint(job)
        piece = self._folder / f"{file_name(AttemptRef(job, 0))}.piece"
        held = ""
        try:
            for file in found.files:
                if fault_of_name(file.path) is not None:
                    continue
                target = await asyncio.to_thread(_made, into, file, owner)
                for one in file.pieces:
                    if one.blob != held:
                        await self._bodies.fetch(job, one.blob, piece, of="checkpoint")
                        held = one.blob
                    await asyncio.to_thread(_append, target, piece, one.start, one.size)
        finally:
            piece.unlink(missing_ok=True)

    async def _watch(self, ref: AttemptRef, path: Path, say: Say) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY)
            staging = asyncio.ensure_future(asyncio.to_thread(self._stage, ref, path, FILE_QUIET))
            try:
                staged = await asyncio.shield(staging)
            except asyncio.CancelledError:
                staging.add_done_callback(self._drop)
                raise
            if staged is None:
                continue
            units, folder = staged
            try:  # what is renamed over it meanwhile changes nothing of what is held
                await asyncio.sleep(max(0.0, max(unit.settled for unit in units) - time.time()))
                if not await asyncio.to_thread(_is_as_it_was, folder, units):
                    continue
                if await self._send_saying(ref, units, folder, say):
                    self._kept[ref] = units
            finally:
                self._remove(folder)

    def _drop(self, staging: asyncio.Future[tuple[list[_Counted], Path] | None]) -> None:
        """What was held for nobody: it would take its room on the disk until this worker starts anew."""
        if not staging.cancelled() and staging.exception() is None and (staged := staging.result()) is not None:
            self._remove(staged[1])

    async def _send_saying(self, ref: AttemptRef, units: list[_Counted], staged: Path, say: Say) -> bool:
        """What takes long is told to who looks at the job."""
        loop = asyncio.get_running_loop()
        began, what = loop.time(), f"its checkpoint of {_clock(units)} ({_megabytes(units)})"
        late = loop.call_later(SAID_AFTER, say, f"{what} is on its way")
        try:
            sent = await self._send(ref, units, staged, say)
        finally:
            late.cancel()
        if loop.time() - began > SAID_AFTER:
            say(f"{what} is with the server" if sent else f"{what} could not be kept")
        return sent

    def _stage(self, ref: AttemptRef, path: Path, ahead: float = 0.0) -> tuple[list[_Counted], Path] | None:
        """What counts now, linked to a folder of its own; None: nothing, or what the server has."""
        try:
            root = os.open(path, FOLDER)
        except OSError:
            return None
        try:
            units = complete(root, time.time(), ahead)
            if not units or _files_of(units) == _files_of(self._kept.get(ref, [])):
                return None
            if sum(len(unit.files) for unit in units) > MAX_CHECKPOINT_FILES:
                return None
            into = self._folder / f"{file_name(ref)}.{next(self._numbers)}"
            try:
                stage(root, units, into)
            except OSError as error:  # it was changed meanwhile: the next look finds what is there then
                _log.info("Could not hold a checkpoint", job=ref.job, error=str(error))
                shutil.rmtree(into, ignore_errors=True)
                return None
            return units, into
        finally:
            os.close(root)

    async def _send(self, ref: AttemptRef, units: list[_Counted], staged: Path, say: Say) -> bool:
        """Whether the server has it now. What was changed under our hands is no checkpoint, and is left."""
        files: list[KeptFile] = []
        try:
            loads = Loads(os.open(staged, FOLDER), "", 0)
        except OSError as error:  # no descriptor is left: the next time
            _log.warning("A checkpoint could not be sent", job=ref.job, error=str(error))
            return False
        try:
            while (load := await asyncio.to_thread(loads.next)) is not None:
                files += await self._made.store(ref, load, say)
            if any(file.why for file in files) or not await asyncio.to_thread(_is_as_it_was, staged, units):
                return False
            await self._bodies.tell_of_checkpoint(ref.job, NewCheckpoint(ref.attempt, tuple(files)), say=say)
            self._made.keeps(ref, files)
        except (BodyRefused, OSError) as error:
            _log.warning("A checkpoint could not be sent", job=ref.job, error=str(error))
            return False
        finally:
            loads.close()
        return True


def _files_of(units: list[_Counted]) -> list[tuple[str, int, int, int]]:
    return sorted(file for unit in units for file in unit.files)


def _megabytes(units: list[_Counted]) -> str:
    return f"{sum(size for _, _, size, _ in _files_of(units)) / 1e6:,.1f} MB"


def _clock(units: list[_Counted]) -> str:
    return time.strftime("%H:%M:%S", time.localtime(max(unit.at for unit in units)))


def _made(into: Path, file: KeptFile, owner: int | None) -> Path:
    """An empty file, open to whoever the image runs as."""
    folder = into
    for name in file.path.split("/")[:-1]:
        folder = folder / name
        if not folder.is_dir():
            folder.mkdir()
            _give(folder, 0o777, owner)
    target = into / file.path
    target.touch(exist_ok=False)
    _give(target, 0o777 if file.executable else 0o666, owner)
    return target


def _give(path: Path, mode: int, owner: int | None) -> None:
    path.chmod(mode)
    if owner is not None:
        os.chown(path, owner, owner)


def _append(target: Path, source: Path, start: int, size: int) -> None:
    with source.open("rb") as reader, target.open("ab") as writer:
        reader.seek(start)
        for data in iter(partial(reader.read, 1 << 20), b""):
            writer.write(data[:size])
            size -= len(data)
            if size <= 0:
                break


class Together:
    """What leaves before a result: in this order."""

    def __init__(self, checkpoints: Checkpoints, made: MadeFiles) -> None:
        self._parts = (checkpoints, made)

    def has(self, ref: AttemptRef) -> bool:
        # hot: benchmarks/throughput.py - asked of each result
        first, second = self._parts
        return first.has(ref) or second.has(ref)

    async def send(self, ref: AttemptRef, say: Say) -> None:
        for part in self._parts:
            if part.has(ref):
                await part.send(ref, say)

    def forget(self, ref: AttemptRef) -> None:
        for part in self._parts:
            part.forget(ref)
