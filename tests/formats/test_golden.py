"""What a release has spoken stays readable: fields are only ever appended, and both ends take one more or one less."""

from __future__ import annotations

from typing import Any, get_args

import msgspec
import pytest
from msgspec import inspect

from hecaton.serverless import protocol
from hecaton.wire import channel
from hecaton.worker.memory import records
from tests.formats.golden import CONTAINER, FIRST, FOLDER, VERSIONS, examples, kept, path_of

FRAMES = {kind.__name__: kind for kind in (*get_args(channel.ToWorker), *get_args(channel.FromWorker))}
RECORDS = {kind.__name__: kind for kind in get_args(records.Record)}
SPOKEN = [
    (format, version)
    for format, (oldest, newest) in VERSIONS.items()
    for version in range(max(oldest, FIRST[format]), newest + 1)
]
KEPT = [
    pytest.param(kinds[name], data, id=f"{format}-{version}-{name}")
    for format, version in SPOKEN
    if format != "container"
    for kinds in [FRAMES if format == "channel" else RECORDS]
    for name, data in kept(format, version).items()
]


@pytest.mark.parametrize(("format", "version"), SPOKEN)
def test_every_version_that_is_spoken_is_kept(format: str, version: int) -> None:
    assert path_of(format, version).exists()


@pytest.mark.parametrize("format", VERSIONS)
def test_what_this_release_says_is_what_is_kept_of_its_version(format: str) -> None:
    """Whoever appends a field or a message raises the version, and keeps an example: python -m tests.formats.golden."""
    assert examples(format) == kept(format, VERSIONS[format][1])


def _goes_on(old: Any, new: Any) -> bool:
    """Is `new` what `old` was, with nothing but fields behind it?"""
    if isinstance(old, list):
        return isinstance(new, list) and len(old) <= len(new) and all(map(_goes_on, old, new))
    if isinstance(old, dict):
        return isinstance(new, dict) and all(name in new and _goes_on(old[name], new[name]) for name in old)
    return bool(old == new)


@pytest.mark.parametrize(("kind", "data"), KEPT)
def test_what_was_written_is_read_and_loses_nothing(kind: type[msgspec.Struct], data: bytes) -> None:
    read = msgspec.msgpack.decode(data, type=kind)
    assert _goes_on(msgspec.msgpack.decode(data), msgspec.msgpack.decode(msgspec.msgpack.encode(read)))


@pytest.mark.parametrize(("kind", "data"), KEPT)
def test_what_a_newer_release_appends_is_left_out(kind: type[msgspec.Struct], data: bytes) -> None:
    """Behind what this release has appended to what the one before wrote."""
    read = msgspec.msgpack.decode(data, type=kind)
    more = [*msgspec.msgpack.decode(msgspec.msgpack.encode(read)), "of the release after"]
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(more), type=kind) == read


@pytest.mark.parametrize("kind", [*FRAMES.values(), *RECORDS.values()], ids=lambda kind: kind.__name__)
def test_a_field_that_is_appended_has_a_default(kind: type[msgspec.Struct]) -> None:
    """What stands behind one with a default was appended, and the release before does not say it."""
    described = inspect.type_info(kind)
    assert isinstance(described, inspect.StructType)
    required = [field.required for field in described.fields]
    assert required == sorted(required, reverse=True)


def test_the_frames_of_containers_are_read_as_they_were_written() -> None:
    for name, data in kept("container", protocol.PROTOCOL_VERSION).items():
        header, body = CONTAINER[name]
        decoder = protocol.FrameDecoder()
        assert list(decoder.feed(data)) == [({"type": name, **header}, body)]


def test_nothing_is_kept_that_nobody_speaks() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {path_of(*one).name for one in SPOKEN}
