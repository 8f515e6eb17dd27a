"""HTTP bodies about images."""

from __future__ import annotations

from hecaton.core.options import NOTHING_ASKED, Defaults, DefaultsChange, Options
from hecaton.wire.api.base import Reply, Request


class NewImage(Request, frozen=True):
    name: str
    description: str = ""
    verify: bool = True  # ask the image's registry whether it exists
    defaults: Defaults = {}


class ImageChange(Request, frozen=True):
    """Fields left out stay as they are. `env` replaces the whole environment."""

    env: dict[str, str] | None = None
    description: str | None = None
    refresh: bool = False  # resolve the tag to its digest again
    defaults: DefaultsChange | None = None  # null takes one back


class ImageVersion(Reply, frozen=True):
    """What an image's name means on a worker's machine. `version`: the engine's id; None: nothing, or it is not known.
    `digest`: what the registry said to a login of that machine, where it was asked. `warning`: why there is no more."""

    worker: str
    version: str | None
    made_at: float | None
    digest: str | None
    warning: str | None


class ImageView(Reply, frozen=True):
    """`env` is None for everyone but admins. `warning`: why the registry could not confirm the image. `versions`: of
    the workers that are connected, where one image is shown."""

    name: str
    digest: str | None
    description: str
    env: dict[str, str] | None
    env_revision: int
    created_at: float
    updated_at: float
    warning: str | None = None
    versions: tuple[ImageVersion, ...] = ()
    defaults: Options = NOTHING_ASKED  # for jobs that ask for nothing else
    owner: str | None = None  # who alone uses it; None: everybody may
