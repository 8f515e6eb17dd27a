"""Frames arrive as they were sent, in whatever pieces; junk is refused before it takes memory."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hecaton.serverless.protocol import (
    MAX_BODY,
    MAX_HEADER,
    Frame,
    FrameDecoder,
    FrameReader,
    ProtocolError,
    encode,
    socket_address,
)

headers = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
        lambda inner: st.lists(inner, max_size=3),
        max_leaves=5,
    ),
    max_size=4,
).map(lambda fields: {**fields, "type": "job"})
frames = st.lists(st.tuples(headers, st.binary(max_size=200)), max_size=6)


@settings(deadline=None)
@given(sent=frames, cuts=st.lists(st.integers(0, 2000), max_size=12))
def test_frames_come_out_of_pieces_of_any_size(sent: list[Frame], cuts: list[int]) -> None:
    stream = b"".join(encode(header, body) for header, body in sent)
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    decoder = FrameDecoder()
    received = [frame for start, end in itertools.pairwise(edges) for frame in decoder.feed(stream[start:end])]
    assert received == sent


@settings(deadline=None)
@given(sent=frames)
def test_a_blocking_reader_reads_the_same_frames(sent: list[Frame]) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"".join(encode(header, body) for header, body in sent))
        theirs.shutdown(socket.SHUT_WR)
        reader = FrameReader(ours)
        assert [reader.read() for _ in sent] == sent
        with pytest.raises(ConnectionError):
            reader.read()


def test_the_largest_frame_passes_and_one_byte_more_does_not() -> None:
    assert FrameDecoder().feed(encode({"type": "x"}, bytes(MAX_BODY))) == [({"type": "x"}, bytes(MAX_BODY))]
    with pytest.raises(ProtocolError, match="body has"):
        encode({"type": "x"}, bytes(MAX_BODY + 1))
    with pytest.raises(ProtocolError, match="header has"):
        encode({"type": "x" * MAX_HEADER})


@pytest.mark.parametrize("lengths", [(MAX_HEADER + 1, 0), (10, MAX_BODY + 1), (0xFFFFFFFF, 0xFFFFFFFF)])
def test_lengths_over_the_limits_are_refused_before_the_bytes_come(lengths: tuple[int, int]) -> None:
    prefix = struct.pack("!II", *lengths)
    with pytest.raises(ProtocolError, match="the limit is"):
        FrameDecoder().feed(prefix)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(prefix)
        with pytest.raises(ProtocolError, match="the limit is"):
            FrameReader(ours).read()


@pytest.mark.parametrize(
    "header",
    [b"", b"{", b"[]", b"null", b'{"type": 1}', b"{}", b'{"type": "x", "v": NaN}', b"\xff\xfe", b"[" * 100_000],
    ids=lambda header: repr(header[:24]),
)
def test_a_header_that_is_not_an_object_with_a_type_is_refused(header: bytes) -> None:
    with pytest.raises(ProtocolError):
        FrameDecoder().feed(struct.pack("!II", len(header), 0) + header)


@settings(deadline=None)
@given(st.binary(max_size=400))
def test_junk_is_refused_or_waits_for_more_but_nothing_else_happens(junk: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        FrameDecoder().feed(junk)


def test_a_header_that_is_not_json_is_not_sent() -> None:
    for value in (float("nan"), {1, 2}, "\ud800"):
        with pytest.raises(ProtocolError, match="not JSON"):
            encode({"type": "x", "value": value})


def test_a_socket_works_in_a_folder_whose_path_is_longer_than_an_address(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    folder_fd = os.open(folder, os.O_RDONLY)
    try:
        with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
            listener.bind(socket_address(str(folder), folder_fd))
            listener.listen()
            client.connect(socket_address(str(folder), folder_fd))
    finally:
        os.close(folder_fd)
    assert (folder / "socket").is_socket()
