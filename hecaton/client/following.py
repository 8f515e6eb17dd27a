"""One round trip for a job whose end is waited for at once: the answer to its submission says that it is stored, and
then, on the same connection, how it ended."""

from __future__ import annotations

import contextlib
import os
import time

import msgspec

from hecaton.client.http import Transport
from hecaton.core.errors import HecatonError, TooMany, Unavailable, Unreachable, WrongMethod
from hecaton.wire.api import API, JobView, NewJob, Submitted
from hecaton.wire.decoding import decode
from hecaton.wire.reach.tls import Untrusted

MOST_FOLLOWED = 8
"""Answers of one client that are open for what is still to come of them; each has a connection to itself."""

TELLING = 0.05
"""Seconds that a job takes at least to show whether something on the way keeps answers back until they are complete."""

KEPT_BACK = 3
"""So many answers in a row, of jobs that took as long: one alone may have come to a process that was busy itself, as a
client is with its first request."""

FOLLOWED = 50.0
"""Seconds that the server may take until it says how the job is: less than the patience of most proxies."""


_PLAINLY = (TooMany, Unavailable, Unreachable, WrongMethod)
"""What the plain request is for, which is tried again as often as it makes sense."""


class Following:
    """A submission whose answer is read in two parts. For one thread at a time; in a forked child it is over."""

    def __init__(self, transport: Transport, request: NewJob, key: str) -> None:
        self._transport, self._process, self._open = transport, os.getpid(), True
        self._took = 0.0
        self._lines = transport.lines(f"{API}/jobs/followed", {"wait": FOLLOWED}, posted=request, key=key)
        transport.followed.add(self)

    def submitted(self) -> Submitted | None:
        """None: it has to be submitted in the plain way, with the same key. Raises what the server has against it."""
        started = time.monotonic()
        try:
            submitted = decode(next(self._lines), Submitted)
        except (HecatonError, StopIteration, msgspec.DecodeError, UnicodeDecodeError) as error:
            self._give_up()
            if isinstance(error, HecatonError) and (isinstance(error, Untrusted) or not isinstance(error, _PLAINLY)):
                raise
            if isinstance(error, WrongMethod) or time.monotonic() - started >= self._transport.timeout:
                self._transport.may_follow = False  # an older server, or something that keeps answers back
            return None
        self._took = time.monotonic() - started
        return submitted

    def ended(self, timeout: float | None) -> JobView | None:
        """The job, ended or not, or None: it has to be asked for."""
        if os.getpid() != self._process:
            return None
        within = FOLLOWED + min(self._transport.timeout, 10.0)
        try:
            line = self._lines.send(within if timeout is None else min(within, timeout))
            view = decode(line, JobView)
            next(self._lines, None)  # to the end of the answer: its connection is free for what comes next
        except (HecatonError, StopIteration, msgspec.DecodeError, UnicodeDecodeError):
            return None
        finally:
            self._give_up()
        ran = (view.ended_at or 0.0) - view.created_at
        if TELLING < ran <= self._took:  # that it was stored was heard when it had ended
            self._transport.kept_back += 1
            self._transport.may_follow = self._transport.kept_back < KEPT_BACK
        elif ran > TELLING:
            self._transport.kept_back = 0
        return view

    def leave(self) -> None:
        """Nobody waits for the end: the connection is closed, and the next submission is a plain one."""
        if self._open:
            self._transport.follows = False
            self._give_up()

    def _give_up(self) -> None:
        self._open = False
        self._transport.followed.discard(self)
        if os.getpid() == self._process:
            with contextlib.suppress(ValueError):  # another thread reads in it
                self._lines.close()

    def __del__(self) -> None:
        self.leave()
