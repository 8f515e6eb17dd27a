"""HTTP as others send it, byte by byte: what is an answer, what is none, and which connection is used again."""

from __future__ import annotations

import gc
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from hecaton.client import BadRequest, Client, Unreachable
from hecaton.client.connection import HEAD_LIMIT, NOTES, TRAILERS, Connection, KeptSocket
from hecaton.client.http import TRIES

BODY = b'{"status":"ok","version":"2.0.0","server_id":"s","time":1.0}'
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def _chunks(*sizes: int, extra: bytes = b"") -> bytes:
    body, sent = BODY, b""
    for size in (*sizes, len(BODY) - sum(sizes)):
        piece, body = body[:size], body[size:]
        sent += b"%X%s\r\n%s\r\n" % (len(piece), extra, piece)
    return sent


@contextmanager
def _saying(*pieces: bytes, close: bool = False) -> Iterator[tuple[str, list[bytes]]]:
    """A server that answers each request with the pieces, each sent by itself. Gives its address, and what it heard."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

        def answer(connection: socket.socket) -> None:
            with connection, suppress(OSError):  # clients that go away are part of the game
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                while request := connection.recv(65536):
                    heard.append(request)
                    for piece in pieces:
                        connection.sendall(piece)
                    if close:
                        return

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", heard
        listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    "answer",
    [
        [PLAIN],
        [bytes([one]) for one in PLAIN],
        [CHUNKED, _chunks(), b"0\r\n\r\n"],
        [CHUNKED + _chunks(1, 7, extra=b";name=value") + b"0\r\nChecksum: 1\r\nMore: 2\r\n\r\n"],
        [bytes([one]) for one in CHUNKED + _chunks(3) + b"0\r\n\r\n"],
        [b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + PLAIN],
        [PLAIN.replace(b"Content-Length: ", b"content-LENGTH:")],
    ],
    ids=["length", "bytes", "chunked", "trailers", "chunked bytes", "notes", "spelling"],
)
def test_an_answer_is_read_as_it_comes_and_its_connection_used_again(answer: list[bytes]) -> None:
    with _saying(*answer) as (url, heard), Client(url, patient=False) as client:
        assert client.health().status == client.health().status == "ok"
        assert len(client._transport._connection._idle) == 1  # type: ignore[union-attr]
    assert len(heard) == 2


@pytest.mark.parametrize(
    ("answer", "close"),
    [
        (PLAIN.replace(b"Content", b"Connection: close\r\nContent"), False),
        (PLAIN.replace(b"1.1", b"1.0"), False),
        (PLAIN + b"HTTP/1.1 200 OK\r\n", False),  # it goes on where nothing was asked
        (b"HTTP/1.1 200 OK\r\n\r\n" + BODY, True),  # its end is that of the connection
    ],
    ids=["close", "1.0", "more", "until closed"],
)
def test_a_connection_that_is_not_to_be_used_again_is_not(answer: bytes, close: bool) -> None:
    with _saying(answer, close=close) as (url, _), Client(url, patient=False) as client:
        client.health()
        idle = client._transport._connection._idle  # type: ignore[union-attr]
        assert [line for line in idle if line.is_quiet()] == []
        assert client.health().status == "ok"


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 fine\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * HEAD_LIMIT,
        b"HTTP/1.1 100 Continue\r\n\r\n" * (NOTES + 1) + PLAIN,
        CHUNKED + b"z\r\n",
        CHUNKED + b"\r\n",
        CHUNKED + b"-5\r\n" + BODY,
        CHUNKED + b"1" * (HEAD_LIMIT + 2),
        CHUNKED + _chunks()[:-2] + b"more\r\n0\r\n\r\n",
        CHUNKED + _chunks() + b"0\r\n" + b"A: b\r\n" * (TRAILERS + 1) + b"\r\n",
    ],
    ids=["ssh", "status", "head", "notes", "size", "no size", "negative", "endless size", "long chunk", "trailers"],
)
def test_what_is_no_answer_ends_at_once(answer: bytes) -> None:
    """Whoever says it keeps the connection open: nobody waits for what cannot become one."""
    with _saying(answer) as (url, heard), Client(url, timeout=20) as client, pytest.raises(Unreachable, match="broke"):
        client.health()
    assert len(heard) == TRIES


def test_a_request_is_one_packet_and_says_what_a_server_needs() -> None:
    with _saying(PLAIN) as (url, heard), Client(url, "t0ken", patient=False) as client:
        client.health()
        with pytest.raises(Exception, match="missing required field"):
            client.login("ada", "secret")
    get, post = heard
    place = url.removeprefix("http://").encode()
    assert get.startswith(b"GET /healthz HTTP/1.1\r\nHost: " + place + b"\r\nAccept-Encoding: identity\r\n")
    assert b"Content-Length" not in get
    head, _, body = post.partition(b"\r\n\r\n")
    assert b"\r\nContent-Length: %d" % len(body) in head
    assert body == b'{"username":"ada","password":"secret"}'


@pytest.mark.parametrize(
    ("url", "host"),
    [("http://a.example:80", "a.example"), ("https://a.example", "a.example"), ("http://[::1]:80", "[::1]"),
     ("http://[fe80::1%25lo]:8181", "[fe80::1]:8181")],
)  # fmt: skip
def test_the_host_is_named_as_everywhere(url: str, host: str) -> None:
    assert Connection(url, None)._head("GET", "/", {}, None).split(b"\r\n")[1] == f"Host: {host}".encode()


def test_no_header_has_two_lines() -> None:
    head: Callable[..., bytes] = Connection("http://a.example", None)._head
    with pytest.raises(BadRequest, match="several lines"):
        head("GET", "/", {"Idempotency-Key": "a\r\nAuthorization: Bearer b"}, None)


def test_a_client_that_nobody_closed_leaves_no_connection_also_where_it_is_in_a_circle() -> None:
    with _saying(PLAIN) as (url, _):
        kept = _of_a_circle(url)
        gc.collect()
    assert kept._sock.fileno() == -1


def _of_a_circle(url: str) -> KeptSocket:
    client = Client(url, patient=False)
    client.health()
    client._transport.uploading = lambda *_: client.close()
    [kept] = client._transport._connection._idle  # type: ignore[union-attr]
    return kept
