"""Frames of the workers' connection, however they are made and cut: what is read by hand and what by the library."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from websockets.client import ClientProtocol
from websockets.frames import CloseCode
from websockets.uri import parse_uri

from hecaton.core.model import AttemptRef, JobId
from hecaton.wire.channel import (
    PATH,
    PROTOCOL,
    FromWorker,
    Hello,
    Log,
    ServerBeat,
    ToWorker,
    WorkerBeat,
    decode_for_worker,
    encode,
)
from tests.server.running import Running
from tests.server.scripted_worker import slots

BEAT: list[FromWorker] = [WorkerBeat()]
LARGE: list[FromWorker] = [Log(AttemptRef(JobId("nobody's"), 1), 0, b"x" * 70_000), WorkerBeat()]


class _Raw:
    """The library at the worker's end, whose bytes go out in pieces of a test's choice."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, url: str) -> None:
        self.reader, self.writer = reader, writer
        self.protocol = ClientProtocol(parse_uri(url.replace("http", "ws") + PATH))
        self.beats = 0
        self.pongs: list[bytes] = []

    async def open(self, token: str) -> None:
        request = self.protocol.connect()
        request.headers["Authorization"] = f"Bearer {token}"
        self.protocol.send_request(request)
        self.flush()
        await self.read(lambda: bool(self.protocol.handshake_exc is None and self.protocol.state.name == "OPEN"))

    def flush(self) -> None:
        self.writer.write(b"".join(self.protocol.data_to_send()))

    async def trickle(self, size: int) -> None:
        """So that the server reads it in these pieces."""
        data = b"".join(self.protocol.data_to_send())
        for start in range(0, len(data), size):
            self.writer.write(data[start : start + size])
            await self.writer.drain()
            await asyncio.sleep(0.001)

    async def read(self, enough: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not enough():
                data = await self.reader.read(1 << 16)
                if not data:
                    return
                self.protocol.receive_data(data)
                for event in self.protocol.events_received():
                    kind, data = getattr(event, "opcode", None), getattr(event, "data", b"")
                    if kind == 2:
                        messages: list[ToWorker] = decode_for_worker(bytes(data))
                        self.beats += sum(isinstance(one, ServerBeat) for one in messages)
                    elif kind == 10:
                        self.pongs.append(bytes(data))


async def _raw(server: Running) -> _Raw:
    worker = await server.enrol("w1")
    reader, writer = await asyncio.open_connection("127.0.0.1", int(server.url.rpartition(":")[2]))
    raw = _Raw(reader, writer, server.url)
    await raw.open(worker._token)
    hello: list[FromWorker] = [Hello(PROTOCOL, "2.0.0", "docker", slots(1), ())]
    raw.protocol.send_binary(encode(hello))
    raw.flush()
    return raw


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 14, 15, 1 << 20])
async def test_frames_are_read_however_they_are_cut(server: Running, size: int) -> None:
    raw = await _raw(server)
    text = encode(BEAT)
    raw.protocol.send_binary(text)
    raw.protocol.send_binary(text)
    raw.protocol.send_binary(text[:2], fin=False)
    raw.protocol.send_continuation(b"", fin=False)
    raw.protocol.send_ping(b"between two parts")
    raw.protocol.send_continuation(text[2:], fin=True)
    raw.protocol.send_binary(text)
    raw.protocol.send_ping(b"apart")
    raw.protocol.send_binary(encode(BEAT * 40))  # longer than 125 bytes
    await raw.trickle(size)
    await raw.read(lambda: raw.beats == 44 and len(raw.pongs) == 2)
    assert (raw.beats, raw.pongs) == (44, [b"between two parts", b"apart"])
    raw.writer.close()


async def test_a_frame_of_many_pieces_has_others_around_it(server: Running) -> None:
    raw = await _raw(server)
    for messages in (BEAT, LARGE, BEAT):
        raw.protocol.send_binary(encode(messages))
    await raw.trickle(20_000)
    await raw.read(lambda: raw.beats == 3)
    assert raw.beats == 3
    raw.writer.close()


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (b"\x82\x01x", CloseCode.PROTOCOL_ERROR),  # not masked
        (b"\xc2\x81\0\0\0\0x", CloseCode.PROTOCOL_ERROR),  # a bit that nobody has agreed on
        (b"\x02\x81\0\0\0\0x\x82\x81\0\0\0\0x", CloseCode.PROTOCOL_ERROR),  # a message within another
        (b"\x82\xff\0\0\0\0\x40\0\0\0", CloseCode.MESSAGE_TOO_BIG),
        (b"\x82\xff\0\0\0\0\x40\0\0\0\0\0\0\0", CloseCode.MESSAGE_TOO_BIG),
    ],
)
async def test_what_is_no_frame_ends_the_connection(server: Running, said: bytes, code: CloseCode) -> None:
    raw = await _raw(server)
    raw.writer.write(said)
    if code is CloseCode.MESSAGE_TOO_BIG:
        raw.writer.write(b"\0" * 4)
    await raw.read(lambda: raw.protocol.close_rcvd is not None)
    assert raw.protocol.close_rcvd is not None
    assert raw.protocol.close_rcvd.code == code
    raw.writer.close()
