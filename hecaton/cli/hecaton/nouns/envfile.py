"""Reads env files as people write them, for `hecaton image update --fp`.

    # a comment
    export KEY=value            # `export` is ignored, so is a comment after a blank
    QUOTED="two\\nlines"        # double quotes: \\n \\r \\t \\" \\\\ \\$ are escapes
    LITERAL='as $it stands'     # single quotes: nothing is

Nothing is expanded: `$HOME` stays `$HOME`.
"""

from __future__ import annotations

import re
from pathlib import Path

from hecaton.core.errors import BadRequest

_LINE = re.compile(r"(?:export[ \t]+)?([^=\s]+)[ \t]*=[ \t]*(.*)\Z", re.DOTALL)
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*\Z")
_DOUBLE = re.compile(r'"((?:[^"\\]|\\.)*)"(.*)\Z', re.DOTALL)
_SINGLE = re.compile(r"'([^']*)'(.*)\Z", re.DOTALL)
_PLAIN = re.compile(r"[^\s\"'#\\$]*\Z")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "$": "$"}


def read(path: Path) -> dict[str, str]:
    """The variables of a file. Raises BadRequest that names the file and the line."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise BadRequest(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BadRequest(f"{path} is not an env file: it is not UTF-8 text", "It needs lines of KEY=VALUE.") from error
    return parse(text, str(path))


def parse(text: str, name: str = "env file") -> dict[str, str]:
    variables = {}
    for number, line in enumerate(text.split("\n"), start=1):
        stripped = line.strip(" \t\r")
        if not stripped or stripped.startswith("#"):
            continue
        try:
            key, value = _variable(stripped)
        except ValueError as error:
            raise BadRequest(
                f"{name}, line {number}: {error}", "Each line is KEY=VALUE, a # comment or empty."
            ) from None
        variables[key] = value
    return variables


def line(key: str, value: str) -> str:
    """The line that `parse` reads back as this variable: quoted where it has to be."""
    if _PLAIN.match(value):
        return f"{key}={value}"
    escaped = re.sub(r'[\\"$]', r"\\\g<0>", value)
    for letter, char in (("n", "\n"), ("r", "\r"), ("t", "\t")):
        escaped = escaped.replace(char, f"\\{letter}")
    return f'{key}="{escaped}"'


def _variable(line: str) -> tuple[str, str]:
    """Messages never quote the line: it may hold a secret."""
    match = _LINE.match(line)
    if match is None:
        raise ValueError("there is no KEY=VALUE")
    key, rest = match.groups()
    if not _KEY.match(key):
        raise ValueError(f"{key!r} is not the name of a variable (letters, digits and _, not a digit first)")
    value = _value(rest)
    if "\0" in value:
        raise ValueError(f"the value of {key} holds a NUL character, which no environment can")
    return key, value


def _value(text: str) -> str:
    if text[:1] not in ('"', "'"):
        return re.split(r"(?:^|[ \t])#", text, maxsplit=1)[0].rstrip(" \t")
    double = text[0] == '"'
    match = (_DOUBLE if double else _SINGLE).match(text)
    if match is None:
        raise ValueError(f"the {'double' if double else 'single'} quote is never closed")
    inner, after = match.groups()
    if after.strip(" \t") and not re.match(r"[ \t]+#", after):
        raise ValueError("there is text after the closing quote")
    return re.sub(r"\\(.)", _unescaped, inner, flags=re.DOTALL) if double else inner


def _unescaped(match: re.Match[str]) -> str:
    return _ESCAPES.get(match[1], match[0])
