"""Fifty of the circuits of `python -m tests.differential`."""

from __future__ import annotations

import pytest

from tests.differential import compare_all

pytest.importorskip("pennylane")
pytest.importorskip("torch")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of other libraries about each other
def test_fifty_circuits():
    table = compare_all(0, 50)
    assert not table.failures, f"\n{table}"
