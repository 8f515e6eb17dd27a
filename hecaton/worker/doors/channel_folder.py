"""The folder that a container and the worker share: socket, log, in/, out/, turns (see `hecaton.serverless.protocol`);
a pipe in which the launcher of a job's file says that it runs, the place of the mount at PYTHON_TARGET, and outputs/,
which is /outputs in a container.

The container may be root in there. Docker lets it change `log` and what is in out/; where nothing is isolated, and in
containers that an earlier release has started, it may replace every name with a link, a pipe or a device. So the worker
keeps the inner folders and the log open from the start, works relative to them, and opens only plain files.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import posixpath
import re
import shutil
import stat
from pathlib import Path
from typing import IO

from hecaton.serverless.protocol import IN_NAME, LOG_NAME, OUT_NAME, TURNS_NAME
from hecaton.wire.channel import FileRef
from hecaton.worker.runtimes.port import CHANNEL_TARGET, PYTHON_TARGET

LAUNCHED_NAME = "launched"

OUTPUTS_NAME = "outputs"
"""Of the folder that is OUTPUTS in a container: what is left in it is kept."""

LAYOUT = 4
"""Goes up with every name that is added. A container keeps the folder that it was started with, so an upgraded worker
finds those of the release before, and does without what they lack. 1: without `turns`. 2: without `launched`. 3:
without `outputs`."""

_PIPES = {TURNS_NAME: 0o644, LAUNCHED_NAME: 0o666}
"""And what a container may do with them. `launched` is opened for reading too, which never waits for us."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


_OURS = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.EROFS, errno.ENODEV}
)
"""What no container causes that damages its folder: this machine is full, or breaks."""


class NotAPlainFile(Exception):
    """What lies where a result was expected is a link, a pipe, a device, a folder or nothing."""


class Spoilt(Exception):
    """The folder is not as the worker has made it any more."""

    def __init__(self, error: Exception) -> None:
        super().__init__(
            f"what runs in the container has changed its channel folder, of which only {LOG_NAME} and {OUT_NAME}/ are "
            f"its own: {error}"
        )


