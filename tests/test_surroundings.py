"""Where layers are really called: notebooks and servers with a loop of their own, and forked workers."""

from __future__ import annotations

import asyncio
import os
import signal

import numpy as np
import pytest

from qstore_core import QuantumFeatureExtractor, close
from tests.job_service import HttpBackend, Service
from tests.tolerances import EXACT

PATIENCE = 60  # seconds that a forked child may take before it counts as hung


@pytest.fixture(scope="module")
def service():
    with Service() as running:
        yield running
    close()


def layer_on(backend):
    return QuantumFeatureExtractor(2, depth=1, encoding="angle", backend=backend, fallback=None, seed=0)


def points(rows=3):
    return np.random.default_rng(0).uniform(-2, 2, (rows, 2))


@pytest.fixture(params=["local", "jobs"])
def layer(request, service):
    return layer_on("statevector" if request.param == "local" else HttpBackend(service.port))


def test_a_notebook(layer):
    """A cell runs inside the kernel's loop: a plain call blocks it, an awaited one does not."""
    x, expected = points(), layer_on("statevector")(points())

    async def cell():
        np.testing.assert_allclose(layer(x), expected, rtol=0, atol=EXACT)
        values = await asyncio.gather(*(layer.call_async(x[k : k + 1]) for k in range(3)))
        np.testing.assert_allclose(np.concatenate(values), expected, rtol=0, atol=EXACT)

    asyncio.run(cell())
    asyncio.run(cell())  # a kernel that was started again has another loop


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_forked_child_calls_a_layer_that_its_parent_has_called(layer):
    x = points()
    expected = layer(x)  # the loop thread runs, where there is one
    child = os.fork()
    if child == 0:
        signal.alarm(PATIENCE)
        right = False
        try:
            right = bool(np.abs(layer(x) - expected).max() <= EXACT)
        finally:
            os._exit(0 if right else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    np.testing.assert_allclose(layer(x), expected, rtol=0, atol=EXACT)


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_forked_data_loader_workers(layer):
    torch = pytest.importorskip("torch")
    x = points(8)
    expected = layer(x)

    class Encoded(torch.utils.data.Dataset):
        def __len__(self):
            return len(x)

        def __getitem__(self, index):
            return torch.from_numpy(layer(x[index : index + 1])[0])

    loader = torch.utils.data.DataLoader(
        Encoded(), batch_size=4, num_workers=2, multiprocessing_context="fork", timeout=PATIENCE
    )
    np.testing.assert_allclose(torch.cat(list(loader)).numpy(), expected, rtol=0, atol=EXACT)
