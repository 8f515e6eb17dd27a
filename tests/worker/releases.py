"""The release before and the one after, for tests of upgrades: today's worker with one thing less, or one more, in each
of its formats. For a process of its own: nothing is put back."""

from __future__ import annotations

from typing import Any

import msgspec

from hecaton.core.model import AttemptRef, Mode
from hecaton.core.options import Options
from hecaton.wire import channel
from hecaton.wire.channel import Hello
from hecaton.worker import adoption, agent, hearing
from hecaton.worker.containers import plan
from hecaton.worker.doors import exchange
from hecaton.worker.memory import journal, records
from hecaton.worker.memory.peers import Peer
from hecaton.worker.memory.records import Ended, Forgotten, Given, Gone, Placed


class _AssignmentBefore(msgspec.Struct, frozen=True, array_like=True):
    """Without `holds`."""

    ref: AttemptRef
    slot: int
    image: channel.ImageRef
    owner: str
    warm_key: str | None
    mode: Mode
    payload: channel.Body
    key: str
    file: channel.FileRef | None
    args: tuple[str, ...]
    options: Options


class _PlacedBefore(msgspec.Struct, frozen=True, array_like=True, tag="placed"):
    container: str
    slot: int
    gpu: str | None
    first: _AssignmentBefore
    nonce: str | None
    boot: str
    at: float
    layout: int
    served: Peer | None = None


def _placed_before(container: str, slot: int, gpu: str | None, first: channel.Assignment, *more: Any) -> _PlacedBefore:
    kept = _AssignmentBefore(*(getattr(first, name) for name in _AssignmentBefore.__struct_fields__))
    return _PlacedBefore(container, slot, gpu, kept, *more)


class _PlacedAfter(Placed, frozen=True, array_like=True, tag="placed"):
    appended: str = "by the release before"


class _GivenAfter(Given, frozen=True, array_like=True, tag="given"):
    appended: str = "by the release before"


class _EndedAfter(Ended, frozen=True, array_like=True, tag="ended"):
    appended: str = "by the release before"


class _Reboot(msgspec.Struct, frozen=True, array_like=True, tag="reboot"):
    """A kind of record that there is not today."""

    boot: str


class _HelloAfter(Hello, frozen=True, array_like=True, tag_field="t", tag="hello"):
    appended: str = "something"


def become(release: str) -> None:
    """`before` or `after`."""
    {"before": _before, "after": _after}[release]()


def _patch(name: str, kind: Any, *modules: Any) -> None:
    for module in modules:
        assert hasattr(module, name)
        setattr(module, name, kind)


def _before() -> None:
    """Its process is only ever the first: it never reads what another one wrote."""
    journal.VERSION -= 1
    _patch("Placed", _PlacedBefore, journal, records)
    _patch("Placed", _placed_before, plan)


def _after() -> None:
    journal.VERSION += 1
    _patch("Placed", _PlacedAfter, journal, plan)
    _patch("Given", _GivenAfter, journal, exchange, adoption)
    _patch("Ended", _EndedAfter, journal, agent)
    kinds = _PlacedAfter | _GivenAfter | _EndedAfter | Forgotten | Gone | _Reboot
    _patch("_decoder", msgspec.msgpack.Decoder(kinds), journal)
    _patch("PROTOCOL", channel.PROTOCOL + 1, channel, hearing)
    _patch("Hello", _HelloAfter, hearing)
