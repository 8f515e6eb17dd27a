"""Loads the fixtures of the real Docker engine for all tests."""

from __future__ import annotations

pytest_plugins = ["tests.engine.fixtures"]
