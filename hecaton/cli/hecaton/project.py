"""`hecaton.toml` in the folder where `hecaton run` is typed: what one would type there each time."""

from __future__ import annotations

import json
import os
import re
import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import msgspec

from hecaton.cli.duration import Duration
from hecaton.cli.hecaton.context import is_address
from hecaton.cli.hecaton.jobs.options import OF_SCRIPTS
from hecaton.cli.suggestions import did_you_mean
from hecaton.core.errors import BadRequest
from hecaton.core.files import mounts
from hecaton.core.option_kinds import Option, ValueKind

FILE = "hecaton.toml"

_OPTIONS: Mapping[str, Option] = {option.flag.removeprefix("--"): option for option in OF_SCRIPTS}

KEYS = ("image", "name", "server", "tags", "exclude", *_OPTIONS)

_BARE = re.compile(r"[A-Za-z0-9_-]+")


class Project(msgspec.Struct, frozen=True):
    """`options`: by their names in `core.options`. Empty where there is no file."""

    image: str | None = None
    name: str | None = None
    server: str | None = None  # as it is called here: an address that came with somebody's files would get one's token
    tags: dict[str, str] = {}
    options: dict[str, Any] = {}
    exclude: tuple[str, ...] = ()  # of the folder: what stays here, in the words of .gitignore


def read(folder: Path) -> Project:
    """BadRequest names the line that makes no sense."""
    text, values = _loaded(folder / FILE)
    return _checked(values, text)


def _loaded(path: Path) -> tuple[str, dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
        return text, tomllib.loads(text)
    except FileNotFoundError:
        return "", {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise BadRequest(f"{FILE} cannot be read: {error}") from None


def _checked(values: Mapping[str, Any], text: str) -> Project:
    found: dict[str, Any] = {}
    options: dict[str, Any] = {}
    for key, value in values.items():
        where = f"{FILE}, line {_line_of(key, text)}"
        if key not in KEYS:
            raise BadRequest(f"{where}: there is no key {key!r}.{did_you_mean(key, KEYS)}", f"Keys: {', '.join(KEYS)}.")
        if key in _OPTIONS:
            options[_OPTIONS[key].name] = _option(_OPTIONS[key], value, where)
        elif key == "tags":
            found[key] = _texts(value, f"{where}: {key}")
        elif key == "exclude":
            if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
                raise BadRequest(f"{where}: exclude has to be a list of texts", 'Write ["data/", "*.ckpt"].')
            found[key] = tuple(value)
        elif not isinstance(value, str) or not value:
            raise BadRequest(f"{where}: {key} has to be a text in quotes")
        else:
            found[key] = value
    if is_address(found.get("server", "")):
        raise BadRequest(
            f"{FILE}, line {_line_of('server', text)}: server is an address", "Write its name: hecaton server list"
        )
    return Project(**found, options=options)


def _option(option: Option, value: Any, where: str) -> Any:
    if option.kind is ValueKind.SECONDS and isinstance(value, str):
        try:
            value = Duration().convert(value, None, None)
        except click.BadParameter as error:
            raise BadRequest(f"{where}: {error.message}") from None
    if option.kind is ValueKind.VARIABLES:
        value = _texts(value, f"{where}: {option.name}")
    if option.kind is ValueKind.MOUNTS and isinstance(value, list) and all(isinstance(one, str) for one in value):
        value = mounts.asked(value)
    if not option.allows(value):
        fault = option.fault(value)
        hint = None if fault is None else fault.hint
        raise BadRequest(f"{where}: {option.name} is {value!r}: expected {option.expected}", hint)
    return value


def _texts(value: Any, where: str) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(one, str) for one in value.values()):
        raise BadRequest(f"{where} has to be a table of texts", 'Write { KEY = "value" }, numbers in quotes too.')
    return value


def _line_of(key: str, text: str) -> int:
    spelt = re.compile(rf"""\s*\[?\s*["']?{re.escape(key)}["']?\s*[=.\]]""")
    return next((number for number, line in enumerate(text.splitlines(), 1) if spelt.match(line)), 1)


# -- written ---------------------------------------------------------------------------------------


def save(folder: Path, project: Project) -> Path:
    """What is in `project`, each in a line, tags and variables beside those that are there; all else in the file stays.
    BadRequest if that cannot be done."""
    path = folder / FILE
    text, there = _loaded(path)
    values = {key: _beside(there.get(key), value) for key, value in _values(project).items()}
    lines = {key: f"{key} = {_toml(value)}" for key, value in values.items()}
    try:
        for key, line in lines.items():
            text = _with_line(text, key, line)
        done = tomllib.loads(text) == {**there, **values}
    except tomllib.TOMLDecodeError:
        done = False
    if not done:
        raise BadRequest(
            f"{FILE} is written in a way that --save does not change",
            f"Write there yourself: {'; '.join(lines.values())}",
        )
    try:
        _replace(path, text.encode())
    except OSError as error:
        raise BadRequest(f"cannot write {path}: {error.strerror or error}") from None
    return path


def _replace(path: Path, content: bytes) -> None:
    """The old content or the new one is there, whatever happens. What a link points to is replaced, not the link."""
    target = Path(os.path.realpath(path))
    descriptor, unfinished = tempfile.mkstemp(dir=target.parent, prefix=f".{FILE}-")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(descriptor)
        os.chmod(unfinished, target.stat().st_mode & 0o777 if target.exists() else 0o644)
        os.replace(unfinished, target)
    except BaseException:
        os.unlink(unfinished)
        raise


def _beside(there: Any, value: Any) -> Any:
    return {**there, **value} if isinstance(there, dict) and isinstance(value, dict) else value


def _with_line(text: str, key: str, line: str) -> str:
    """In the place of that with this key, or as the last one before the first table."""
    spelt = re.compile(rf"^{re.escape(key)}[ \t]*=.*$", re.MULTILINE)
    table = re.search(r"^\s*\[", text, re.MULTILINE)
    head, tables = (text, "") if table is None else (text[: table.start()], text[table.start() :])
    if spelt.search(head):
        return spelt.sub(lambda _: line, head, count=1) + tables
    return f"{head}{'' if not head or head.endswith(chr(10)) else chr(10)}{line}\n{tables}"


def _values(project: Project) -> dict[str, Any]:
    plain = {"image": project.image, "name": project.name, "server": project.server, "tags": project.tags or None}
    asked = {key: project.options.get(option.name) for key, option in _OPTIONS.items()}
    return {key: value for key, value in {**plain, **asked}.items() if value is not None}


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        pairs = ", ".join(f"{key if _BARE.fullmatch(key) else _toml(key)} = {_toml(one)}" for key, one in value.items())
        return f"{{ {pairs} }}"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
