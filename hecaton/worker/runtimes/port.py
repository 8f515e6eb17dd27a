"""The port to what runs containers. Adapters: `runtimes.docker`, `runtimes.process`; `testing.runtime` for faults.

Contract: tests/contracts/runtime_contract.py. A container is created and removed, never restarted; everything that a
worker starts carries its labels, and an adapter never touches what does not.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec

from hecaton.core.model import Mode, Reason
from hecaton.core.options import NOTHING_ASKED, Options
from hecaton.wire.channel import ImageRef

CHANNEL_TARGET = "/run/hecaton"
"""Where the channel folder (socket, log, in/, out/) appears inside a container."""

OWN = ("log", "out")
"""What of it a container may change."""

PYTHON_TARGET = f"{CHANNEL_TARGET}/python"
"""Where the worker's own `hecaton.serverless` is mounted, read-only, for images that lack it. Below the one name that
is ours: a mount hides what the image has there."""

WORKDIR, INPUTS, OUTPUTS = "/workdir", "/inputs", "/outputs"
CHECKPOINTS, CACHE, SCRATCH = "/checkpoints", "/cache", "/scratch"

FOLDER_VARIABLES = {
    WORKDIR: "HECATON_WORKDIR",
    INPUTS: "HECATON_INPUTS",
    OUTPUTS: "HECATON_OUTPUTS",
    CHECKPOINTS: "HECATON_CHECKPOINTS",
    CACHE: "HECATON_CACHE",
    SCRATCH: "HECATON_SCRATCH",
}
"""In which variable of its environment a container finds which of its folders: not every runtime can put them there."""

CACHE_VARIABLES = {
    "XDG_CACHE_HOME": "",
    "HF_HOME": "/huggingface",
    "TORCH_HOME": "/torch",
    "PIP_CACHE_DIR": "/pip",
    "UV_CACHE_DIR": "/uv",
}
"""What makes programs keep there, and where, what they fetch: set unless the image or the job says otherwise."""

GROUP_VARIABLE = "HECATON_GROUP_SIGNALS"
"""Set where `stop` sends SIGTERM to the whole process group of what the container was started with. For the launchers,
which take it out of the environment."""

LABEL_WORKER = "hecaton.worker"
LABEL_SLOT = "hecaton.slot"
LABEL_WARM = "hecaton.warm"
LABEL_CONTAINER = "hecaton.container"
"""Labels of every container: worker id, slot index, warm key (empty: none), our own container id."""

ENGINE_PATIENCE = 60.0
"""Seconds that a start waits for an engine that is away; then the job goes to another machine."""

ENGINE_RETRY = 0.5

LOOK_AGAIN = 30.0
"""Seconds after which names of images are looked up again though nobody has said that they moved."""

T = TypeVar("T")


class RuntimeFault(Exception):
    """The engine could not do it. `reason` says whether the image, the registry or this machine is at fault."""

    def __init__(self, reason: Reason, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.hint = hint


class MachineBroken(RuntimeFault):
    """No container starts on this machine, not even one of the image that ran last."""


class EngineAway(RuntimeFault):
    """The engine does not answer, and what was asked of it has not begun: it may be asked again when it is back."""


async def patiently(
    call: Callable[[], Coroutine[Any, Any, T]], note: Callable[[str], None], given_up: Callable[[], bool]
) -> T:
    """A restart of the engine costs a job that has not begun time, and no attempt. `given_up`: nobody waits any more.

    Raises EngineAway after ENGINE_PATIENCE, and other RuntimeFaults at once."""
    deadline: float | None = None
    while True:
        try:
            return await call()
        except EngineAway as away:
            deadline = deadline or time.monotonic() + ENGINE_PATIENCE
            if time.monotonic() >= deadline or given_up():
                raise
            note(f"waiting: {away.message}")
            await asyncio.sleep(ENGINE_RETRY)


class Prepared(msgspec.Struct, frozen=True):
    """An image that is here: what to start it by, and the parts of its configuration that matter. `pulled`: the digest
    that its tag had at the registry a moment ago."""

    image_id: str
    env: dict[str, str]
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    pulled: str | None = None


class Here(msgspec.Struct, frozen=True):
    """What a name means on this machine. `made`: seconds since the epoch; None: the engine does not say."""

    image_id: str
    made: float | None


class CommandLine(msgspec.Struct, frozen=True):
    """Executable and arguments. `by_entrypoint`: the image's ENTRYPOINT runs it, as `docker run IMAGE WORDS` does; else
    it takes its place."""

    words: tuple[str, ...]
    by_entrypoint: bool = False


Commands = tuple[CommandLine, ...]
"""To be tried in turn while the engine says that the executable is not in the image."""


class Bind(msgspec.Struct, frozen=True):
    """A folder of this host, `source`, that a container sees at `target`; not what is mounted below it."""

    source: str
    target: str
    read_only: bool = False


class ContainerSpec(msgspec.Struct, frozen=True):
    """`folder`: the channel folder on this host. `python`: the folder to appear at PYTHON_TARGET. `binds`: the folders
    of its job. `begins_in`: the current folder of what it is started with; None: that of its image. `uid`: as whom it
    runs, user and group; None: as its image says.

    `commands`: None: the image's own. `env`: the runtime adds where the folders appear."""

    id: str
    name: str
    image: Prepared
    image_name: str
    env: dict[str, str]
    labels: dict[str, str]
    folder: str
    python: str
    gpus: tuple[str, ...] = ()  # UUIDs of the cards that it may see
    memory: int = 0  # bytes of RAM that it may have where its job asks for none; 0: all
    commands: Commands | None = None
    options: Options = NOTHING_ASKED
    binds: tuple[Bind, ...] = ()
    begins_in: str | None = None
    uid: int | None = None


