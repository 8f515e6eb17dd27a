"""What can be seen of a Python file before it travels: whether it calls `start()`, and what it imports that does not
travel with it."""

from __future__ import annotations

import ast
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import msgspec

LARGEST = 1024 * 1024
"""Bytes of a file that are read for it; larger ones were written by programs."""

_SERVERLESS = "hecaton.serverless"
_COMES_ALONG = frozenset({"hecaton"})


class PythonFile(msgspec.Struct, frozen=True):
    """`starts_at_once`: it calls `start()` whenever it is run; `names_start`: it may call it. `local`: modules that it
    imports and that lie beside it; `foreign`: those that are neither beside it nor in Python's own library. Imports
    that it can do without (in a `try`) do not count."""

    starts_at_once: bool
    names_start: bool
    local: tuple[str, ...]
    foreign: tuple[str, ...]


def look(path: str | os.PathLike[str]) -> PythonFile | None:
    """None: it is no Python, cannot be read here, or is too large to be worth it."""
    try:
        with open(path, "rb") as file:
            text = file.read(LARGEST + 1)
        if len(text) > LARGEST:
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about somebody else's code
            tree = ast.parse(text)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    called = frozenset(_names_of_start(tree))
    imported = sorted(set(_imports(tree.body)))
    beside = Path(path).absolute().parent
    local = tuple(name for name in imported if _is_beside(beside, name, Path(path).name))
    known = {*local, *_COMES_ALONG, *sys.stdlib_module_names, *sys.builtin_module_names}
    return PythonFile(
        starts_at_once=any(_calls(statement, called) for statement in _at_once(tree.body)),
        names_start=bool(called),
        local=local,
        foreign=tuple(name for name in imported if name not in known),
    )


def _names_of_start(tree: ast.Module) -> Iterator[str]:
    """What `hecaton.serverless.start` is called in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == _SERVERLESS:
            yield from (one.asname or one.name for one in node.names if one.name in ("start", "*"))
        elif isinstance(node, ast.ImportFrom) and node.module == "hecaton":
            yield from (f"{one.asname or one.name}.start" for one in node.names if one.name == "serverless")
        elif isinstance(node, ast.Import):
            yield from (f"{one.asname or one.name}.start" for one in node.names if one.name == _SERVERLESS)


def _at_once(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run when the file is run as a program."""
    for statement in body:
        guard = isinstance(statement, ast.If) and ast.unparse(statement.test) == "__name__ == '__main__'"
        if guard or isinstance(statement, ast.With):
            assert isinstance(statement, ast.If | ast.With)
            yield from _at_once(statement.body)
        else:
            yield statement


def _calls(statement: ast.stmt, names: frozenset[str]) -> bool:
    call = statement.value if isinstance(statement, ast.Expr) else None
    if not isinstance(call, ast.Call):
        return False
    name = ast.unparse(call.func)
    return name in names or (name == "start" and "*" in names)


def _imports(body: list[ast.stmt]) -> Iterator[str]:
    """First parts of the names of modules that are imported when the file is run."""
    for statement in _at_once(body):
        if isinstance(statement, ast.Import):
            yield from (one.name.partition(".")[0] for one in statement.names)
        elif isinstance(statement, ast.ImportFrom):
            name = (statement.module or "").partition(".")[0]
            yield from [name] if name else [one.name for one in statement.names]


def _is_beside(folder: Path, name: str, file: str) -> bool:
    if f"{name}.py" == file or name in sys.builtin_module_names:
        return False
    module, package = folder / f"{name}.py", folder / name
    return module.is_file() or (package / "__init__.py").is_file() or any(package.glob("*.py"))
