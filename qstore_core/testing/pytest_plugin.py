"""Pytest plugin: the conformance checks of backends named on the command line, or of a test's own choice.

    pytest -p qstore_core.testing.pytest_plugin --qstore-backend mine --qstore-option device=x tests/

Every test with an argument `qstore_check` runs once per check and backend:

    def test_conformance(qstore_check):
        qstore_check()
"""

from __future__ import annotations

from typing import Any

from .__main__ import option
from .kit import conformance_checks

__all__ = ["pytest_addoption", "pytest_generate_tests"]


def pytest_addoption(parser: Any) -> None:
    """Add the options."""
    group = parser.getgroup("qstore", "conformance of qstore backends")
    group.addoption("--qstore-backend", action="append", default=[], metavar="NAME", help="backend to check")
    group.addoption("--qstore-option", action="append", default=[], metavar="KEY=VALUE", help="option of that backend")
    group.addoption("--qstore-shots", type=int, default=4096, help="for backends that only sample")


def pytest_generate_tests(metafunc: Any) -> None:
    """One test per backend and check."""
    if "qstore_check" in metafunc.fixturenames:
        options = dict(map(option, metafunc.config.getoption("--qstore-option")))
        shots = metafunc.config.getoption("--qstore-shots")
        checks = [
            (name, check)
            for name in metafunc.config.getoption("--qstore-backend")
            for check in conformance_checks(name, shots=shots, **options)
        ]
        metafunc.parametrize(
            "qstore_check", [check for _, check in checks], ids=[f"{name}: {check}" for name, check in checks]
        )
