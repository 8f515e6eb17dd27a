"""The ledger of each test, and the seed of whatever it draws."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import pytest

from tests.faults.ledger import Ledger


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger")


@pytest.fixture
def seed() -> int:
    """A fresh one, which a failed test shows; SEED=N takes that one."""
    chosen = int(os.environ.get("SEED") or secrets.randbelow(2**32))
    print(f"seed {chosen}: SEED={chosen} plays this again")
    return chosen
