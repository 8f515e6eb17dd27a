"""Loads the fixtures of the real Docker engine for all tests, and takes the clock out of the made-up examples."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.engine.fixtures"]

# No test asserts a time: a busy machine must not fail an example that is right.
settings.register_profile("hecaton", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("hecaton")
