"""Files that are run as programs: which ones can be, by what, and with which line ends.

The kernel reads the first line. Here is what it leaves to others: what runs a file that names no interpreter, which
files no image could run, and what an editor of another system put into a file that is in the way.
"""

from __future__ import annotations

from hecaton.core.errors import BadRequest

PYTHON = ("python3", "python")
SHELL = ("bash", "sh")
_BY_SUFFIX = {"py": PYTHON, "sh": SHELL, "bash": SHELL}
_SHELLS = frozenset({b"sh", b"bash", b"dash", b"ash", b"ksh", b"mksh", b"zsh", b"fish"})

LOOKED_AT = 1024
"""Bytes of a file that `check` wants to see; the kernel itself reads 256 of the first line."""

_MARK = b"#!"
_BOM = b"\xef\xbb\xbf"
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_PACKAGE = "hecaton.py"


def interpreters(name: str) -> tuple[str, ...]:
    """What runs a file of this name that does not say it itself: the first of these that is there."""
    stem, _, suffix = name.rpartition("/")[2].rpartition(".")
    return _BY_SUFFIX.get(suffix.lower(), ()) if stem else ()


def check(name: str, start: bytes, run_by: tuple[str, ...] = ()) -> None:
    """Whether some image could run the file that begins with `start`. `run_by`: interpreters of a file that names
    none, whatever its name (`doors.Way.run_by`); none: they go by its name. Raises BadRequest."""
    if start.startswith(_UTF_16):
        raise BadRequest(f"{name} is written in UTF-16, which no interpreter reads", "Save it as UTF-8.")
    if run_by and name.rpartition("/")[2] == _PACKAGE:
        raise BadRequest(f"a file called {_PACKAGE} hides the package that it has to import", "Give it another name.")
    first = start.removeprefix(_BOM).partition(b"\n")[0]
    if not first.startswith(_MARK):
        if not run_by and not interpreters(name):
            raise BadRequest(
                f"it is not clear which interpreter runs {name!r}",
                "Name it .py or .sh, or begin it with #!/usr/bin/env python3 or #!/bin/sh.",
            )
        return
    words = first.removeprefix(_MARK).split()
    if not words or not words[0].startswith(b"/"):
        raise BadRequest(
            f"the first line of {name} is {first.decode('utf-8', 'replace').strip()!r}: "
            "the kernel wants the whole path of an interpreter there",
            "Begin it with #!/usr/bin/env python3, #!/bin/sh or the like.",
        )


def with_unix_lines(name: str, content: bytes) -> bytes:
    """As the kernel and a shell have to find it: no byte order mark before a first line that is for the kernel, no
    carriage returns there, nor anywhere in a shell script. Python and most others read such files as they are.

    What holds a NUL is no text but an archive behind a script, and stays as it is."""
    if b"\0" in content:
        return content
    bare = content.removeprefix(_BOM)
    first, newline, rest = bare.partition(b"\n")
    for_kernel = first.startswith(_MARK)
    if _is_shell(first) if for_kernel else interpreters(name) is SHELL:
        return bare.replace(b"\r\n", b"\n")
    return first.removesuffix(b"\r") + newline + rest if for_kernel else content


def _is_shell(first: bytes) -> bool:
    """By the interpreter that the first line names: itself, or what `env` looks up."""
    names = [word.rpartition(b"/")[2] for word in first.removeprefix(_MARK).split()]
    if names[:1] == [b"env"]:
        names = [name for name in names[1:] if not name.startswith(b"-") and b"=" not in name]
    return bool(names) and names[0] in _SHELLS
