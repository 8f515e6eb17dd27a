"""One table of errors for both ends: what the server raises is what the client raises."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hecaton.core import errors
from hecaton.wire.errors import STATUS, from_reply, from_status, said_by_a_server, to_reply

CLIENT_ONLY = {errors.Unreachable, errors.WaitTimeout, errors.JobFailed}


def test_every_error_that_a_server_can_raise_has_a_status() -> None:
    assert set(errors.HecatonError.__subclasses__()) == set(STATUS) | CLIENT_ONLY


def test_every_error_has_a_code_of_its_own() -> None:
    kinds: list[type[errors.HecatonError]] = [errors.HecatonError, *errors.HecatonError.__subclasses__()]
    codes = [kind.code for kind in kinds]
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize("kind", STATUS)
@pytest.mark.parametrize("hint", [None, "do this next"])
def test_an_error_arrives_as_it_was_raised(kind: type[errors.HecatonError], hint: str | None) -> None:
    status, reply = to_reply(kind("what happened to job 7", hint))
    arrived = from_reply(status, msgspec.json.encode(reply))
    assert type(arrived) is kind
    assert (arrived.message, arrived.hint) == ("what happened to job 7", hint)
    assert status == STATUS[kind]


def test_a_code_of_a_newer_server_falls_back_to_its_status() -> None:
    body = b'{"error":{"code":"brand_new","message":"m","hint":"h","more":1},"trace":"x"}'
    assert type(from_reply(404, body)) is errors.NotFound
    assert type(from_reply(507, body)) is errors.Unavailable


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, errors.Unreachable),
        (404, errors.Unreachable),
        (407, errors.Unreachable),
        (413, errors.Unreachable),
        (418, errors.Unreachable),
        (429, errors.TooMany),
        (500, errors.Unavailable),
        (502, errors.Unavailable),
        (504, errors.Unavailable),
    ],
)
@pytest.mark.parametrize("body", [b"", b"<html>502</html>", b'{"error":{"co', b"null", b"[]", b"\xff\xfe"])
def test_answers_of_a_proxy_in_between_are_errors_too(
    status: int, kind: type[errors.HecatonError], body: bytes
) -> None:
    arrived = from_reply(status, body, "nginx/1.22.1")
    assert ("the path below which" in str(arrived.hint)) is (status == 404)
    assert type(arrived) is kind
    assert f"status {status}" in arrived.message
    assert "nginx/1.22.1" in arrived.message
    assert "proxy" in (arrived.hint or "")
    assert not said_by_a_server(body)


def test_a_limit_of_a_proxy_is_named_with_what_raises_it() -> None:
    assert "client_max_body_size" in (from_reply(413, b"<html>").hint or "")
    assert "http://USER:PASSWORD@" in (from_reply(407, b"").hint or "")


@pytest.mark.parametrize(("status", "kind"), [(401, errors.Unauthenticated), (404, errors.NotFound)])
def test_an_answer_that_can_have_no_body_is_told_by_its_status(status: int, kind: type[errors.HecatonError]) -> None:
    assert type(from_status(status)) is kind


@given(st.integers(400, 599), st.binary(max_size=200))
def test_no_answer_makes_the_client_stumble(status: int, body: bytes) -> None:
    assert from_reply(status, body).message
