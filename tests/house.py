"""The house's rules, each a function of the sources that says what breaks it. Held by tests/test_architecture.py."""

from __future__ import annotations

import ast
import graphlib
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path

ROOM_FILES = 12
MODULE_LINES = 400
FUNCTION_LINES = 60
PARAMETERS = 7
# Called by people, with keywords: the payload alone comes in three forms.
LONG_CALLS = {"hecaton.client.nouns.jobs.submit"}

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
    "__future__", "abc", "bisect", "collections", "dataclasses", "difflib", "enum", "functools", "hashlib", "heapq",
    "itertools", "json", "math", "msgspec", "operator", "re", "types", "typing",
}  # fmt: skip
# What runs in users' images.
ON_PYTHON_38 = ["hecaton", "hecaton._entry", "hecaton.cli.hecaton.demo.handler", "hecaton.serverless"]
NEWER_THAN_38 = {"graphlib", "tomllib", "zoneinfo"}


class House:
    """`sources`: text of every module by its path below the package's folder: `server/app.py`."""

    def __init__(self, sources: Mapping[str, str]) -> None:
        self.sources = dict(sources)

    @classmethod
    def at(cls, package: Path) -> House:
        return cls({path.relative_to(package).as_posix(): path.read_text() for path in sorted(package.rglob("*.py"))})

    @cached_property
    def modules(self) -> dict[str, str]:
        """Path of every module by its dotted name."""
        names = {}
        for path in self.sources:
            parts = ["hecaton", *path.removesuffix(".py").split("/")]
            names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
        return names

    @cached_property
    def trees(self) -> dict[str, ast.Module]:
        return {module: ast.parse(self.sources[path], path) for module, path in self.modules.items()}

    def imports(self, module: str) -> set[str]:
        """Everywhere in it, functions included."""
        return self._imported(ast.walk(self.trees[module]))

    def imports_when_loaded(self, module: str) -> set[str]:
        return self._imported(_statements(self.trees[module]))

    def _imported(self, nodes: Iterable[ast.AST]) -> set[str]:
        """Dotted names that the nodes import; `from package import module` counts as the module."""
        names: set[str] = set()
        for node in nodes:
            if isinstance(node, ast.Import):
                names.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                origin = node.module or ""
                inner = {f"{origin}.{alias.name}" for alias in node.names}
                names.update({name if name in self.modules else origin for name in inner})
        return names

    @cached_property
    def rooms(self) -> dict[str, list[str]]:
        """Names of the modules in each folder, `.` being the package's own; without `__init__`."""
        rooms: dict[str, list[str]] = {}
        for path in self.sources:
            folder, _, file = path.rpartition("/")
            rooms.setdefault(folder or ".", []).extend([file.removesuffix(".py")] if file != "__init__.py" else [])
        return rooms

    def room_of(self, module: str) -> str | None:
        """None for the package's own folder."""
        return self.modules[module].rpartition("/")[0] or None

    @cached_property
    def arrows(self) -> dict[str, set[str]]:
        """Room -> the rooms that its modules import from."""
        arrows: dict[str, set[str]] = {}
        for module in self.modules:
            here = self.room_of(module)
            there = {self.room_of(name) for name in self.imports(module) if name in self.modules}
            if here is not None:
                arrows.setdefault(here, set()).update(room for room in there if room not in (None, here))
        return arrows


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


def _functions(house: House) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for module, tree in house.trees.items():
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield module, node


