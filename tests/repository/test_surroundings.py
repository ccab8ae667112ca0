"""Where layers are really called: notebooks and servers with a loop of their own, and forked workers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time

import numpy as np
import pytest

from qstore_core import QuantumFeatureExtractor, close
from tests.support.job_service import HttpBackend, Service
from tests.support.tolerances import EXACT

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


@contextlib.contextmanager
def served(app):
    """The address of a real server on a thread of its own, which stops at the end."""
    uvicorn = pytest.importorskip("uvicorn")
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        patience = time.monotonic() + PATIENCE
        while not server.started:
            assert thread.is_alive()
            assert time.monotonic() < patience, "the server did not start"
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
    assert not thread.is_alive()


def test_a_web_server(layer):
    """FastAPI runs `async def` handlers on its loop, and plain ones on threads: both call the same layer, at once."""
    fastapi, httpx = pytest.importorskip("fastapi"), pytest.importorskip("httpx")
    x, expected = points(12), layer_on("statevector")(points(12))
    app = fastapi.FastAPI()

    @app.get("/awaited")
    async def awaited(a: float, b: float) -> list[float]:
        return (await layer.call_async([[a, b]]))[0].tolist()

    @app.get("/blocking")
    async def blocking(a: float, b: float) -> list[float]:
        return layer([[a, b]])[0].tolist()

    @app.get("/thread")
    def thread(a: float, b: float) -> list[float]:
        return layer([[a, b]])[0].tolist()

    async def ask(address):
        async with httpx.AsyncClient(base_url=address, trust_env=False, timeout=PATIENCE) as client:
            kinds = ("awaited", "blocking", "thread")
            return await asyncio.gather(
                *(client.get(kinds[k % 3], params={"a": a, "b": b}) for k, (a, b) in enumerate(x))
            )

    with served(app) as address:
        answers = asyncio.run(ask(address))
    np.testing.assert_allclose([answer.json() for answer in answers], expected, rtol=0, atol=EXACT)


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
