"""Sends what the container prints to the worker's log files, and keeps it so whatever a handler does to stdout."""

from __future__ import annotations

import os
import sys

from hecaton.serverless.protocol import LOG_NAME, OUT_NAME

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TextIO

_LAST_PROCESS = "/proc/loadavg"
"""Three averages, threads that run and all, and the last id: `0.00 0.01 0.05 1/80 4711`."""

_FIELDS, _LONGEST = 5, 128


class Log:
    """An append-only log file of the worker's, in place of file descriptors 1 and 2.

    By descriptor, not by replacing `sys.stdout`: what C code, child processes and `os.write` print belongs to it too.
    Jobs share a file until one of them prints, or starts a process that may: the next job gets a new file, so that
    what a process prints stays with the job that started it, however long it lives.
    """

    def __init__(self, folder: str) -> None:
        self._folder = os.path.join(folder, OUT_NAME)
        self._path = os.path.join(folder, LOG_NAME)
        self._made = 0
        self._identity = (-1, -1)
        self._streams = (sys.stdout, sys.stderr)
        self._processes = _Processes()

    def attach(self) -> None:
        """From here on everything printed goes into the first file. Raises OSError when it cannot be opened."""
        _flush(*self._streams)
        self._redirect()
        for stream in self._streams:
            _make_live(stream)
        _unbuffer_c_stdout()

    def settle(self, split: bool) -> tuple[int, str | None]:
        """After a job: repair what its handler did to stdout and stderr, flush them; the size of its log file in bytes,
        and the name in out/ of the file that takes what is printed from now on, if that is another one.

        `split`: the worker knows of more than one file. Raises OSError when the log is lost.
        """
        # hot: benchmarks/throughput.py
        out, err = self._streams
        usable = _flush(sys.stdout, sys.stderr) and sys.stdout is out and sys.stderr is err
        status = self._of_log(1)
        if status is None or self._of_log(2) is None:
            self._redirect()
            usable = False
        if status is None or not usable:
            self._restore_streams()
            _flush(*self._streams)  # again: the first flush may have had no descriptor to write to
            status = os.fstat(1)
        if split and (self._processes.any_new() or status.st_size):
            return status.st_size, self._next()
        return status.st_size, None

    def _next(self) -> str | None:
        """None: none can be made, so the file is used on, and jobs are told apart by where each one's output ends."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        while True:
            self._made += 1
            name = f"{LOG_NAME}.{self._made}"
            path = os.path.join(self._folder, name)
            try:
                self._use(os.open(path, flags, 0o666))
            except FileExistsError:  # of a process that was here before this one
                continue
            except OSError:
                return None
            self._path = path
            return name

    def _redirect(self) -> None:
        if not _is_open(0):
            os.open(os.devnull, os.O_RDONLY)  # takes 0, the lowest free number, so that the log does not
        self._use(os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666))

    def _use(self, log: int) -> None:
        status = os.fstat(log)
        self._identity = (status.st_dev, status.st_ino)
        for number in (1, 2):
            os.dup2(log, number)
            os.set_inheritable(number, True)  # dup2 leaves it as it is where `log` has that very number
        if log > 2:
            os.close(log)

    def _of_log(self, number: int) -> os.stat_result | None:
        """None: the descriptor is closed, or another file's."""
        try:
            status = os.fstat(number)
        except OSError:
            return None
        return status if status.st_ino == self._identity[1] and status.st_dev == self._identity[0] else None

    def _restore_streams(self) -> None:
        out, err = self._streams
        if getattr(out, "closed", out is None):
            out = _reopen(1)
        if getattr(err, "closed", err is None):
            err = _reopen(2)
        self._streams = sys.stdout, sys.stderr = out, err


class _Processes:
    """Notices new processes, and threads, by the last process id that the kernel has given out in this container: also
    those that C code starts, that have ended since, and that are nobody's children any more. Without a container it
    is that of the machine, and then there are more than there need be.
    """

    _fd: int

    def __init__(self) -> None:
        self._last = b""
        self._open()

    def any_new(self) -> bool:
        """Since the last call. Where nobody can tell there may always be some."""
        try:
            fields = os.pread(self._fd, _LONGEST, 0).split()
        except OSError:
            fields = []
        if len(fields) != _FIELDS:  # a handler has closed it, and may have opened something else
            self._open()
            return True
        last, self._last = self._last, fields[-1]
        return last != self._last

    def _open(self) -> None:
        self._last = b""
        try:
            self._fd = os.open(_LAST_PROCESS, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._fd = -1


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _reopen(number: int) -> TextIO:
    return open(number, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)


def _make_live(stream: Any) -> None:
    """Line by line, and no text that cannot be written: a log is read while the job runs."""
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)


def _flush(*streams: Any) -> bool:
    """Whether all could be flushed."""
    usable = True
    for stream in streams:
        try:
            stream.flush()
        except Exception:  # closed, replaced by anything, or its descriptor is gone: the log is repaired afterwards
            usable = False
    return usable


def _unbuffer_c_stdout() -> None:
    """C code's `printf` would sit in a buffer of its own until the container ends."""
    try:
        import ctypes

        libc = ctypes.CDLL(None)
        no_buffer = 2  # _IONBF of glibc and musl
        libc.setvbuf(ctypes.c_void_p.in_dll(libc, "stdout"), None, no_buffer, ctypes.c_size_t(0))
    except (ImportError, OSError, ValueError, AttributeError):
        return  # a Python without ctypes: such output comes late, the rest works
