"""Stays with a job until it ends: its log, what its worker is doing, why it waits. All on stderr.

A thread reads the server's events; the main thread draws, so that Ctrl-C and the clock are never stuck behind a socket.
"""

from __future__ import annotations

import contextlib
import queue
import sys
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, TextIO

import click

from hecaton.cli.hecaton.jobs import text as job_text
from hecaton.cli.terminal import (
    HarmlessStream,
    cells_wide,
    colour_wanted,
    duration,
    is_terminal,
    one_line,
    overwritten,
    screen_width,
)
from hecaton.cli.terminal import size as readable
from hecaton.core.errors import HecatonError, WaitTimeout

if TYPE_CHECKING:
    from hecaton.client import Client
    from hecaton.wire.api import JobEvent, JobView

ASK_AFTER = 2.0
"""Seconds in the queue after which a person wonders why."""

ASK_AGAIN = 3.0
REDRAW = 0.25

SHOWN_FROM = 4 * 1024 * 1024
"""Bytes of an upload whose progress is shown."""

AWAY = 3.0
"""Seconds for which a server may be silent before it is said."""


def watch(client: Client, job_id: str, timeout: float | None, name: str, screen: Screen) -> tuple[JobView, str]:
    """The job as it ended, and the end of its log as shown. `name`: what people call it. Raises WaitTimeout after
    `timeout` seconds; KeyboardInterrupt passes through. The client is closed then: it would go on reading events, in an
    interactive shell for ever."""
    try:
        return _LiveJob(client, job_id, screen, name).run(timeout)
    except BaseException:
        client.close()
        raise
    finally:
        screen.close()


class _LiveJob:
    def __init__(self, client: Client, job_id: str, screen: Screen, name: str) -> None:
        self._client = client
        self._name = name
        self._job_id = job_id
        self._screen = screen
        # Bounded: a job that prints faster than the terminal takes it must not fill the memory.
        self._events: queue.Queue[JobEvent | Exception | None] = queue.Queue(maxsize=256)
        self._state = ""
        self._since = time.monotonic()
        self._note = ""
        self._progress = ""
        self._why: list[str] = []
        self._ask_at = float("inf")
        self._away = False
        self._shown: deque[str] = deque(maxlen=256)

    def run(self, timeout: float | None) -> tuple[JobView, str]:
        threading.Thread(target=self._read, name="events", daemon=True).start()
        deadline = time.monotonic() + timeout if timeout is not None else float("inf")
        while True:
            try:
                event = self._events.get(timeout=REDRAW)
            except queue.Empty:
                self._tick()
            else:
                if event is None:
                    return self._client.wait(self._job_id), "".join(self._shown)
                if isinstance(event, Exception):
                    raise event
                self._take(event)
            if time.monotonic() > deadline:
                raise WaitTimeout(
                    f"job {self._name} is still {self._state or 'going on'} after {duration(timeout or 0)}",
                    f"It goes on. Come back with: hecaton job wait {self._name}",
                )

    def _read(self) -> None:
        try:
            for event in self._client.events(self._job_id):
                if event.event == "end":
                    break
                self._events.put(event)
        except Exception as error:  # the main thread raises it
            self._events.put(error)
        else:
            self._events.put(None)

    def _take(self, event: JobEvent) -> None:
        if event.event == "log":
            self._screen.log(str(event.value))
            self._shown.append(str(event.value))
        elif event.event == "state":
            self._enter(str(event.value), event.attempt)
        elif event.event == "note":
            self._note = one_line(str(event.value or ""))
            if not self._screen.live and self._note:
                self._screen.line(self._note)
        elif event.event == "progress":
            self._progress = one_line(job_text.progress(event.value))
        self._screen.status(self._status())

    def _enter(self, state: str, attempt: int) -> None:
        if state == self._state:
            return
        self._state, self._since = state, time.monotonic()
        self._note = self._progress = ""
        self._why = []
        self._ask_at = time.monotonic() + ASK_AFTER if state == "IN_QUEUE" else float("inf")
        if not self._screen.live or attempt > 1:
            self._screen.line(state + (f" (attempt {attempt})" if attempt > 1 else ""))

    def _tick(self) -> None:
        self._look_at_server()
        if time.monotonic() > self._ask_at and not self._away:
            self._explain()
            self._ask_at = time.monotonic() + ASK_AGAIN
        self._screen.status(self._status())

    def _look_at_server(self) -> None:
        silent = self._silent()
        if silent > AWAY and not self._away:
            self._away = True
            if not self._screen.live:
                self._screen.line(_trying(silent))
        elif not silent and self._away:
            self._away = False
            self._screen.line("The server answers again.")

    def _silent(self) -> float:
        """Seconds since the server has answered; 0: it does."""
        since = self._client.away_since
        return time.monotonic() - since if since is not None else 0.0

    def _explain(self) -> None:
        with contextlib.suppress(HecatonError):  # the events go on without it
            view = self._client.job(self._job_id)
            why = [one_line(line) for line in job_text.waiting_lines(view)] if view.state == "IN_QUEUE" else []
            if why and why != self._why:
                self._why = why
                self._screen.line("Waiting, because:")
                for line in why:
                    self._screen.line(f"  {line}")

    def _status(self) -> str:
        if self._away:
            return _trying(self._silent())
        parts = [self._state, duration(time.monotonic() - self._since), self._progress, self._note]
        return "  ".join(part for part in parts if part)


