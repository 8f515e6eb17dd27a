"""Lets the contract's plain asserts explain themselves as those in test files do."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite(
    "tests.contracts.store_accounts",
    "tests.contracts.store_attempts",
    "tests.contracts.store_batches",
    "tests.contracts.store_queue",
    "tests.contracts.store_scene",
    "tests.contracts.store_transactions",
    "tests.contracts.store_views",
)