def _is_in(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


# -- the rules -------------------------------------------------------------------------------------


def a_part_imports_only_the_parts_below_it(house: House) -> list[str]:
    wrong = []
    for part, below in MAY_IMPORT.items():
        allowed = {f"hecaton.{name}" for name in below}
        for module in (name for name in house.modules if _is_in(name, f"hecaton.{part}")):
            for name in sorted(house.imports(module)):
                ours = _is_in(name, "hecaton") and name != "hecaton" and not _is_in(name, f"hecaton.{part}")
                if ours and not any(_is_in(name, one) for one in allowed):
                    wrong.append(f"{module} imports {name}")
    return wrong


def every_part_has_a_rule(house: House) -> list[str]:
    return sorted({name.split(".")[1] for name in house.modules if "." in name} - set(MAY_IMPORT))


def no_modules_import_each_other_in_a_circle(house: House) -> list[str]:
    return _circle(
        {
            module: {name for name in house.imports_when_loaded(module) if name in house.modules and name != module}
            for module in house.modules
        }
    )


def _circle(graph: Mapping[str, set[str]]) -> list[str]:
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return [" <- ".join(error.args[1])]
    return []


def imports_are_absolute(house: House) -> list[str]:
    return [
        f"{module}: line {node.lineno}"
        for module, tree in house.trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level > 0
    ]


def the_core_is_pure(house: House) -> list[str]:
    return [
        f"{module} imports {name}"
        for module in house.modules
        if _is_in(module, "hecaton.core")
        for name in sorted(house.imports(module))
        if name.split(".")[0] not in PURE and not _is_in(name, "hecaton.core")
    ]


def _in_images(house: House) -> list[str]:
    return [name for name in house.modules if name in ON_PYTHON_38 or _is_in(name, "hecaton.serverless")]


def what_runs_in_images_is_written_for_python_3_8(house: House) -> list[str]:
    wrong = []
    for module in _in_images(house):
        try:
            ast.parse(house.sources[house.modules[module]], module, feature_version=(3, 8))
        except SyntaxError as error:
            wrong.append(f"{module}: {error}")
    return wrong


def what_runs_in_images_needs_the_standard_library_only(house: House) -> list[str]:
    available = (sys.stdlib_module_names - NEWER_THAN_38) | {"hecaton"}
    return [
        f"{module} imports {name}"
        for module in _in_images(house)
        for name in sorted(house.imports_when_loaded(module))
        if name.split(".")[0] not in available
    ]


def a_room_has_twelve_files_at_most(house: House) -> list[str]:
    return [f"{room}: {len(files)} files" for room, files in house.rooms.items() if len(files) > ROOM_FILES]


def a_room_says_in_a_line_what_each_of_its_modules_is(house: House) -> list[str]:
    """The package's own folder is no room: what is in its `__init__` runs in every container."""
    wrong = []
    for room, modules in house.rooms.items():
        if room != ".":
            head = house.sources.get(f"{room}/__init__.py", "")
            said = re.findall(r"^- `([a-z_]+/?)`: ", ast.get_docstring(ast.parse(head)) or "", re.MULTILINE)
            inner = [f"{one.removeprefix(f'{room}/')}/" for one in house.rooms if one.rpartition("/")[0] == room]
            if sorted(said) != sorted(modules + inner):
                wrong.append(f"{room}/__init__.py: {sorted(set(said) ^ {*modules, *inner})}")
    return wrong


def modules_stay_readable(house: House) -> list[str]:
    lines = {path: text.count("\n") for path, text in house.sources.items()}
    return [f"{path}: {count} lines" for path, count in lines.items() if count > MODULE_LINES]


def functions_stay_readable(house: House) -> list[str]:
    lines = [(module, node, (node.end_lineno or 0) - node.lineno + 1) for module, node in _functions(house)]
    return [f"{module}.{node.name}: {count} lines" for module, node, count in lines if count > FUNCTION_LINES]


FETCHING = {"_first", "_sql", "execute", "fetchall", "fetchone", "first", "run"}
LONGEST_UNPACKED = 4


def rows_of_the_store_are_read_by_name(house: House) -> list[str]:
    """A row is what a call of `FETCHING` gives, what a `Row` or `row` as an argument is, and what is made of these by
    assignment, loop or index. Not by number; and unpacked into names only while they can be counted at a glance."""
    wrong = []
    for module, tree in house.trees.items():
        if _is_in(module, "hecaton.store"):
            for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
                wrong += [f"{module}.{function.name}: line {line}" for line in _read_by_number(function)]
    return sorted(set(wrong))


def _read_by_number(function: ast.FunctionDef) -> Iterator[int]:
    fetched = {
        one.arg
        for one in function.args.args
        if one.arg == "row" or (one.annotation is not None and "Row" in ast.unparse(one.annotation).split("["))
    }

    def is_fetched(value: ast.expr) -> bool:
        if isinstance(value, ast.Name):
            return value.id in fetched
        if isinstance(value, ast.Subscript):
            return is_fetched(value.value)
        return isinstance(value, ast.Call) and (
            (isinstance(value.func, ast.Attribute) and value.func.attr in FETCHING)
            or (isinstance(value.func, ast.Name) and any(is_fetched(one) for one in value.args))  # sorted(rows)
        )

    bound = list(_bound(function))
    for _ in bound:  # a name may be bound to one that is found out later
        fetched |= {target.id for target, value in bound if isinstance(target, ast.Name) and is_fetched(value)}
    for target, value in bound:
        if isinstance(target, ast.Tuple) and len(target.elts) > LONGEST_UNPACKED and is_fetched(value):
            yield target.lineno
    for node in ast.walk(function):
        if isinstance(node, ast.Subscript) and is_fetched(node.value) and _is_number(node.slice):
            yield node.lineno


def _bound(function: ast.FunctionDef) -> Iterator[tuple[ast.expr, ast.expr]]:
    """What is bound to what: assignments, loops, comprehensions."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assign):
            yield from ((target, node.value) for target in node.targets)
        elif isinstance(node, (ast.AnnAssign, ast.NamedExpr)) and node.value is not None:
            yield node.target, node.value
        elif isinstance(node, (ast.For, ast.comprehension)):
            yield node.target, node.iter


def _is_number(index: ast.expr) -> bool:
    if isinstance(index, ast.UnaryOp):
        return _is_number(index.operand)
    return isinstance(index, ast.Constant) and isinstance(index.value, int)


# One thing seen from two floors: use case, port and wire. And what the worker's brain is told and orders: `ev.Event`,
# `ev.Action`.
SAME_ON_TWO_FLOORS = {"Jobs", "Batches", "NewJob", "NewBatch", "Event", "Action"}


def a_name_is_one_class(house: House) -> list[str]:
    """No two classes share a name, but what runs in users' images has names of its own."""
    places: dict[str, list[str]] = {}
    for module, tree in house.trees.items():
        if not _is_in(module, "hecaton.serverless"):
            for node in ast.walk(tree):
                if isinstance(node, ast.ClassDef):
                    places.setdefault(node.name.lstrip("_"), []).append(module)
    return [
        f"{name}: {', '.join(modules)}"
        for name, modules in places.items()
        if len(modules) > 1 and name not in SAME_ON_TWO_FLOORS
    ]


def _is_command(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Of click, which hands in every option of the command line by its name."""
    return any(ast.unparse(decorator) == "pass_cli" for decorator in function.decorator_list)


def calls_stay_short(house: House) -> list[str]:
    """What belongs together travels together: no function takes more than seven things beside `self`."""
    wrong = []
    for module, node in _functions(house):
        if _is_command(node):
            continue
        taken = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
        count = len(taken) - (taken[:1] in (["self"], ["cls"]))
        if count > PARAMETERS and f"{module}.{node.name}" not in LONG_CALLS:
            wrong.append(f"{module}.{node.name}: {count} parameters")
    return wrong


# Where it may matter which way of speaking to a container is meant.
ON_MODES = ("core/model.py", "core/doors.py", "worker/doors/")


def _of_mode(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and ast.unparse(node.value).rpartition(".")[2] == "Mode"


def _is_called_mode(node: ast.AST) -> bool:
    """`job.mode`, `mode`, also behind `str(...)`, `.value` and the like."""
    return any(
        name.lower() == "mode"
        for part in ast.walk(node)
        for name in (
            [part.attr] if isinstance(part, ast.Attribute) else [part.id] if isinstance(part, ast.Name) else []
        )
    )


def _named_to_ask_for_it(tree: ast.Module) -> set[ast.AST]:
    """Modes as the default of a field or argument, as a keyword's value, or in what a runtime says that it can."""
    named: set[ast.AST | None] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.arguments):
            named.update([*node.defaults, *node.kw_defaults])
        elif isinstance(node, ast.AnnAssign) or (isinstance(node, ast.keyword) and node.arg == "mode"):
            named.add(node.value)
        elif isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["doors"]:
            named.update(ast.walk(node.value))
    return {node for node in named if node is not None}


def _asks_which_way(node: ast.AST) -> bool:
    """A mode compared with a word or matched; a door asked of what class it is, or imported by its class."""
    if isinstance(node, ast.Compare):
        words = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant)]
        return _is_called_mode(node) and any(isinstance(word, str) for word in words)
    if isinstance(node, ast.Match):
        return _is_called_mode(node.subject)
    if isinstance(node, ast.ImportFrom):
        return any(re.fullmatch(r"[A-Z]\w+Door", alias.name) for alias in node.names)
    asked = isinstance(node, ast.Call) and ast.unparse(node.func) in ("isinstance", "type")
    return asked and re.search(r"[dD]oor\b", ast.unparse(node)) is not None


