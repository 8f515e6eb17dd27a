"""Limits that make no sense are refused by the SDK, by name, before anything leaves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hecaton.client import BadRequest, Client
from tests.client.scripted import ScriptedServer
from tests.core.test_options import SENSELESS, cases

Submission = Callable[[Client, dict[str, Any]], object]


@pytest.mark.parametrize(
    "submit",
    [
        lambda client, options: client.submit("my/image", 1, **options),
        lambda client, options: client.submit_many("my/image", [1, 2], **options),
        lambda client, options: list(client.map("my/image", [1, 2], **options)),
    ],
    ids=["submit", "submit_many", "map"],
)
@pytest.mark.parametrize(("name", "value"), cases(SENSELESS))
def test_limits_that_make_no_sense_are_not_sent(
    server: ScriptedServer, client: Client, submit: Submission, name: str, value: object
) -> None:
    with pytest.raises(BadRequest, match=f"^{name} is .*: expected "):
        submit(client, {name: value})
    assert server.seen == []


@pytest.mark.parametrize("seconds", [float("nan"), -1, -float("inf")])
def test_a_wait_that_makes_no_sense_is_refused(server: ScriptedServer, client: Client, seconds: float) -> None:
    with pytest.raises(BadRequest, match=r"^timeout is .*: expected seconds to wait"):
        client.wait(7, timeout=seconds)
    assert server.seen == []
