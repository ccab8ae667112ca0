"""Layers on a CUDA GPU: `pytest -m gpu tests/gpu`. Skipped, with the reason, where there is none.

QSTORE_TEST_DEVICE=cpu runs on the CPU whatever needs no CUDA: to work on the tests themselves.
"""

from __future__ import annotations

import os

import pytest
import torch

import qstore_core
from qstore_core import BackendUnavailableError, UnknownBackendError

DEVICE = os.environ.get("QSTORE_TEST_DEVICE", "cuda")


def why_not(cuda=True):
    """Why a test cannot run here, or ""."""
    if DEVICE == "cuda" and not torch.cuda.is_available():
        return "no CUDA GPU that PyTorch can use"
    return "needs CUDA itself" if cuda and DEVICE != "cuda" else ""


def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("gpu"):
            reason = why_not("cuda_only" in item.fixturenames)
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def device():
    """Where the tests' tensors are."""
    return torch.device(DEVICE)


@pytest.fixture(scope="session")
def cuda_only():
    """Asked for by tests that use CUDA's own interfaces."""


@pytest.fixture(scope="session", params=["torch", "triton"])
def backend(request):
    """Our engines for tensors on a GPU."""
    try:
        return qstore_core.get_backend(request.param).name
    except (BackendUnavailableError, UnknownBackendError) as error:
        pytest.skip(str(error))


@pytest.fixture
def fitting(backend):
    """`fitting(n_qubits, dtype)`: skip where the engine takes fewer."""

    def check(n_qubits, dtype="float32"):
        most = qstore_core.get_backend(backend).capabilities.max_qubits
        if most is not None and n_qubits > most:
            pytest.skip(f"backend {backend!r} takes at most {most} qubits in {dtype}")

    return check
