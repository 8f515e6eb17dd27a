"""Who may import whom, and how large things may grow: the picture of docs/architecture.md, held by a test."""

from __future__ import annotations

import ast
import graphlib
import re
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = REPOSITORY / "hecaton"

ROOM_FILES = 12
MODULE_LINES = 400
FUNCTION_LINES = 60

# Part -> the parts that it may import beside itself. A dotted name allows that module alone.
MAY_IMPORT: dict[str, set[str]] = {
    "serverless": set(),
    "core": set(),
    "wire": {"core"},
    "store": {"core"},
    "client": {"core", "wire"},
    "server": {"core", "wire", "store"},
    "worker": {"core", "wire", "serverless.protocol"},
    "testing": {"serverless", "core", "wire", "store", "client", "server", "worker"},
    "cli": {
        "core",
        "wire",
        "store",
        "client",
        "server",
        "worker",
        "testing",
        "serverless",
    },  # the demo brings a handler
    "_entry": {"cli"},
}
# The core computes. Whatever reads a clock, a file, a socket or a die is not on this list.
PURE = {
    "__future__", "abc", "bisect", "collections", "dataclasses", "enum", "functools", "hashlib", "heapq",
    "itertools", "json", "math", "msgspec", "operator", "re", "types", "typing",
}  # fmt: skip
# What runs in users' images.
ON_PYTHON_38 = ["hecaton", "hecaton._entry", "hecaton.cli.hecaton.demo.handler", "hecaton.serverless"]
NEWER_THAN_38 = {"graphlib", "tomllib", "zoneinfo"}


@cache
def _modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(REPOSITORY).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def _statements(tree: ast.AST) -> Iterator[ast.stmt]:
    """The statements that run on import: not those in functions, nor those for type checkers only."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.stmt):
            yield node
        yield from _statements(node)


def _imported(nodes: Iterable[ast.AST]) -> set[str]:
    """Dotted names that the nodes import; `from package import module` counts as the module."""
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = node.module or ""
            inner = {f"{origin}.{alias.name}" for alias in node.names}
            names.update({name if name in _modules() else origin for name in inner})
    return names


def _all_imports(module: str) -> set[str]:
    return _imported(ast.walk(_tree(_modules()[module])))


def _is_in(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


@pytest.mark.parametrize("part", sorted(MAY_IMPORT))
def test_a_part_imports_only_the_parts_below_it(part: str) -> None:
    allowed = {"hecaton", *(f"hecaton.{name}" for name in MAY_IMPORT[part])}
    wrong = []
    for module in (name for name in _modules() if _is_in(name, f"hecaton.{part}")):
        for name in _all_imports(module):
            ours = _is_in(name, "hecaton") and not _is_in(name, f"hecaton.{part}")
            if ours and not any(name == one or (one != "hecaton" and _is_in(name, one)) for one in allowed):
                wrong.append(f"{module} imports {name}")
    assert wrong == []


def test_every_part_has_a_rule() -> None:
    parts = {name.split(".")[1] for name in _modules() if "." in name}
    assert parts - set(MAY_IMPORT) == set()


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {
        module: {name for name in _imported(_statements(_tree(path))) if name in _modules() and name != module}
        for module, path in _modules().items()
    }
    graphlib.TopologicalSorter(graph).prepare()


def test_imports_are_absolute() -> None:
    relative = [
        f"{module}: line {node.lineno}"
        for module, path in _modules().items()
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.ImportFrom) and node.level > 0
    ]
    assert relative == []


def test_the_core_is_pure() -> None:
    impure = [
        f"{module} imports {name}"
        for module in _modules()
        if _is_in(module, "hecaton.core")
        for name in _all_imports(module)
        if name.split(".")[0] not in PURE and not _is_in(name, "hecaton.core")
    ]
    assert impure == []


def _modules_in_images() -> list[str]:
    return [name for name in _modules() if name in ON_PYTHON_38 or _is_in(name, "hecaton.serverless")]


def test_what_runs_in_images_is_written_for_python_3_8() -> None:
    assert "hecaton.serverless" in _modules_in_images()
    for module in _modules_in_images():
        ast.parse(_modules()[module].read_text(), module, feature_version=(3, 8))


def test_what_runs_in_images_needs_the_standard_library_only() -> None:
    available = (sys.stdlib_module_names - NEWER_THAN_38) | {"hecaton"}
    foreign = [
        f"{module} imports {name}"
        for module in _modules_in_images()
        for name in _imported(_statements(_tree(_modules()[module])))
        if name.split(".")[0] not in available
    ]
    assert foreign == []


def _rooms() -> dict[str, Path]:
    """Every folder with modules; the package's own holds the version and nothing else."""
    return {str(path.parent.relative_to(PACKAGE)): path.parent for path in PACKAGE.rglob("__init__.py")} | {
        ".": PACKAGE
    }


def test_a_room_has_twelve_files_at_most() -> None:
    files = {name: [path.stem for path in folder.glob("*.py")] for name, folder in _rooms().items()}
    assert {name: found for name, found in files.items() if len(set(found) - {"__init__"}) > ROOM_FILES} == {}


@pytest.mark.parametrize("room", sorted(set(_rooms()) - {"."}))
def test_a_room_says_in_a_line_what_each_of_its_modules_is(room: str) -> None:
    folder = _rooms()[room]
    said = re.findall(r"^- `([a-z_]+/?)`: ", ast.get_docstring(_tree(folder / "__init__.py")) or "", re.MULTILINE)
    modules = [path.stem for path in folder.glob("*.py") if path.name != "__init__.py"]
    rooms = [f"{path.parent.name}/" for path in folder.glob("*/__init__.py")]
    assert sorted(said) == sorted(modules + rooms)


def test_modules_stay_readable() -> None:
    lines = {name: path.read_text().count("\n") for name, path in _modules().items()}
    assert {name: count for name, count in lines.items() if count > MODULE_LINES} == {}


def test_functions_stay_readable() -> None:
    long = [
        f"{module}.{node.name}: {(node.end_lineno or 0) - node.lineno + 1} lines"
        for module, path in _modules().items()
        for node in ast.walk(_tree(path))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and (node.end_lineno or 0) - node.lineno + 1 > FUNCTION_LINES
    ]
    assert long == []
