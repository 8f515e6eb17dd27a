"""What of a folder stays at home: by its `.gitignore` and `.hecatonignore` files, and what nobody means to send.

Patterns are git's, read here: a library for them takes longer to import than a small folder to be sent."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

GIT, OURS = ".gitignore", ".hecatonignore"

NEVER_MEANT = (
    # Keys and passwords
    ".env", ".env.*", ".envrc", ".ssh/", ".gnupg/", ".aws/", ".azure/", ".kube/", ".docker/", ".config/gcloud/",
    ".netrc", "_netrc", ".pgpass", ".pypirc", ".npmrc", ".git-credentials", "*.pem", "*.key", "*.p12", "*.pfx",
    "*.jks", "*.keystore", "*.kdbx", "*.ppk", "id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*",
    # What others have of it, and what is made anew
    ".git", ".hg/", ".svn/", "__pycache__/", "*.py[co]", ".venv/", "venv/", ".tox/", ".nox/", "node_modules/",
    ".mypy_cache/", ".pytest_cache/", ".ruff_cache/", ".ipynb_checkpoints/", ".DS_Store", "Thumbs.db",
    "**/outputs/[0-9]*/",  # what `hecaton run` has brought back: each job would take it along, and bring it back, again
)  # fmt: skip
"""A line with ! in `.hecatonignore` sends it all the same."""


class Patterns:
    """The lines of one file. A path is relative to the folder that the file lies in; that of a folder ends with '/'."""

    def __init__(self, lines: Iterable[str]) -> None:
        groups: list[tuple[bool, list[str]]] = []
        for line in lines:
            read = _read(line)
            if read is None:
                continue
            out, pattern = read
            if not groups or groups[-1][0] is not out:
                groups.append((out, []))
            groups[-1][1].append(pattern)
        self._groups = [(out, re.compile("|".join(patterns), re.DOTALL)) for out, patterns in reversed(groups)]

    def say(self, path: str) -> bool | None:
        """Whether it stays at home; None: nothing is said of it. The last line that speaks of it counts."""
        for out, pattern in self._groups:
            if pattern.fullmatch(path):
                return out
        return None


class Rules:
    """All that is said of what lies in one folder: by it, and by the folders that it lies in."""

    def __init__(self, git: Sequence[tuple[int, Patterns]], ours: Sequence[tuple[int, Patterns]]) -> None:
        self._git, self._ours = git, ours

    @classmethod
    def of_all(cls, exclude: Sequence[str] = ()) -> Rules:
        return cls((), ((0, never_meant()), (0, Patterns(exclude))))

    def within(self, folder: str, git: Patterns | None, ours: Patterns | None) -> Rules:
        """`folder`: its path, ending with '/' where it is not the first one; and what its own files say."""
        start = len(folder)
        return Rules(
            (*self._git, (start, git)) if git else self._git, (*self._ours, (start, ours)) if ours else self._ours
        )

    def leave(self, path: str) -> bool:
        """Our own files have the last word."""
        for said in (self._ours, self._git):
            for start, patterns in reversed(said):
                out = patterns.say(path[start:])
                if out is not None:
                    return out
        return False


@lru_cache(1)
def never_meant() -> Patterns:
    return Patterns(NEVER_MEANT)


def _read(line: str) -> tuple[bool, str] | None:
    """Whether it leaves out, and the expression for paths. None: it says nothing."""
    text = line.rstrip("\r\n")
    while text.endswith(" ") and not text.endswith("\\ "):
        text = text[:-1]
    if not text or text.startswith("#"):
        return None
    out = not text.startswith("!")
    text = text.removeprefix("!")
    folders_only = text.endswith("/")
    text = text.removesuffix("/")
    if not text:
        return None
    anchored = "/" in text
    names = text.removeprefix("/").split("/")
    expression = "" if anchored else "(?:.*/)?"
    for position, name in enumerate(names):
        last = position == len(names) - 1
        if name == "**" and not last:
            expression += "(?:.*/)?"
        elif name == "**" and len(names) > 1:
            expression += ".+"
        else:
            expression += _name(name) + ("" if last else "/")
    try:
        re.compile(expression)
    except re.error:  # a range that goes backwards: git takes it for nothing, too
        return None
    return out, expression + ("/" if folders_only else "/?")


def _name(text: str) -> str:
    """One name between slashes."""
    found, at = "", 0
    while at < len(text):
        char = text[at]
        at += 1
        if char == "*":
            while text[at : at + 1] == "*":
                at += 1
            found += "[^/]*"
        elif char == "?":
            found += "[^/]"
        elif char == "[" and (end := _end_of_class(text, at)) is not None:
            inside = text[at:end]
            negated = inside[:1] in ("!", "^")
            inside = inside[1:] if negated else inside
            found += (
                f"(?!/)[{'^' if negated else ''}{inside.replace(chr(92), chr(92) * 2).replace('[', chr(92) + '[')}]"
            )
            at = end + 1
        elif char == "\\" and at < len(text):
            found += re.escape(text[at])
            at += 1
        else:
            found += re.escape(char)
    return found


def _end_of_class(text: str, at: int) -> int | None:
    """A ']' that comes first is one of its characters."""
    start = at + 1 if text[at : at + 1] in ("!", "^") else at
    end = text.find("]", start + 1)
    return None if end < 0 else end