def _trying(seconds: float) -> str:
    return f"the server has not answered for {duration(seconds)}, trying again"


class Screen:
    """Scrolling lines on stderr, above one status line that is drawn again and again where stderr is a terminal. A line
    of the log that is written over and over, as progress bars are, stands in the status line until it ends. `stream`:
    another one than stderr. `log_on_stdout`: the log alone goes there, unless both are one terminal."""

    def __init__(self, stream: TextIO | None = None, *, log_on_stdout: bool = False) -> None:
        self._stream = stream or sys.stderr
        self.live = is_terminal(self._stream)
        self._log = sys.stdout if log_on_stdout and not (self.live and is_terminal(sys.stdout)) else None
        self._colour = colour_wanted(self._stream)
        self._clean = HarmlessStream(returns=True)
        self._partial = ""
        self._bar = ""
        self._drawn = False

    def log(self, text: str) -> None:
        """A piece of log. On a terminal whole lines only, so that the status line never cuts one."""
        if self._log is not None:
            self._log.write(self._clean.feed(text) if is_terminal(self._log) else text)
            self._log.flush()
            return
        if not self.live:
            self._write(text)
            return
        lines, newline, rest = (self._partial + self._clean.feed(text)).rpartition("\n")
        self._bar = overwritten(rest) if "\r" in rest or (self._bar and not newline) else ""
        rest = overwritten(rest)
        if len(rest) > 8192:  # a line without an end must not be held for ever
            lines, newline, rest = lines + newline + rest, "\n", ""
        self._partial = rest
        if newline:
            self.erase()
            self._write("\n".join(map(overwritten, lines.split("\n"))) + newline)

    def line(self, text: str) -> None:
        self.erase()
        self._write(text + "\n")

    def status(self, text: str) -> None:
        text = "  ".join(part for part in (text, self._bar) if part)
        if not self.live or not text:
            return
        while cells_wide(text) > screen_width() - 1:
            text = text[:-1]
        self.erase()
        self._write(click.style(text, dim=True) if self._colour else text)
        self._drawn = True

    def close(self) -> None:
        self.erase()
        rest = overwritten(self._partial + self._clean.end())
        if rest:
            self._write(rest + "\n")
        self._partial = self._bar = ""

    def erase(self) -> None:
        """The status line."""
        if self._drawn:
            self._write("\r\x1b[2K")
            self._drawn = False

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


class UploadLine:
    """How far an upload is, where it takes long enough to be wondered at and stderr is a terminal."""

    def __init__(self) -> None:
        self._screen = Screen()
        self._drawn_at = 0.0

    def show(self, name: str, sent: int, size: int) -> None:
        if sent >= size:
            self._screen.close()
        elif size > SHOWN_FROM and time.monotonic() - self._drawn_at > REDRAW:
            self._drawn_at = time.monotonic()
            done = f"{sent / size:.0%}"
            self._screen.status(f"uploading {one_line(name)}: {done} of {readable(size)}")