def only_doors_know_the_ways_of_speaking_to_a_container(house: House) -> list[str]:
    """Everybody else asks a row of `core.doors`, or the door itself."""
    wrong = []
    for module, tree in house.trees.items():
        if not house.modules[module].startswith(ON_MODES):
            named = _named_to_ask_for_it(tree)
            found = [node for node in ast.walk(tree) if (_of_mode(node) and node not in named) or _asks_which_way(node)]
            wrong += [f"{module}: line {getattr(node, 'lineno', 0)}: {ast.unparse(node)}" for node in found]
    return wrong


def rooms_look_into_each_other_in_no_circle(house: House) -> list[str]:
    """But for the hall of a part or room, the folder around it: from there all is put together, and what all need is
    there."""

    def is_hall(one: str, other: str) -> bool:
        return other.startswith(f"{one}/")

    inner = {
        room: {other for other in others if not is_hall(room, other) and not is_hall(other, room)}
        for room, others in house.arrows.items()
    }
    return _circle(inner)


def picture(house: House) -> str:
    """The rooms, and after each the rooms that it looks into: drawn in docs/architecture.md."""
    width = max(map(len, house.arrows), default=0)
    lines = (f"{room:{width}}  ->  {', '.join(sorted(others))}" for room, others in sorted(house.arrows.items()))
    return "\n".join(line.rstrip(" ->") for line in lines)


