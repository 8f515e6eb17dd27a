"""The server's clock."""

from __future__ import annotations

import time

import pytest

from hecaton.server.clock import Clock


@pytest.mark.parametrize("seconds", [-3600.0, 3600.0])
def test_a_jump_of_the_wall_clock_moves_nothing(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    before, wall = clock.now(), time.time
    monkeypatch.setattr(time, "time", lambda: wall() + seconds)
    assert 0 <= clock.now() - before < 1000
