"""What a user may ask of a job besides payload and file, each option once: its name, type, default, bounds and help,
what it changes, and who carries it out.

Requests, stored jobs, assignments and containers carry `Options` whole. Flags of the command line, keywords of the SDK,
fields of the API and their descriptions, lanes and warm keys, and what workers say that they can do are made from this
file. So a new option is a field here, and the one place that acts on it.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterable, Mapping
from operator import attrgetter
from typing import Annotated, Any, get_args

import msgspec

from hecaton.core.errors import BadRequest
from hecaton.core.files import mounts
from hecaton.core.option_kinds import LONGEST, MAX_VARIABLES, Changes, Option, ValueKind, shown
from hecaton.core.placement.needs import MAX_CARDS, needs_of

MAX_CPUS = 1024
"""Of one job."""


def _asks(kind: ValueKind, text: str, **facts: Any) -> msgspec.Meta:
    """The bounds stand in the API's description; it is `check` that holds them, for its sentences."""
    option = Option(kind, text, **facts)
    schema: dict[str, Any] = {}
    if kind is ValueKind.SECONDS:
        schema = {"exclusiveMinimum": 0, "maximum": LONGEST}
    elif kind is ValueKind.WHOLE:
        schema = {"minimum": option.low, "maximum": option.high}
    elif kind is ValueKind.NUMBER:
        schema = {"exclusiveMinimum": option.low, "maximum": option.high}
    elif kind is ValueKind.WORD:
        schema = {"enum": list(option.words)}
    elif kind is ValueKind.VARIABLES:
        schema = {"maxProperties": MAX_VARIABLES}
    elif kind is ValueKind.MOUNTS:
        schema = {"maxProperties": mounts.MAX_MOUNTS}
    return msgspec.Meta(description=text, extra_json_schema=schema, extra={"option": option})


