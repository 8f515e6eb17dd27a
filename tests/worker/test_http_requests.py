"""From a payload to the request that it is, and from an answer to a result. Pure."""

from __future__ import annotations

import bz2
import json

import msgspec
import pytest

from hecaton.core.model import AttemptRef, JobId, Kind, Reason
from hecaton.worker.doors.http.requests import QUOTED, HttpRequest, Unusable, refused, request_of, result_of

REF = AttemptRef(JobId("job"), 1)


def asked(payload: object, kind: Kind = Kind.JSON) -> HttpRequest:
    return request_of(kind, json.dumps(payload).encode(), "/predict")


@pytest.mark.parametrize(
    ("kind", "content_type"),
    [
        (Kind.JSON, "application/json"),
        (Kind.TEXT, "text/plain; charset=utf-8"),
        (Kind.BYTES, "application/octet-stream"),
    ],
)
def test_a_payload_is_posted_as_what_it_is(kind: Kind, content_type: str) -> None:
    request = request_of(kind, b"[1]", "/predict")
    assert request == HttpRequest("POST", "/predict", {"Content-Type": content_type}, b"[1]")


@pytest.mark.parametrize("payload", [{}, {"body": 1}, {"path": "/x", "prompt": "y"}, ["/x"], "path", {"query": {}}])
def test_an_object_with_anything_else_in_it_is_no_request(payload: object) -> None:
    assert asked(payload).target == "/predict"
    assert asked(payload).body == json.dumps(payload).encode()


def test_a_request_may_say_all_that_there_is_to_say() -> None:
    said = {"method": "put", "path": "/a b/ä", "query": {"n": 1, "w": "x y", "f": True}, "headers": {"X-A": "1"}}
    request = asked({**said, "body": {"k": "v"}})
    assert (request.method, request.target) == ("PUT", "/a%20b/%C3%A4?n=1&w=x%20y&f=true")
    assert request.headers == {"Content-Type": "application/json", "X-A": "1"}
    assert request.body == b'{"k": "v"}'


def test_what_has_no_body_is_a_get_and_what_has_one_is_posted() -> None:
    assert (asked({"path": "/x"}).method, asked({"path": "/x", "body": None}).body) == ("GET", None)
    assert (asked({"path": "/x", "body": "y"}).method, asked({"path": "/x", "body": "y"}).body) == ("POST", b"y")
    assert asked({"path": "/x", "body": "y"}).headers == {"Content-Type": "text/plain; charset=utf-8"}
    own = asked({"path": "/x", "body": "<a/>", "headers": {"content-type": "text/xml"}})
    assert own.headers == {"content-type": "text/xml"}


def test_a_path_may_have_its_query_and_its_escapes_already() -> None:
    assert asked({"path": "/x?a=1", "query": {"b": 2}}).target == "/x?a=1&b=2"
    assert asked({"path": "/x%2Fy"}).target == "/x%2Fy"


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        ({"method": "FETCH"}, "the method is 'FETCH'"),
        ({"path": "x"}, "it begins with a slash"),
        ({"path": "http://elsewhere/x"}, "it begins with a slash"),
        ({"path": 1}, "it looks like a request"),
        ({"path": "/x", "headers": {"A": "b\r\nC: d"}}, "no header"),
        ({"path": "/x", "headers": {"A:": "b"}}, "no header"),
    ],
)
def test_what_no_request_can_be_is_said(payload: object, why: str) -> None:
    with pytest.raises(Unusable, match=why):
        asked(payload)


def test_lines_in_a_path_are_escaped_and_make_no_second_request() -> None:
    assert asked({"path": "/x HTTP/1.1\r\nHost: y"}).target == "/x%20HTTP/1.1%0D%0AHost:%20y"


@pytest.mark.parametrize(
    ("content_type", "body", "kind", "data"),
    [
        ("application/json", b"{}", Kind.JSON, b"{}"),
        ("application/problem+json; charset=utf-8", b"{}", Kind.JSON, b"{}"),
        ("text/html; charset=ISO-8859-1", b"\xe4", Kind.TEXT, "ä".encode()),
        ("text/plain", "ä".encode(), Kind.TEXT, "ä".encode()),
        ("text/plain; charset=nonsense", b"x", Kind.BYTES, b"x"),
        ("text/plain; charset=rot13", b"x", Kind.BYTES, b"x"),
        ("text/plain; charset=zlib", b"x", Kind.BYTES, b"x"),
        ("text/plain; charset=bz2", bz2.compress(b"x"), Kind.BYTES, bz2.compress(b"x")),
        ("text/plain; charset=punycode-", b"x-", Kind.BYTES, b"x-"),
        ("text/plain", b"\xff", Kind.BYTES, b"\xff"),
        ("image/png", b"\x89", Kind.BYTES, b"\x89"),
        ("", b"x", Kind.BYTES, b"x"),
        ("text/plain", b"", Kind.JSON, b"null"),
    ],
)
def test_the_answers_type_says_what_the_result_is(content_type: str, body: bytes, kind: Kind, data: bytes) -> None:
    answer = result_of(REF, content_type, body)
    assert (answer.reason, answer.kind, answer.data) == (Reason.OK, kind, data)


def test_a_refusal_quotes_the_beginning_of_what_was_said() -> None:
    answer = refused(REF, asked({"path": "/x"}), 500, "Internal Server Error", None, b"y" * 9999)
    assert answer.failure is not None
    assert answer.failure.message == "GET /x was answered with 500 Internal Server Error"
    assert answer.failure.traceback == "y" * QUOTED


def test_a_head_that_is_no_text_is_quoted_as_text() -> None:
    """As aiohttp reads it: a worker could not send it on."""
    half = b"\xff".decode("utf-8", "surrogateescape")
    answer = refused(REF, asked({"path": "/x"}), 302, half, half, b"\xff")
    assert answer.failure is not None
    assert answer.failure.message == "GET /x was answered with 302 ?, another place: ?"
    assert msgspec.json.encode(answer.failure)
