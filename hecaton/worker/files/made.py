"""What attempts have put into /outputs, from their end until the server has it.

It leaves before the result: who hears that a job has ended finds its files. Nobody else waits for that: the place of
the job has the next one meanwhile."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path

import structlog

from hecaton.core.files.kept import KeptFile, Piece
from hecaton.core.model import AttemptRef
from hecaton.serverless.protocol import ASIDE_NAME
from hecaton.wire.api import NewFiles
from hecaton.worker.files.reading import Load, Loads, chunks, left
from hecaton.worker.files.walk import FOLDER
from hecaton.worker.link.bodies import Bodies, BodyRefused, Say
from hecaton.worker.memory.spool import file_name

_log = structlog.get_logger("hecaton.worker.files.made")


class MadeFiles:
    """`made/` has a folder per attempt, moved there from its container in one step. `remove`: in the background, what
    is there for good. On the loop, with reads in threads."""

    def __init__(
        self,
        folder: Path,
        bodies: Bodies,
        remove: Callable[[Path], None],
        keep_of: Iterable[AttemptRef] = (),
    ) -> None:
        """`keep_of`: whose results the server lacks. Raises OSError."""
        self._folder = folder / "made"
        self._folder.mkdir(mode=0o700, exist_ok=True)
        self._bodies = bodies
        self._remove = remove
        self._sent: dict[AttemptRef, int] = {}
        known = {file_name(ref): ref for ref in keep_of}
        for path in self._folder.iterdir():
            if (ref := known.get(path.name)) is not None:
                self._sent[ref] = 0
            else:
                remove(path)
        self._stored: dict[AttemptRef, set[str]] = {}  # blobs that the server keeps

    def take(self, ref: AttemptRef, outputs: Path, *, aside: bool = False) -> None:
        """What lies in the folder of outputs, or, `aside`, what its container has put aside there. `outputs` is where
        only the worker makes names; what is in it may be anything. Nothing of the attempt writes there now."""
        fds: list[int] = []
        try:
            fds.append(os.open(outputs, FOLDER))
            parent, name = None, str(outputs)
            if aside:
                fds.append(os.open(ASIDE_NAME, FOLDER, dir_fd=fds[-1]))
                parent, name = fds[-1], f"{ref.job}.{ref.attempt}"
                fds.append(os.open(name, FOLDER, dir_fd=parent))
            if _has_entries(fds[-1]):
                os.rename(name, self._folder / file_name(ref), src_dir_fd=parent)
                self._sent[ref] = 0
        except FileNotFoundError:
            return
        except OSError as error:
            _log.error("Lost what a job has made", job=ref.job, error=str(error))
        finally:
            for fd in fds:
                os.close(fd)

    def has(self, ref: AttemptRef) -> bool:
        return ref in self._sent

    async def send(self, ref: AttemptRef, say: Say) -> None:
        """All of it, from where it was cut off. What cannot be sent is named, with the reason; nothing is raised for it
        but the cancellation of this."""
        try:
            root = os.open(self._folder / file_name(ref), FOLDER)
        except OSError as error:  # what was taken was no folder
            _log.warning("Cannot read what a job has made", job=ref.job, error=str(error))
            return
        loads = Loads(root, ASIDE_NAME, self._sent[ref])
        try:
            while (load := await asyncio.to_thread(loads.next)) is not None:
                say(f"bringing back its files: {load.files[0].path} and what follows")
                await self._send_load(ref, load, say)
                self._sent[ref] = load.first + len(load.files)
        except BodyRefused as refused:
            _log.warning("The server does not take what a job has made", job=ref.job, error=str(refused))
        except OSError as error:
            _log.warning("Cannot read what a job has made", job=ref.job, error=str(error))
        finally:
            loads.close()

    def forget(self, ref: AttemptRef) -> None:
        """The server has it, or needs it no more."""
        self._stored.pop(ref, None)
        if self._sent.pop(ref, None) is not None:  # most jobs make no files
            self._remove(self._folder / file_name(ref))

    async def _send_load(self, ref: AttemptRef, load: Load, say: Say) -> None:
        files = await self.store(ref, load, say)
        await self._bodies.tell_of_files(ref.job, NewFiles(ref.attempt, load.first, tuple(files)), say=say)
        self._stored.setdefault(ref, set()).update(piece.blob for file in files for piece in file.pieces)

    def keeps(self, ref: AttemptRef, checkpoint: Iterable[KeptFile]) -> None:
        """The server has this checkpoint now, and those before it no more: what is in it need not be sent again."""
        self._stored[ref] = {piece.blob for file in checkpoint for piece in file.pieces}

    async def store(self, ref: AttemptRef, load: Load, say: Say) -> list[KeptFile]:
        """The bytes of a load, which is closed. Returns the files as they are then: refused ones are left, and say
        why."""
        stored = set(self._stored.get(ref, ()))
        try:
            if load.bundle:
                blob = hashlib.sha256(load.bundle).hexdigest()
                await self._bodies.store_pieces(ref.job, blob, len(load.bundle), lambda: _once(load.bundle or b""), say)
            elif load.large is not None:
                done = 0
                for piece in load.files[0].pieces:
                    if piece.blob not in stored:
                        await self._store_piece(ref, load.large, done, piece, say)
                        stored.add(piece.blob)
                    done += piece.size
        except BodyRefused as refused:
            why = f"the server refused it: {refused.error.message}"
            return [left(file, file.why or why) if file.pieces else file for file in load.files]
        except OSError as error:
            return [left(file, f"it cannot be read: {error.strerror or error}") for file in load.files]
        finally:
            load.close()
        return load.files

    async def _store_piece(self, ref: AttemptRef, fd: int, start: int, piece: Piece, say: Say) -> None:
        await self._bodies.store_pieces(
            ref.job, piece.blob, piece.size, lambda: _in_threads(fd, start, piece.size), say
        )


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def _in_threads(fd: int, start: int, size: int) -> AsyncIterator[bytes]:
    reader = chunks(fd, start, size)
    while (chunk := await asyncio.to_thread(next, reader, None)) is not None:
        yield chunk


def _has_entries(folder: int) -> bool:
    """Beside what is ours."""
    with os.scandir(folder) as entries:
        return any(entry.name != ASIDE_NAME for entry in entries)
