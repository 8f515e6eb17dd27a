"""Text for terminals: what comes from outside is made harmless, times and sizes become readable, tables fit the width;
streams that are closed or speak another encoding harm nobody.

Imports nothing that is slow: `job list` pays for it.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import sys
import time
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Any

# Complete escape sequences: CSI (colours, cursor moves), OSC / DCS / APC / PM / SOS up to their end, two-byte ones.
_SEQUENCE = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"
    r"|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)"
    r"|\x1b[ -/]+[0-~]"
    r"|\x1b[0-OQ-WYZ\\`-~]"
)
_UNFINISHED = re.compile(r"(?:\x1b(?:\[[0-?]*[ -/]*|[\]PX^_][^\x07\x1b]*\x1b?|[ -/]*)|\r)\Z")
BAR = 20
"""Characters."""

_HOLD = 4096  # characters of an unfinished sequence that are worth waiting for

# C0 and C1 controls, DEL, and the characters that reorder or hide text: bidi marks and overrides, line separators,
# zero-width characters, tags. Newline and tab stay.
_DANGEROUS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


_NOT_ASCII = re.compile("[^\x00-\x7f]")


def _visible(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return "^" + chr(code + 0x40)
    return "^?" if code == 0x7F else f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def harmless(text: str, *, returns: bool = False) -> str:
    """`text` without any power over the terminal: escape sequences go, other control characters become visible.

    `returns`: carriage returns stay, by which progress bars write over their own line; else they end it."""
    text = _SEQUENCE.sub("", text).replace("\r\n", "\n")
    parts = [_DANGEROUS.sub(_visible, part) for part in text.split("\r")]
    return ("\r" if returns else "\n").join(parts)


def overwritten(line: str) -> str:
    """What stands on a terminal after a line with carriage returns."""
    shown = ""
    for part in line.split("\r"):
        shown = part + shown[len(part) :]
    return shown.rstrip() if "\r" in line else shown


def harmless_json(text: str, stream: IO[Any] | None = None) -> str:
    """The same for JSON text, which stays the same JSON: such characters only stand inside its strings. Nor does any
    that `stream` cannot say."""

    def escaped(match: re.Match[str]) -> str:
        if match[0] < " ":
            return match[0]  # layout: inside strings JSON has escaped them already
        units = match[0].encode("utf-16-be", "surrogatepass")
        return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))

    text = _DANGEROUS.sub(escaped, text)
    return text if stream is None or _speaks_utf8(stream) else _NOT_ASCII.sub(escaped, text)


def bar(share: float) -> str:
    """Of what is done, from 0 to 1: as long at every value, in ASCII."""
    full = int(share * BAR)
    return f"[{'#' * full}{'-' * (BAR - full)}] {share:.0%}"


def one_line(text: str) -> str:
    """For table cells and error messages."""
    return " ".join(harmless(text).split())


class HarmlessStream:
    """`harmless` for text that arrives in pieces: a sequence or a CRLF cut in two is recognised."""

    def __init__(self, *, returns: bool = False) -> None:
        self._held = ""
        self._returns = returns

    def feed(self, text: str) -> str:
        text = self._held + text
        unfinished = _UNFINISHED.search(text)
        cut = unfinished.start() if unfinished and len(text) - unfinished.start() <= _HOLD else len(text)
        self._held = text[cut:]
        return harmless(text[:cut], returns=self._returns)

    def end(self) -> str:
        rest, self._held = self._held, ""
        return harmless(rest, returns=self._returns)


def prepare_streams() -> None:
    """For the start of a program. A standard descriptor that is closed is opened on nothing: else the next socket or
    file would take its place. A character that a stream's encoding lacks is escaped, and ends nothing."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
    sys.stdin = sys.stdin or open(os.devnull, encoding="utf-8")  # noqa: SIM115 - for as long as the program runs
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # In files and pipes Windows would use the code page of the machine, which lacks most names of jobs.
            utf8 = sys.platform == "win32" and not is_terminal(stream)
            stream.reconfigure(encoding="utf-8" if utf8 else None, errors="backslashreplace")


def _speaks_utf8(stream: IO[Any]) -> bool:
    return (getattr(stream, "encoding", None) or "utf-8").lower().replace("-", "").replace("_", "") == "utf8"


