"""The protocol between server and worker: every message arrives as it was sent, and nothing else is understood."""

from __future__ import annotations

import types
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given, settings

from hecaton.core.model import AttemptRef, JobId, Reason
from hecaton.wire import channel
from hecaton.wire.channel import FromWorker, Outcome, ToWorker, decode_for_server, decode_for_worker, encode
from tests.faults.figures import figure

pytestmark = pytest.mark.full

PROGRESS = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=8,
)


def values(kind: Any) -> st.SearchStrategy[Any]:
    """Every value that a field of this type may have."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return PROGRESS
    if kind is msgspec.Raw:
        return PROGRESS.map(msgspec.msgpack.encode).map(msgspec.Raw)
    if origin is Annotated:
        (limits,) = arguments[1:]
        return within(arguments[0], limits)
    if origin in (Union, types.UnionType):
        return st.one_of(*(values(one) for one in arguments))
    if origin is tuple:
        return st.lists(values(arguments[0]), max_size=3).map(tuple)
    if origin is dict:
        return st.dictionaries(values(arguments[0]), values(arguments[1]), max_size=3)
    if kind is JobId:
        return st.text(max_size=40)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        hints = get_type_hints(kind, include_extras=True)
        return st.builds(kind, **{name: values(hints[name]) for name in kind.__struct_fields__})
    if kind is int:
        return st.integers(-(2**63), 2**64 - 1)
    if kind is float:
        return st.floats(allow_nan=False)
    return st.from_type(kind)


def within(kind: Any, limits: msgspec.Meta) -> st.SearchStrategy[Any]:
    """Counts and lengths far below their bound; `test_words.py` has what lies at it and beyond."""
    if kind is int and limits.ge is not None:
        highest = limits.le if limits.lt is None else limits.lt - 1
        return st.integers(int(limits.ge), int(highest or 0))
    if kind is float and limits.ge is not None:
        return st.floats(min_value=float(limits.ge), allow_nan=False)
    if kind in (str, JobId) and limits.max_length is not None:
        return st.text(max_size=min(40, limits.max_length))
    if kind is bytes:
        return st.binary(max_size=40)
    return values(kind)


@pytest.mark.parametrize("kind", get_args(ToWorker), ids=lambda kind: kind.__name__)
@given(data=st.data())
@settings(max_examples=figure(15, 30))
def test_every_message_to_a_worker_arrives_as_it_was_sent(kind: type, data: st.DataObject) -> None:
    messages = data.draw(st.lists(values(kind), max_size=3))
    assert decode_for_worker(encode(messages)) == messages


@pytest.mark.parametrize("kind", get_args(FromWorker), ids=lambda kind: kind.__name__)
@given(data=st.data())
@settings(max_examples=figure(15, 30))
def test_every_message_from_a_worker_arrives_as_it_was_sent(kind: type, data: st.DataObject) -> None:
    messages = data.draw(st.lists(values(kind), max_size=3))
    assert decode_for_server(encode(messages)) == messages


def test_the_tags_of_each_direction_are_different() -> None:
    for direction in (ToWorker, FromWorker):
        tags = [kind.__struct_config__.tag for kind in get_args(direction)]
        assert len(set(tags)) == len(tags)


def test_everything_public_is_exported() -> None:
    messages = {kind.__name__ for kind in get_args(ToWorker) + get_args(FromWorker)}
    assert messages <= set(channel.__all__)


@given(st.binary(max_size=300))
@settings(max_examples=figure(200, 500))
def test_random_bytes_are_refused_in_one_way(frame: bytes) -> None:
    for decode in (decode_for_server, decode_for_worker):
        try:
            decode(frame)
        except msgspec.DecodeError:
            continue


@given(data=st.data())
@settings(max_examples=figure(100, 200))
def test_damaged_frames_are_refused_in_one_way(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(get_args(FromWorker)))
    frame = bytearray(encode([data.draw(values(kind))]))
    for _ in range(data.draw(st.integers(1, 4))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(frame)))
    for damaged in (bytes(frame), bytes(frame[:cut])):
        try:
            decode_for_server(damaged)
        except msgspec.DecodeError:
            continue


@pytest.mark.parametrize(
    "frame",
    [
        b"\x91\x92\xa7started\x91\x92\xa2\xff\xfe\x01",  # not UTF-8
        b"\x91\x93\xa8progress\x92\xa1j\x01" + b"\x91" * 100_000,  # nested without end
        b"\x91\x92\xa7started\x91\x92\xa1j\xff",  # a negative attempt
        b"\x91\x92\xa7started\x91\x92\xa1j\xce\x80\x00\x00\x00",  # beyond what a database holds
        b"\x91\x91\xa7unknown",
    ],
)
def test_hostile_frames_are_refused_in_one_way(frame: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_for_server(frame)


def test_an_older_worker_may_leave_out_what_was_added_at_the_end() -> None:
    """Fields of array messages are only ever added at the end, with a default."""
    ref = AttemptRef(JobId("j"), 1)
    short = msgspec.msgpack.encode([["results", [[["j", 1], "ok"]]]])
    assert decode_for_server(short) == [channel.Results((Outcome(ref, Reason.OK),))]
    longer = msgspec.msgpack.encode([["beat", "something of a newer version"]])
    assert decode_for_server(longer) == [channel.WorkerBeat()]
