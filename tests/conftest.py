"""What all tests share: hypothesis profiles, and a clean state of what is global to the process.

Profiles: "repeatable" (the default) draws the same examples every time, so that a failure is a change in the code;
`HYPOTHESIS_PROFILE=explore` draws new ones, more of them, to hunt with.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

import qstore_core

_COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow], "print_blob": True}
settings.register_profile("repeatable", derandomize=True, database=None, max_examples=50, **_COMMON)
settings.register_profile("explore", max_examples=500, **_COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


@pytest.fixture
def register():
    """`register(name, backend)`: register_backend, undone after the test."""
    names = []

    def add(name, backend):
        qstore_core.register_backend(name, backend)
        names.append(name)

    yield add
    for name in names:
        qstore_core.unregister_backend(name)


@pytest.fixture
def empty_cache():
    """An empty circuit cache, before and after."""
    qstore_core.cache_clear()
    yield
    qstore_core.cache_clear()


@pytest.fixture
def zero_fallback_counts():
    """Fallback counters at zero, before and after."""
    qstore_core.reset_fallback_counts()
    yield
    qstore_core.reset_fallback_counts()