class ChannelFolder:
    """Under a parent of mode 0700: what is inside may be open to everyone, since images run as any user.

    Called on the worker's loop and, `open_result`, in its threads; whoever has made it closes it."""

    def __init__(self, path: Path, *, made: int | None = None) -> None:
        """Makes it, or opens the one that an earlier process of this worker made, in this layout.

        Raises OSError, Spoilt."""
        self.path = path
        self._fds: list[int] = []
        try:
            if made is None:
                self._make()
            else:
                self._find(made)
        except BaseException:
            self.close()
            raise

    def _make(self) -> None:
        self.path.mkdir()
        self.path.chmod(0o755)
        (self.path / IN_NAME).mkdir()
        (self.path / OUT_NAME).mkdir()
        self.outputs.mkdir()
        (self.path / posixpath.basename(PYTHON_TARGET)).mkdir()
        (self.path / LOG_NAME).touch(0o600, exist_ok=False)
        for name in _PIPES:
            os.mkfifo(self.path / name, 0o600)
        self._open()
        self.outputs.chmod(0o1777)
        os.fchmod(self._in, 0o755)
        os.fchmod(self._out, 0o1777)
        os.fchmod(self.log_fd, 0o666)
        os.fchmod(self.turns_fd, _PIPES[TURNS_NAME])
        os.fchmod(self.launched_fd, _PIPES[LAUNCHED_NAME])

    def _find(self, made: int) -> None:
        """By now a container may have put anything in the place of each name."""
        try:
            if made < LAYOUT:  # its container never looks at them
                for name in _PIPES:
                    with contextlib.suppress(FileExistsError):
                        os.mkfifo(self.path / name, 0o600)
            self._open()
        except NotAPlainFile as error:
            raise Spoilt(error) from error
        except OSError as error:
            blame(error)
            raise

    def _open(self) -> None:
        folder = self._keep(os.open(self.path, _FOLDER))
        self._in = self._keep(os.open(IN_NAME, _FOLDER, dir_fd=folder))
        self._out = self._keep(os.open(OUT_NAME, _FOLDER, dir_fd=folder))
        flags = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        self.log_fd = self._keep(os.open(LOG_NAME, flags, dir_fd=folder))
        if not stat.S_ISREG(os.fstat(self.log_fd).st_mode):
            raise NotAPlainFile(f"{LOG_NAME} is not a plain file")
        self.turns_fd = self._open_pipe(TURNS_NAME, folder)
        self.launched_fd = self._open_pipe(LAUNCHED_NAME, folder)

    def _open_pipe(self, name: str, folder: int) -> int:
        """For reading and writing: numbers are withdrawn from `turns`, and neither end has to wait for the other."""
        fd = self._keep(os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder))
        if not stat.S_ISFIFO(os.fstat(fd).st_mode):
            raise NotAPlainFile(f"{name} is not a pipe")
        return fd

    @property
    def outputs(self) -> Path:
        """Whatever is in its place by now."""
        return self.path / OUTPUTS_NAME

    def put_program(self, name: str, content: bytes) -> None:
        """Make a file appear in in/ that the kernel may be asked to run. Raises OSError, Spoilt."""
        self._write(name, 0o755, io.BytesIO(content))

    def put(self, name: str, source: Path, *, move: bool = False) -> None:
        """Make `source` appear in in/: moved, if nobody else needs it, else copied. Raises OSError, Spoilt."""
        if move:
            os.chmod(source, 0o644)
            try:
                os.rename(source, name, dst_dir_fd=self._in)
            except OSError as error:
                blame(error)
                raise
            return
        with open(source, "rb") as reader:
            self._write(name, 0o644, reader)

    def _write(self, name: str, mode: int, source: IO[bytes]) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            target = os.open(name, flags, mode, dir_fd=self._in)
        except OSError as error:
            blame(error)
            raise
        with open(target, "wb") as writer:
            os.fchmod(writer.fileno(), mode)
            shutil.copyfileobj(source, writer, 1 << 20)

    def another_of_out(self) -> int:
        """A descriptor of out/ for a thread, which outlives this folder and is the caller's. Raises OSError."""
        return os.dup(self._out)

    def has_result(self, name: str) -> bool:
        """Whether there is anything of this name in out/, other than an empty file."""
        try:
            status = os.stat(name, dir_fd=self._out, follow_symlinks=False)
        except OSError:
            return False
        return status.st_size > 0 or not stat.S_ISREG(status.st_mode)

    def open_result(self, name: str) -> int:
        """A file descriptor of the plain file of this name in out/. Raises NotAPlainFile, OSError."""
        if not _is_name(name):
            raise NotAPlainFile(f"{name!r} is not the name of a file in {OUT_NAME}/")
        try:
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self._out)
        except OSError as error:
            if error.errno in _OURS:
                raise
            raise NotAPlainFile(f"{OUT_NAME}/{name} cannot be opened: {error.strerror}") from error
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise NotAPlainFile(f"{OUT_NAME}/{name} is not a plain file")
        return fd

    def open_log(self, name: str) -> int | None:
        """A file descriptor of the plain file of this name in out/, or of `log` itself; None: there is none."""
        if name == LOG_NAME:
            return self.log_fd
        if not _is_name(name):
            return None
        flags = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            try:
                fd = os.open(name, os.O_RDWR | flags, dir_fd=self._out)
            except PermissionError:  # then what nobody needs of it takes its place until it goes
                fd = os.open(name, os.O_RDONLY | flags, dir_fd=self._out)
        except OSError:
            return None
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            return None
        return self._keep(fd)

    def drop_log(self, fd: int, name: str) -> None:
        self._fds.remove(fd)
        os.close(fd)
        self.discard(name)

    def discard(self, name: str) -> None:
        """Remove what the container left under this name in in/ and out/, if it is there and if it can be."""
        for fd in (self._in, self._out) if _is_name(name) else ():
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=fd)

    def close(self) -> None:
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()

    def _keep(self, fd: int) -> int:
        self._fds.append(fd)
        return fd


def blame(error: OSError) -> None:
    """Raises Spoilt for an error that this machine does not cause."""
    if error.errno not in _OURS:
        raise Spoilt(error) from error


def name_of(file: FileRef) -> str:
    """Of a job's file as it stands in in/; what it is called comes from a user."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", os.path.basename(file.name)).lstrip(".-")[-100:] or "script"


def seen_inside(file: FileRef) -> str:
    """Where a job's file is for what runs in the container."""
    return f"{CHANNEL_TARGET}/{IN_NAME}/{name_of(file)}"


def _is_name(name: str) -> bool:
    """Of something in a folder: what a container says may lead elsewhere, or be no text at all."""
    try:
        encoded = os.fsencode(name)
    except UnicodeEncodeError:
        return False
    return encoded not in (b"", b".", b"..") and b"/" not in encoded and b"\0" not in encoded