class ProcMark(msgspec.Struct, frozen=True):
    """By which the processes of a container are known from outside, without its engine: `text` is in /proc/PID/`file`
    of each of them, and of no other process."""

    file: str
    text: str


class Shortage(msgspec.Struct, frozen=True):
    """The kernel has killed something for memory. `machine`: since the machine had none left; else since the container
    had all that it may have. `process` and `size`: what was killed, and the bytes of RAM that it had; empty: unknown.
    `limit`: bytes that the container may have; 0: nobody has said."""

    machine: bool = False
    process: str = ""
    size: int = 0
    limit: int = 0


class Exit(msgspec.Struct, frozen=True):
    """`oom`: the engine says that something of it was killed as it had all memory that it may have. `shortage`: what
    the kernel says of that; `sure`: it was asked, and has said all there is."""

    code: int
    oom: bool = False
    error: str = ""
    shortage: Shortage | None = None
    sure: bool = False


class Found(msgspec.Struct, frozen=True):
    """A container with this worker's label. One that neither runs nor ended never started."""

    handle: str
    labels: dict[str, str]
    running: bool
    ended: bool = False
    image_id: str = ""  # empty: unknown


class Runtime(Protocol):
    """`handle` is the adapter's own name of a container (engine id, process id): opaque to callers.

    Every call has a deadline of its own and raises `RuntimeFault`; cancelling a call is safe."""

    @property
    def name(self) -> str: ...
    @property
    def serves(self) -> tuple[str, ...] | None:
        """Image names that it can run; None: any."""
        ...

    @property
    def doors(self) -> frozenset[Mode]:
        """The modes whose containers it can run: one that can be given any command and file carries them all."""

    @property
    def options(self) -> frozenset[str]:
        """Names of the options of a job that change a container (`core.options`), and that it carries out from
        `ContainerSpec.options`."""

    async def check(self, folder: Path, cards: Sequence[str] = ()) -> str:
        """One line about the engine ("Docker 20.10.24, overlay2"); RuntimeFault says what to install, start or mount.
        `folder`: the worker's, in which those of its containers will be. `cards`: UUIDs of those that containers are
        to get; an engine that would start them without is refused."""
        ...

    async def sees(self, path: Path) -> bool:
        """Whether a container would find this file or folder where this process does, mounts of this process
        included. Raises RuntimeFault, OSError."""
        ...

    async def prepare(self, image: ImageRef, note: Callable[[str], None]) -> Prepared:
        """Have the image here: local if its digest (or, without one, its tag) is, else pulled.

        One pull at a time per image, shared by all who wait; `note` hears the progress. Raises with `image_denied`
        or `image_pull`."""
        ...

    async def here(self, image: ImageRef) -> Here | None:
        """What `prepare` would take on this machine now without a pull; None: it would have to pull."""
        ...

    async def resolve(self, name: str) -> str:
        """The digest that its registry has for this name, asked with this machine's logins. RuntimeFault says why that
        cannot be known."""
        ...

    async def until_names_move(self) -> None:
        """Returns when a name may mean another image on this machine than before: the engine has said so, or was away,
        or `LOOK_AGAIN` seconds have passed."""
        ...

    async def start(self, spec: ContainerSpec) -> str: ...
    async def wait(self, handle: str) -> Exit:
        """Until it ends, however long; survives an engine that goes away and comes back."""
        ...

    async def stop(self, handle: str, grace: float) -> None:
        """SIGTERM, after `grace` seconds SIGKILL, and remove. Repeatable; returns when it is really gone."""
        ...

    async def output(self, handle: str, limit: int) -> bytes:
        """The last bytes of what it wrote outside its log (start-up errors). Before `stop`."""
        ...

    def follow(self, handle: str, since: float = 0.0) -> AsyncIterator[bytes]:
        """What it writes outside its log, as it comes, from its start on or since then (Unix seconds); ends with the
        container."""
        ...

    async def network(self, handle: str) -> int:
        """A descriptor of the network namespace that it runs in, the caller's to close. Raises OSError, too."""
        ...

    def mark(self, container: str) -> ProcMark:
        """`container`: our own id of it; it need not run yet."""
        ...

    def unreachable(self) -> str | None:
        """Why this process could not end those of a container itself, as a sentence; None: it can."""
        ...

    async def found(self) -> list[Found]:
        """All containers with this worker's label."""
        ...

    async def close(self) -> None: ...