def is_terminal(stream: IO[Any]) -> bool:
    try:
        return stream.isatty()
    except ValueError:  # closed
        return False


def colour_wanted(stream: IO[Any]) -> bool:
    """https://no-color.org, and terminals that cannot."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def duration(seconds: float) -> str:
    """`240 ms`, `1.24 s`, `12 s`, `3 min 4 s`, `2 h 5 min`, `3 d 4 h`."""
    seconds = max(0.0, seconds)
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 9.995:
        return f"{seconds:.2f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def clock_time(then: float, now: float) -> str:
    """By this machine's clock on the wall: `14:40`, on another day `29 Nov 14:40`."""
    at = time.localtime(then)
    same_day = at[:3] == time.localtime(now)[:3]
    return time.strftime("%H:%M" if same_day else "%d %b %H:%M", at)


def ago(then: float, now: float) -> str:
    passed = now - then
    if passed < 1:
        return "now"
    if passed < 60:
        return f"{int(passed)} s ago"
    if passed < 3600:
        return f"{int(passed // 60)} min ago"
    if passed < 86400:
        return f"{int(passed // 3600)} h ago"
    return f"{int(passed // 86400)} d ago"


def size(count: int) -> str:
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{count} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def screen_width() -> int:
    return max(20, shutil.get_terminal_size().columns)


# -- tables ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Column:
    title: str
    flexible: bool = False  # may be cut with an ellipsis when the terminal is narrow
    optional: bool = False  # left out when the terminal is narrow
    right: bool = False
    state: bool = False  # in the colour of what it says


_GREEN, _YELLOW, _RED, _CYAN = 32, 33, 31, 36
_COLOURS = {
    **dict.fromkeys(("FINISHED", "ONLINE", "complete"), _GREEN),
    **dict.fromkeys(("ASSIGNED", "IN_PROGRESS", "running"), _CYAN),
    **dict.fromkeys(("CANCELLED", "SUSPECT", "DRAINING", "PAUSED", "stopping", "cancelled"), _YELLOW),
    **dict.fromkeys(("FAILED", "QUARANTINED", "OFFLINE"), _RED),
}
"""Of states of jobs, batches and workers (ANSI); what waits has none."""


def _painted(cell: str) -> str:
    colour = _COLOURS.get(cell.partition(" ")[0])
    return f"\x1b[{colour}m{cell}\x1b[0m" if colour else cell


def cells_wide(text: str) -> int:
    """Columns that `text` takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


def _cut(text: str, width: int) -> str:
    if cells_wide(text) <= width:
        return text
    while text and cells_wide(text) > width - 1:
        text = text[:-1]
    return text + "…"


def table(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int | None) -> list[str]:
    """Lines of a table, titles first, one line for each row. `width` None: as wide as it gets (files, pipes). Who
    prints them where no colour is wanted takes that off."""
    rows = [[one_line(cell) or "-" for cell in row] for row in rows]
    shown = list(range(len(columns)))
    wide = [max([cells_wide(column.title), *(cells_wide(row[i]) for row in rows)]) for i, column in enumerate(columns)]
    if width is not None:
        _fit(columns, shown, wide, width)
    lines = [[column.title for column in columns], *rows]
    return ["  ".join(_padded(line[i], wide[i], columns[i]) for i in shown).rstrip() for line in lines]


def _fit(columns: Sequence[Column], shown: list[int], wide: list[int], width: int) -> None:
    """Narrow `wide` and `shown` in place until the table fits, or nothing is left that may give way."""

    def excess() -> int:
        return sum(wide[i] for i in shown) + 2 * (len(shown) - 1) - width

    for i in reversed([i for i, column in enumerate(columns) if column.optional]):
        if excess() > 0:
            shown.remove(i)
    while excess() > 0:
        candidates = [i for i in shown if columns[i].flexible and wide[i] > 6]
        if not candidates:
            return
        wide[max(candidates, key=lambda i: wide[i])] -= 1


def _padded(cell: str, width: int, column: Column) -> str:
    cell = _cut(cell, width)
    space = " " * (width - cells_wide(cell))
    cell = _painted(cell) if column.state else cell
    return space + cell if column.right else cell + space
