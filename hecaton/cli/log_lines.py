"""How server and worker log: one line per event on stderr: time, level, a sentence, key=value. Set up by the
commands.

What others have said (a message, a name, a type) comes into these lines: it has no power over the terminal that shows
them, makes no line of its own, and a traceback shows where, not with which values.
"""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from types import TracebackType
from typing import TextIO

import structlog
from structlog.typing import EventDict, ExcInfo, WrappedLogger

from hecaton.cli.terminal import harmless

_INDENT = "  "
"""Before each line but the first of an event: none of them can be taken for another event."""


def log_to_stderr() -> None:
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%Y-%m-%d %H:%M:%S", utc=False),
            _harmless_values,
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), pad_event_to=0, exception_formatter=_write_traceback
            ),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    # Libraries speak only when something is wrong. uvicorn warns of every client that tries TLS on a plain port.
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Harmless("%(asctime)s [%(levelname)s] %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    sys.excepthook = _print_traceback
    threading.excepthook = lambda ended: _print_traceback(ended.exc_type, ended.exc_value, ended.exc_traceback)


def _harmless_values(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    for key, value in event.items():
        if key == "event":
            event[key] = _one_event(str(value))
        elif isinstance(value, str):
            event[key] = harmless(value)  # the renderer makes one line of it: it writes it as Python does
        elif key != "exc_info" and (shown := repr(value)) != harmless(shown).replace("\n", ""):
            event[key] = harmless(shown)
    return event


def _one_event(text: str) -> str:
    return harmless(text).replace("\n", "\n" + _INDENT)


class _Harmless(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return _one_event(super().format(record))


def _write_traceback(out: TextIO, failure: ExcInfo) -> None:
    lines = "".join(traceback.format_exception(*failure)).rstrip("\n")
    out.write("\n" + _INDENT + _one_event(lines))


def _print_traceback(kind: type[BaseException], error: BaseException | None, where: TracebackType | None) -> None:
    if error is not None and not issubclass(kind, SystemExit | KeyboardInterrupt):
        _write_traceback(sys.stderr, (kind, error, where))
        sys.stderr.write("\n")
