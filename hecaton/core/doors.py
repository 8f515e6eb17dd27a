"""The ways of speaking to a container (`Mode`), one row each: what every other part may know of a way without knowing
which one it is.

Who would write `mode is ...` asks a row here instead. A new way is a member of `Mode`, a row here, one file in
`worker/doors` and its row there; tests/test_architecture.py finds a branch on the mode anywhere else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from hecaton.core.model import Mode, Reason
from hecaton.core.scripts import PYTHON

DEFAULT = Mode.NATIVE
"""Of a job that says nothing of it."""


class Way(msgspec.Struct, frozen=True):
    """`needs_file`: a file travels with the job; else none may.

    `warm`: its container takes further jobs of the same lane, so what lies in the container (the file) is a part of
    the lane and of the warm key, and jobs may wait beside the one that runs. If not, each attempt gets a fresh one,
    and jobs with different files are alike.

    `takes_payload`: the job may have one beside its file; if not, the file is all that it is. `noun` and `exit_reason`:
    what people call what an exit code has ended, and that. `silent`: a job without a result has nothing to say, where
    others say null. `option`: of the command line, by which it is asked for. `run_by`: the interpreters of a file that
    names none in its first line; none: they go by its name. `protocol`: of an image, by which it is asked for.
    `options`: that mean something to this way, and to no other that does not name them."""

    needs_file: bool = False
    warm: bool = True
    takes_payload: bool = True
    noun: str = "container"
    exit_reason: Reason = Reason.HANDLER_EXIT
    silent: bool = False
    option: str | None = None
    run_by: tuple[str, ...] = ()
    protocol: str | None = None
    options: tuple[str, ...] = ()


WAYS: Mapping[Mode, Way] = {
    Mode.NATIVE: Way(protocol="native"),
    Mode.HANDLER: Way(needs_file=True, option="handler", run_by=PYTHON),
    Mode.SCRIPT: Way(
        needs_file=True,
        warm=False,
        takes_payload=False,
        noun="script",
        exit_reason=Reason.SCRIPT_EXIT,
        silent=True,
        option="script",
    ),
    Mode.HTTP: Way(protocol="http", options=("port", "ready", "path")),
}

WITH_FILE = tuple(mode for mode, way in WAYS.items() if way.needs_file)
WITHOUT_FILE = tuple(mode for mode, way in WAYS.items() if not way.needs_file)

BY_PROTOCOL: Mapping[str, Mode] = {way.protocol: mode for mode, way in WAYS.items() if way.protocol is not None}

OF_SOME_WAYS = frozenset(name for way in WAYS.values() for name in way.options)
"""Options that mean nothing to the other ways."""

UNLISTED = frozenset({Mode.NATIVE, Mode.HANDLER, Mode.SCRIPT})
"""What workers carry out that do not list it yet, being of the release before."""


def carried_out(listed: Iterable[str] | None, *, any_image: bool) -> frozenset[str]:
    """The modes of a worker that lists these; may hold some that only a newer release knows.

    `any_image`: of one that lists none; else it runs the handler files that it was given itself, and no others."""
    if listed is not None:
        return frozenset(listed)
    return UNLISTED if any_image else UNLISTED.difference(WITH_FILE)


def asked_for(options: Iterable[str]) -> Mode:
    """The way that one of these options of the command line asks for; none of them: the default."""
    given = set(options)
    return next((mode for mode, way in WAYS.items() if way.option in given), DEFAULT)