class Options(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Stored as it was asked; what is not in it is at its default."""

    timeout: Annotated[
        float | None, _asks(ValueKind.SECONDS, "Longest time to run, then it fails.", by_worker=True, label="time-out")
    ] = None
    retries: Annotated[int, _asks(ValueKind.WHOLE, "Further attempts when the handler fails.", high=100)] = 0
    priority: Annotated[
        int, _asks(ValueKind.WHOLE, "Of your own jobs, higher goes first.", low=-1000, high=1000, label="priority")
    ] = 0
    queue_ttl: Annotated[
        float | None, _asks(ValueKind.SECONDS, "Longest time to wait in the queue, then it fails.", label="queue ttl")
    ] = None
    no_overlap: Annotated[
        bool,
        _asks(
            ValueKind.FLAG, "Never in two places at once: a worker that loses the server stops it.",
            by_worker=True, label="no overlap", meaning="a worker that loses the server stops it",
        ),
    ] = False  # fmt: skip
    entrypoint: Annotated[
        str,
        _asks(
            ValueKind.WORD, "Whether the image's ENTRYPOINT runs the command: none leaves it out.",
            words=("image", "none"), changes=Changes.CONTAINER, by_worker=True, label="entrypoint",
        ),
    ] = "image"  # fmt: skip
    startup_timeout: Annotated[
        float | None,
        _asks(
            ValueKind.SECONDS, "Longest time until its container asks for work; by default its image's or worker's.",
            by_worker=True, by_image=True, label="start-up time-out",
        ),
    ] = None  # fmt: skip
    env: Annotated[
        dict[str, str],
        _asks(
            ValueKind.VARIABLES, "Of its container's environment, besides that of the image.",
            changes=Changes.CONTAINER, by_worker=True, label="environment",
        ),
    ] = {}  # fmt: skip
    protocol: Annotated[
        str,
        _asks(
            ValueKind.WORD, "How its image is spoken to: native calls start(), http is a server.",
            words=("native", "http"), by_image=True,
        ),
    ] = "native"  # fmt: skip
    port: Annotated[
        int,
        _asks(
            ValueKind.WHOLE, "On which an http image listens.", low=1, high=65535, changes=Changes.CONTAINER,
            by_worker=True, by_image=True, label="port",
        ),
    ] = 8000  # fmt: skip
    ready: Annotated[
        str | None,
        _asks(
            ValueKind.PATH, "What an http image answers with 2xx once it is ready; by default it is when it listens.",
            changes=Changes.CONTAINER, by_worker=True, by_image=True, label="ready",
        ),
    ] = None  # fmt: skip
    path: Annotated[
        str,
        _asks(
            ValueKind.PATH, "Where an http image gets payloads that name no path.", by_worker=True, by_image=True,
            label="path",
        ),
    ] = "/"  # fmt: skip
    mount: Annotated[
        dict[str, str],
        _asks(
            ValueKind.MOUNTS, "Folders of the machine, by the names that its admins gave them, and where they appear.",
            changes=Changes.PLACEMENT | Changes.CONTAINER, by_worker=True, label="mounts",
        ),
    ] = {}  # fmt: skip
    cpus: Annotated[
        float | None,
        _asks(
            ValueKind.NUMBER, "CPUs that it gets, and no more; without it, what others leave.", high=MAX_CPUS,
            changes=Changes.PLACEMENT | Changes.CONTAINER, by_worker=True, by_image=True, label="CPUs",
        ),
    ] = None  # fmt: skip
    memory: Annotated[
        str | None,
        _asks(
            ValueKind.SIZE, "RAM that it gets, and no more, such as 24G; by default all but a reserve of the machine.",
            changes=Changes.PLACEMENT | Changes.CONTAINER, by_worker=True, by_image=True, label="memory",
        ),
    ] = None  # fmt: skip
    shm: Annotated[
        str | None,
        _asks(
            ValueKind.SIZE, "Of /dev/shm, which data loaders share, such as 8G; by default its worker's --shm-size.",
            changes=Changes.CONTAINER, by_worker=True, by_image=True, label="shm",
        ),
    ] = None  # fmt: skip
    gpus: Annotated[
        int | None,
        _asks(
            ValueKind.WHOLE, "Whole cards for it alone, 0 for none; by default one where there are cards.",
            high=MAX_CARDS, changes=Changes.PLACEMENT, by_worker=True, by_image=True, label="cards",
        ),
    ] = None  # fmt: skip
    gpu: Annotated[
        str | None,
        _asks(
            ValueKind.MODELS, "Models of cards that will do, by parts of their names (a100,h100); by default any.",
            changes=Changes.PLACEMENT, by_worker=True, by_image=True, label="card",
        ),
    ] = None  # fmt: skip
    vram: Annotated[
        str | None,
        _asks(
            ValueKind.SIZE,
            "Memory of a card that it needs, the rest is for others (24G); with --gpus: of each whole card."
            " By default a whole card.",
            changes=Changes.PLACEMENT, by_worker=True, by_image=True, label="memory of a card",
        ),
    ] = None  # fmt: skip
    on: Annotated[
        str | None,
        _asks(
            ValueKind.WHERE, "Workers on which it may run (box7,ada), or may not (!box7); by default any.",
            changes=Changes.PLACEMENT, by_image=True, label="on",
        ),
    ] = None  # fmt: skip


def _table() -> Mapping[str, Option]:
    found = {}
    for field in msgspec.structs.fields(Options):
        option = next(meta.extra["option"] for meta in get_args(field.type)[1:])
        made = field.default_factory
        default = field.default if made is msgspec.NODEFAULT else made()
        found[field.name] = msgspec.structs.replace(option, name=field.name, default=default)
    return found


OPTIONS: Mapping[str, Option] = _table()

FOLDER = "workdir"
"""Among what is asked of a worker: a folder goes along with the job, and lies in its container."""

EVERYWHERE = frozenset({"timeout"})
"""What every worker carries out, also one that lists no options, being of the release before options were listed. Never
grows. No-overlap is not here: it needs a warden, and not every machine lets a worker end its containers itself."""

OF_WORKERS = frozenset(
    name for name, option in OPTIONS.items() if option.by_worker and Changes.CONTAINER not in option.changes
) | {FOLDER}
"""What every worker of this release carries out. What changes the container is its runtime's to list."""

OF_IMAGES: Mapping[str, Option] = {name: option for name, option in OPTIONS.items() if option.by_image}
"""Of which an image may have values of its own."""

Value = bool | int | float | str

_OF_IMAGES = msgspec.Meta(
    description=f"Options for jobs of the image that ask for nothing else, by name: {', '.join(OF_IMAGES)}.",
    examples=[{"startup_timeout": 1200}],
)
Defaults = Annotated[Mapping[str, Value], _OF_IMAGES]
DefaultsChange = Annotated[Mapping[str, Value | None], _OF_IMAGES]
"""None takes one back."""

_APART = tuple(
    option
    for option in OPTIONS.values()
    if option.changes is not Changes.NOTHING or (option.by_worker and option.name not in EVERYWHERE)
)

Asks = tuple[tuple[str, str], ...]

_values = attrgetter(*OPTIONS)


def values_of(options: Options) -> dict[str, Any]:
    """By name, for the constructor of another struct that carries them; none where all are at their defaults."""
    # hot: benchmarks/throughput.py - with every submission
    values = _values(options)
    return {} if values == _DEFAULTS else dict(zip(OPTIONS, values, strict=True))


NOTHING_ASKED = Options()
_DEFAULTS = _values(NOTHING_ASKED)
_TYPES = [*map(type, _DEFAULTS)]


def options_of(holder: Options) -> Options:
    """Of a struct that carries them among other things, these alone."""
    # hot: benchmarks/throughput.py - with every assignment; mostly all are at their defaults
    values = _values(holder)
    return NOTHING_ASKED if values == _DEFAULTS else Options(**dict(zip(OPTIONS, values, strict=True)))


def given(options: Options) -> Iterable[tuple[Option, Any]]:
    """Those that are not at their default, with their values."""
    return ((o, value) for o, value in zip(OPTIONS.values(), _values(options), strict=True) if value != o.default)


def joined(asked: Options, defaults: Options) -> Options:
    """What a job asks for, and of its image what it does not ask for."""
    # hot: benchmarks/throughput.py - with every assignment; mostly an image has none
    if defaults is NOTHING_ASKED:
        return asked
    silent = {o.name: value for o, value in given(defaults) if getattr(asked, o.name) == o.default}
    return msgspec.structs.replace(asked, **silent)


def with_defaults(known: Options, change: Mapping[str, object]) -> Options:
    """The values of an image, changed: None takes one back. BadRequest for what there is not, or no image may have."""
    for name, value in change.items():
        option = OF_IMAGES.get(name)
        if option is None:
            raise BadRequest(
                f"an image has no option {name[:80]!r} for its jobs", f"It may have: {', '.join(OF_IMAGES)}."
            )
        if value is not None and not option.allows(value):
            raise BadRequest(f"{name} is {shown(value)}: expected {option.expected}")
    new = {name: OF_IMAGES[name].default if value is None else value for name, value in change.items()}
    changed = options_of(msgspec.structs.replace(known, **new))
    needs_of(_placing(changed))
    return changed


def checked(keywords: Mapping[str, Any]) -> Options:
    """From keywords of the SDK. TypeError for a name that there is not, BadRequest as `check`."""
    for name in keywords:
        if name not in OPTIONS:
            near = difflib.get_close_matches(name, OPTIONS, 1)
            raise TypeError(f"there is no option {name!r}" + (f": did you mean {near[0]!r}?" if near else ""))
    options = Options(**keywords)
    check(options)
    return options


def check(options: Options) -> None:
    """BadRequest, with name, value and what was expected, for whatever is of the wrong type or out of its bounds."""
    # hot: benchmarks/throughput.py - most are all at their defaults, and of their type: False is equal to 0
    values = _values(options)
    if values == _DEFAULTS and [*map(type, values)] == _TYPES:
        return
    for option, value in zip(OPTIONS.values(), values, strict=True):
        if value is not option.default and not value == {} == option.default and not option.allows(value):
            fault = option.fault(value)
            hint = None if fault is None else fault.hint
            raise BadRequest(f"{option.name} is {shown(value)}: expected {option.expected}", hint)
    needs_of(_placing(options))  # each makes sense: do they together?


def _placing(options: Options) -> dict[str, Any]:
    return {option.name: value for option, value in given(options) if Changes.PLACEMENT in option.changes}


def asks_of(options: Options, warm: bool) -> Asks:
    """What tells a lane apart, by name and value; nothing while all such options are at their defaults, so that a new
    option changes no lane that there was. `warm`: its containers are shared. If they are not, what only changes the
    container says nothing but that a worker has to know it."""
    # hot: benchmarks/throughput.py
    asked = [(o, value) for o in _APART if (value := getattr(options, o.name)) != o.default]
    return tuple((o.name, _text(value) if _tells(o, warm) else "") for o, value in asked) if asked else ()


def _tells(option: Option, warm: bool) -> bool:
    """Its value tells lanes apart, and not only that there is one."""
    return Changes.PLACEMENT in option.changes or (warm and _shapes(option))


def _text(value: object) -> str:
    return json.dumps(value, sort_keys=True) if isinstance(value, dict) else str(value)


def _shapes(option: Option) -> bool:
    return Changes.CONTAINER in option.changes


def demands(asks: Asks) -> frozenset[str]:
    """What of it a worker has to carry out, by name, and what it has to have."""
    # hot: benchmarks/throughput.py - mostly nothing is asked
    if not asks:
        return frozenset()
    options = [(OPTIONS[name], value) for name, value in asks if name != FOLDER]
    wanted = (mounts.as_asks(json.loads(value)) for option, value in options if option.kind is ValueKind.MOUNTS)
    names = frozenset(option.name for option, _ in options if option.by_worker).union(*wanted)
    return names if len(options) == len(asks) else names | {FOLDER}


def same_container(one: Options, other: Options) -> bool:
    """Is a container that is made for one as good for the other?"""
    return all(getattr(one, o.name) == getattr(other, o.name) for o in OPTIONS.values() if _shapes(o))


def container_key(asks: Asks) -> str:
    """Names what is asked of a container beyond its image; empty where nothing is."""
    shape = [f"{name}={value}" for name, value in asks if name == FOLDER or _shapes(OPTIONS[name])]
    return f"-{hashlib.blake2b('/'.join(shape).encode(), digest_size=6).hexdigest()}" if shape else ""
