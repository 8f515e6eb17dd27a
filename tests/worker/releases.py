"""The release before and the one after, for tests of upgrades: today's worker with one thing less, or one more, in each
of its formats. For a process of its own: nothing is put back."""

from __future__ import annotations

from typing import Any

import msgspec

from hecaton.wire import channel
from hecaton.wire.channel import Hello
from hecaton.worker import adoption, agent, hearing
from hecaton.worker.containers import plan
from hecaton.worker.doors import exchange
from hecaton.worker.memory import journal, records
from hecaton.worker.memory.records import Ended, Forgotten, Given, Gone, Placed


class _PlacedBefore(msgspec.Struct, frozen=True, array_like=True, tag="placed"):
    """Without `served`."""

    container: str
    slot: int
    gpu: str | None
    first: channel.Assignment
    nonce: str | None
    boot: str
    at: float
    layout: int


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
    _patch("Placed", _PlacedBefore, journal, records, plan)
    _patch("is_served_by", lambda visitor, peer: None, exchange.Exchange)


def _after() -> None:
    journal.VERSION += 1
    _patch("Placed", _PlacedAfter, journal, plan)
    _patch("Given", _GivenAfter, journal, exchange, adoption)
    _patch("Ended", _EndedAfter, journal, agent)
    kinds = _PlacedAfter | _GivenAfter | _EndedAfter | Forgotten | Gone | _Reboot
    _patch("_decoder", msgspec.msgpack.Decoder(kinds), journal)
    _patch("PROTOCOL", channel.PROTOCOL + 1, channel, hearing)
    _patch("Hello", _HelloAfter, hearing)
