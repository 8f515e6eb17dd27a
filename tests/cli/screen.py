"""A real terminal around a real process: types keys, and waits until something stands on the screen."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Sequence
from fcntl import ioctl

PATIENCE = 30.0


class Terminal:
    """`seen` is everything that the process has written, escape sequences included."""

    def __init__(self, command: Sequence[str], columns: int = 100, **environment: str) -> None:
        self._master, slave = pty.openpty()
        ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
        # PROMPT_TOOLKIT_NO_CPR: this terminal does not answer the question where the cursor is.
        extra = {"TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1", "PS1": "$ ", **environment}
        # Who runs the tests may have a width of his own.
        around = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, env={**around, **extra}, preexec_fn=_own_terminal
        )
        os.close(slave)
        self.seen = ""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self._master)

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def until(self, pattern: str, patience: float = PATIENCE) -> str:
        """Waits for a regular expression in what comes from now on; returns and forgets what came up to it."""
        deadline = time.monotonic() + patience
        while True:
            if match := re.search(pattern, self.seen, re.DOTALL):
                shown, self.seen = self.seen[: match.end()], self.seen[match.end() :]
                return shown
            assert self._read(deadline), f"{pattern!r} did not come; on the screen: {self.seen!r}"

    def end(self, patience: float = PATIENCE) -> int:
        """Waits until the process has ended; its exit code."""
        deadline = time.monotonic() + patience
        while self._read(deadline):
            pass
        return self.process.wait(max(0.1, deadline - time.monotonic()))

    def _read(self, deadline: float) -> bool:
        """False at the end of the output, or when the time is over."""
        poll = select.poll()  # select() takes no descriptor over 1023, and a long run of tests may have as many
        poll.register(self._master, select.POLLIN)
        ready = poll.poll(1000 * max(0.0, deadline - time.monotonic()))
        try:
            data = os.read(self._master, 65536) if ready else b""
        except OSError:  # Linux's end of file of a terminal
            data = b""
        self.seen += data.decode(errors="replace")
        return bool(data)


def _own_terminal() -> None:
    os.setsid()
    ioctl(0, termios.TIOCSCTTY, 0)