Rule = Callable[[House], list[str]]

# Each with sources that break it, and nothing else of it.
RULES: dict[Rule, dict[str, str]] = {
    a_part_imports_only_the_parts_below_it: {
        "server/a.py": "def late():\n    from hecaton.worker import b\n",
        "worker/b.py": "",
    },
    every_part_has_a_rule: {"attic/a.py": ""},
    no_modules_import_each_other_in_a_circle: {
        "core/a.py": "from hecaton.core import b",
        "core/b.py": "import hecaton.core.a",
    },
    imports_are_absolute: {"core/a.py": "from . import b"},
    the_core_is_pure: {"core/a.py": "import time"},
    what_runs_in_images_is_written_for_python_3_8: {"serverless/a.py": "match 1:\n    case _: pass"},
    what_runs_in_images_needs_the_standard_library_only: {"serverless/a.py": "import msgspec"},
    a_room_has_twelve_files_at_most: {f"core/{name}.py": "" for name in "abcdefghijklm"},
    a_room_says_in_a_line_what_each_of_its_modules_is: {
        "core/__init__.py": '"""The core.\n\n- `a`: One.\n- `gone`: Two.\n"""',
        "core/a.py": "",
    },
    only_doors_know_the_ways_of_speaking_to_a_container: {"server/a.py": "if job.mode is Mode.SCRIPT: pass"},
    rooms_look_into_each_other_in_no_circle: {
        "server/jobs/a.py": "import hecaton.server.web.b",
        "server/web/b.py": "def late():\n    import hecaton.server.jobs.c",
        "server/jobs/c.py": "",
    },
    modules_stay_readable: {"core/a.py": "\n" * (MODULE_LINES + 1)},
    functions_stay_readable: {"core/a.py": "def f():\n" + "    pass\n" * FUNCTION_LINES},
    rows_of_the_store_are_read_by_name: {
        "store/a.py": "def f(self):\n    rows = self._sql('').fetchall()\n    return [one[2] for one in rows]\n"
    },
    a_name_is_one_class: {"core/a.py": "class Link: ...", "server/a.py": "class _Link: ..."},
    calls_stay_short: {"core/a.py": "class A:\n    def __init__(self, a, b, c, d, e, f, *, g, h): ..."},
}
