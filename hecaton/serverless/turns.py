"""Which of the jobs that were given ahead of their turn may still begin here. The container's end of `turns`."""

from __future__ import annotations

import os

from hecaton.serverless.protocol import TURN_NUMBER, TURNS_NAME


class Turns:
    """Reading a number out of the pipe is the one moment at which a job given ahead begins: a number is read by the
    container or by the worker, which wants the job back, and never by both. So neither has to ask the other, and a
    handler that does not return, or never lets go of the interpreter, holds up no job behind it.
    """

    def __init__(self, folder: str) -> None:
        self._path = os.path.join(folder, TURNS_NAME)
        self._fd = -1
        self._identity: tuple[int, int] | None = None
        self._read = 0  # the last number that was read
        self.open()

    def open(self) -> None:
        """Not `usable` afterwards if the worker makes no pipe, as one of an earlier version."""
        try:
            self._fd = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK)
            status = os.fstat(self._fd)
        except OSError:
            self._identity = None
            return
        self._identity = (status.st_dev, status.st_ino)

    @property
    def usable(self) -> bool:
        return self._identity is not None

    def take(self, turn: int) -> bool:
        """Whether the job with this number may begin; False: it was withdrawn. Numbers only rise.

        Raises OSError when a handler has closed the descriptor, or opened something else in its place.
        """
        status = os.fstat(self._fd)
        if (status.st_dev, status.st_ino) != self._identity:
            raise OSError("the descriptor of turns is another file now")
        while self._read < turn:
            try:
                number = os.read(self._fd, TURN_NUMBER.size)
            except BlockingIOError:
                return False
            if len(number) < TURN_NUMBER.size:  # the worker is gone
                return False
            self._read = TURN_NUMBER.unpack(number)[0]
        return self._read == turn
