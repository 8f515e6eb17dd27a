"""Sends what the container prints to the worker's log file, and keeps it so whatever a handler does to stdout."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TextIO


class Log:
    """The worker's append-only log file, in place of file descriptors 1 and 2.

    By descriptor, not by replacing `sys.stdout`: what C code, child processes and `os.write` print belongs to it too.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._identity: tuple[int, int] | None = None
        self._streams = (sys.stdout, sys.stderr)

    def attach(self) -> None:
        """From here on everything printed goes into the file. Raises OSError when it cannot be opened."""
        _flush(*self._streams)
        self._redirect()
        for stream in self._streams:
            _make_live(stream)
        _unbuffer_c_stdout()

    def settle(self) -> int:
        """Repair what the last handler did to stdout and stderr, flush them; the log's size in bytes."""
        _flush(sys.stdout, sys.stderr)
        if not (self._is_log(1) and self._is_log(2)):
            self._redirect()
        self._restore_streams()
        _flush(*self._streams)  # again: the first flush may have had no descriptor to write to
        return os.fstat(1).st_size

    def _redirect(self) -> None:
        if not _is_open(0):
            os.open(os.devnull, os.O_RDONLY)  # takes 0, the lowest free number, so that the log does not
        log = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        status = os.fstat(log)
        self._identity = (status.st_dev, status.st_ino)
        for number in (1, 2):
            os.dup2(log, number)
            os.set_inheritable(number, True)  # dup2 leaves it as it is where `log` has that very number
        if log > 2:
            os.close(log)

    def _is_log(self, number: int) -> bool:
        try:
            status = os.fstat(number)
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self._identity

    def _restore_streams(self) -> None:
        out, err = self._streams
        if getattr(out, "closed", out is None):
            out = _reopen(1)
        if getattr(err, "closed", err is None):
            err = _reopen(2)
        self._streams = sys.stdout, sys.stderr = out, err


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


def _flush(*streams: Any) -> None:
    for stream in streams:
        try:
            stream.flush()
        except Exception:  # closed, replaced by anything, or its descriptor is gone: the log is repaired afterwards
            continue


def _unbuffer_c_stdout() -> None:
    """C code's `printf` would sit in a buffer of its own until the container ends."""
    try:
        import ctypes

        libc = ctypes.CDLL(None)
        no_buffer = 2  # _IONBF of glibc and musl
        libc.setvbuf(ctypes.c_void_p.in_dll(libc, "stdout"), None, no_buffer, ctypes.c_size_t(0))
    except (ImportError, OSError, ValueError, AttributeError):
        return  # a Python without ctypes: such output comes late, the rest works
