"""The server that most tests talk to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.server.running import Running, running


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Running]:
    """Leases last 30 s: nothing is lost by accident."""
    async with running(tmp_path / "server") as started:
        yield started


@pytest.fixture
async def hasty(tmp_path: Path) -> AsyncIterator[Running]:
    """Workers are lost after one second of silence."""
    async with running(tmp_path / "server", heartbeat=0.1, suspect_after=0.5, lost_after=1.0) as started:
        yield started
