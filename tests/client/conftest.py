"""A server told what to answer, and a client of it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest

from hecaton.client import Client, http, jobs
from tests.client.scripted import ScriptedServer


@pytest.fixture(autouse=True)
def _quick_and_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing from the environment of whoever runs the tests; pauses as short as tests like them."""
    monkeypatch.delenv("HECATON_CA_FILE", raising=False)
    monkeypatch.setattr(http, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(jobs, "PACE", 0.02)


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as running:
        yield running


@pytest.fixture
def client(server: ScriptedServer) -> Iterator[Client]:
    # A connection that is left open is a fault.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with Client(server.url, "t0ken", timeout=5.0, follow=False) as made:
            yield made
