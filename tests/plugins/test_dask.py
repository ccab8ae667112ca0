"""`dask`: on real processes, with workers and schedulers killed while they compute."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from qstore_core import (
    BackendError,
    CapabilityError,
    Circuit,
    Expectation,
    FallbackWarning,
    OptionError,
    QuantumFeatureExtractor,
    QuantumReadout,
    ShapeError,
    UnknownBackendError,
    cache_clear,
    cache_info,
    get_backend,
)
from qstore_core.testing import conformance_checks
from tests.plugins.dask_preload import FATAL, Fragile
from tests.support.reference import layer_outputs
from tests.support.tolerances import EXACT, EXACT_GRADIENT, GRADIENT, SIGMAS, VALUE

distributed = pytest.importorskip("distributed")

PRELOAD = str(Path(__file__).with_name("dask_preload.py"))
NOWHERE = "tcp://127.0.0.1:1"  # nobody listens there


@pytest.fixture(scope="module")
def client():
    """Of two worker processes."""
    options = {"dashboard_address": "127.0.0.1:0", "host": "127.0.0.1", "preload": [PRELOAD]}
    with (
        distributed.LocalCluster(n_workers=2, processes=True, threads_per_worker=1, **options) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        yield client


@pytest.fixture
def fragile(register):
    register("fragile", Fragile)


@pytest.fixture
def backends():
    """`backends(...)`: get_backend("dask", ...), closed after the test."""
    made = []

    def make(**options):
        made.append(get_backend("dask", **options))
        return made[-1]

    yield make
    for backend in made:
        backend.close()


@pytest.fixture
def threads():
    """`threads()`: those of connections that were opened since the test began."""
    before = set(threading.enumerate())
    return lambda: [t for t in threading.enumerate() if t not in before and t.name.startswith("qstore-dask")]


def angles(rows, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, 3))


def extractor(backend, **options):
    return QuantumFeatureExtractor(3, encoding="angle", measurement_bases=("Z", "X"), backend=backend, seed=1,
                                   **{"fallback": None} | options)  # fmt: skip


# -- values and gradients ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def conformant(client):
    return get_backend("dask", client=client, backend="statevector")


@pytest.mark.parametrize("number", range(len(conformance_checks("dask"))))
def test_conformance(conformant, number):
    conformance_checks(conformant)[number]()


@pytest.mark.parametrize("shards", [None, 1, 5])
@pytest.mark.parametrize("rows", [1, 7])
def test_values_and_gradients(client, rows, shards):
    layer, x = extractor(get_backend("dask", client=client, shards=shards)), angles(rows)
    np.testing.assert_allclose(layer(x), layer_outputs(layer.spec, layer.theta, x), rtol=0, atol=EXACT)
    cotangents = np.random.default_rng(1).normal(size=(rows, 6))
    for found, wanted in zip(layer.vjp(x, cotangents), extractor("statevector").vjp(x, cotangents), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=EXACT_GRADIENT)


def test_amplitudes_by_address_in_float32(client, backends):
    backend = backends(address=client.scheduler.address, backend="statevector")
    layer = QuantumFeatureExtractor(4, backend=backend, seed=2, fallback=None)
    own = QuantumFeatureExtractor(4, backend="statevector", seed=2)
    x = np.random.default_rng(3).normal(size=(9, 16)).astype(np.float32)
    assert layer(x).dtype == np.float32
    np.testing.assert_allclose(layer(x), own(x), rtol=0, atol=VALUE["float32"])
    for found, wanted in zip(layer.vjp(x, np.ones((9, 4))), own.vjp(x, np.ones((9, 4))), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=GRADIENT["float32"])


def test_an_empty_batch_needs_no_cluster(backends):
    backend = backends(address=NOWHERE)
    assert extractor(backend)(np.zeros((0, 3))).shape == (0, 6)
    circuit = Circuit(1)
    circuit.ry(circuit.weights(1)[0] + circuit.inputs(1)[0], 0)
    executable = backend.compile(circuit, Expectation(), dtype="float64")
    assert executable.forward(np.zeros(1), np.zeros((0, 1))).shape == (0, 1)
    d_theta, d_inputs = executable.vjp(np.zeros(1), np.zeros((0, 1)), np.zeros((0, 1)))
    assert (d_theta.tolist(), d_inputs.shape) == ([0.0], (0, 1))


def test_large_rows_make_more_shards(client, monkeypatch):
    from qstore_plugins import dask_cluster

    sent = []
    monkeypatch.setattr(dask_cluster, "_SHARD_BYTES", 100)  # four rows of three float64
    backend = get_backend("dask", client=client, shards=2)
    run = backend._link.run
    monkeypatch.setattr(backend._link, "run", lambda f, split: run(f, lambda n: sent.append(split(n)) or sent[-1]))
    layer, x = extractor(backend), angles(20)
    np.testing.assert_allclose(layer(x), layer_outputs(layer.spec, layer.theta, x), rtol=0, atol=EXACT)
    assert [len(shard.inputs) for shard in sent[0]] == [4] * 5


def test_circuits_are_compiled_once_per_worker(client):
    client.run(cache_clear)
    layer = extractor(get_backend("dask", client=client, shards=8))
    for seed in range(3):
        layer.vjp(angles(16, seed), np.ones((16, 6)))
    infos = client.run(cache_info).values()
    assert [info.misses for info in infos] == [1, 1]
    assert sum(info.hits for info in infos) == 3 * 2 * 8 - 2


def test_threads_share_a_backend(client, backends):
    layer = extractor(backends(address=client.scheduler.address))
    batches, found = [angles(5, seed) for seed in range(4)], {}
    workers = [threading.Thread(target=lambda k=k: found.update({k: layer(batches[k])})) for k in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for k, x in enumerate(batches):
        np.testing.assert_allclose(found[k], layer_outputs(layer.spec, layer.theta, x), rtol=0, atol=EXACT)


# -- shots ------------------------------------------------------------------------------------------------------------


def test_shots_come_from_the_seed(client):
    pytest.importorskip("qiskit_aer")
    x, options = np.full((6, 3), 0.4), {"client": client, "backend": "aer", "max_parallel_threads": 1}

    spec, theta = extractor("statevector").spec, np.asarray(extractor("statevector").theta, np.float64)

    def sampled(seed):
        backend = get_backend("dask", shards=3, **options)
        executable = backend.compile(spec.circuit, spec.measurement, dtype="float64", shots=200)
        return executable.value_and_report(theta, x, seed=seed)

    first, report = sampled(7)
    np.testing.assert_array_equal(sampled(7)[0], first)
    assert not np.array_equal(sampled(8)[0], first)
    assert len({tuple(row) for row in first}) == 6  # equal rows have samples of their own, in every shard
    exact = extractor("statevector")(x)
    assert report.std_error.shape == (6, 6)
    assert (np.abs(first - exact) < SIGMAS * np.sqrt(report.std_error**2 + 1 / 200**2)).all()


def test_what_the_inner_backend_cannot_do_is_said_at_once(backends):
    backend = backends(address=NOWHERE)
    assert (backend.capabilities.vjp, backend.capabilities.shots, backend.capabilities.remote) == (True, False, True)
    with pytest.raises(CapabilityError, match="exact values"):
        QuantumReadout(2, backend=backend, shots=10)
    with pytest.raises(CapabilityError, match="not shots"):
        backend.compile(Circuit(1), Expectation(), shots=10)


# -- faults -----------------------------------------------------------------------------------------------------------


def fatal_batch(row=7, rows=12):
    x = angles(rows)
    x[row, 0] = FATAL
    return x


def test_a_worker_killed_in_mid_batch_loses_nothing(client, fragile, tmp_path):
    before = set(client.nthreads())
    mark = tmp_path / "killed"
    backend = get_backend("dask", client=client, backend="fragile", trouble="kill", mark=str(mark), shards=6)
    layer, x = extractor(backend), fatal_batch()
    np.testing.assert_allclose(layer(x), layer_outputs(layer.spec, layer.theta, x), rtol=0, atol=EXACT)
    assert mark.exists()
    mark.unlink()  # and once more, in the backward half
    for found, wanted in zip(layer.vjp(x, np.ones((12, 6))), extractor("statevector").vjp(x, np.ones((12, 6))),
                             strict=True):  # fmt: skip
        np.testing.assert_allclose(found, wanted, rtol=0, atol=EXACT_GRADIENT)
    assert mark.exists()
    client.wait_for_workers(2, timeout=60)
    assert set(client.nthreads()) != before


def test_a_shard_that_kills_worker_after_worker_is_an_error(client, fragile, tmp_path, monkeypatch):
    monkeypatch.setattr(client.cluster.scheduler, "allowed_failures", 0)
    backend = get_backend("dask", client=client, backend="fragile", trouble="kill", mark=str(tmp_path / "killed"))
    with pytest.raises(BackendError, match="did not finish: KilledWorker"):
        extractor(backend)(fatal_batch())
    client.wait_for_workers(2, timeout=60)


def test_errors_of_workers_come_back_as_what_they_are(client, fragile):
    options = {"client": client, "backend": "fragile", "shards": 4}
    with pytest.raises(ShapeError, match="of the caller") as mistake:
        extractor(get_backend("dask", trouble="mistake", **options), fallback="auto")(fatal_batch())
    assert mistake.value.received == (1, 2)
    assert "dask_preload.py" in mistake.value.__notes__[0]  # where it happened, on the worker
    broken = get_backend("dask", trouble="error", **options)
    with pytest.raises(BackendError, match=r"on Dask worker tcp://.*OSError.*the lamp is broken"):
        extractor(broken)(fatal_batch())
    with pytest.warns(FallbackWarning, match="the lamp is broken"):
        values = extractor(broken, fallback="auto")(fatal_batch())
    np.testing.assert_allclose(values, extractor("statevector")(fatal_batch()), rtol=0, atol=EXACT)


def test_a_backend_that_only_the_workers_have(client):
    """No `fragile` fixture here: this process has no backend of that name."""
    layer = extractor(get_backend("dask", client=client, backend="fragile", trouble="error"))
    x = angles(4)
    np.testing.assert_allclose(layer(x), layer_outputs(layer.spec, layer.theta, x), rtol=0, atol=EXACT)
    with pytest.raises(UnknownBackendError, match="no backend named 'fragil'"):
        get_backend("dask", client=client, backend="fragil")


def test_an_unreachable_address_is_an_error_in_time(backends, threads):
    backend = backends(address=NOWHERE, timeout=0.5)
    for _ in range(2):
        with pytest.raises(BackendError, match=r"no Dask scheduler.*127\.0\.0\.1:1 within 0\.5 s"):
            extractor(backend)(angles(2))
    with pytest.warns(FallbackWarning, match="'statevector' computes the same circuit"):
        values = extractor(backend, fallback="auto")(angles(2))
    np.testing.assert_allclose(values, extractor("statevector")(angles(2)), rtol=0, atol=EXACT)
    backend.close()
    assert not threads()


def test_a_cluster_that_was_stopped(backends):
    cluster = distributed.LocalCluster(
        n_workers=1, processes=False, protocol="tcp", host="127.0.0.1", dashboard_address="127.0.0.1:0"
    )
    with cluster:
        backend = backends(address=cluster.scheduler_address, timeout=1.0)
        layer, x = extractor(backend, fallback="auto"), angles(4)
        wanted = layer(x)
    with pytest.warns(FallbackWarning, match="no Dask scheduler"):
        np.testing.assert_allclose(layer(x), wanted, rtol=0, atol=EXACT)
    with pytest.raises(BackendError, match="no Dask scheduler"):
        extractor(backend)(x)


def test_a_cluster_without_workers(backends):
    with distributed.LocalCluster(
        n_workers=0, protocol="tcp", host="127.0.0.1", dashboard_address="127.0.0.1:0"
    ) as cluster:
        backend = backends(address=cluster.scheduler_address, timeout=0.5)
        with pytest.raises(BackendError, match="it has no workers"):
            extractor(backend)(angles(2))


@pytest.fixture
def processes(tmp_path):
    """A scheduler and a worker as processes of their own: address, and the scheduler's process number."""
    where, started = tmp_path / "scheduler.json", []

    def start(module, *arguments):
        command = [sys.executable, "-m", f"distributed.cli.{module}", *arguments]
        started.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        return started[-1]

    try:
        scheduler = start("dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0",
                          "--no-show", "--scheduler-file", str(where))  # fmt: skip
        while not where.exists() or not where.read_text().endswith("}"):
            assert scheduler.poll() is None
            time.sleep(0.05)
        address = json.loads(where.read_text())["address"]
        start("dask_worker", address, "--no-nanny", "--nthreads", "1", "--no-dashboard", "--preload", PRELOAD)
        yield address, scheduler.pid
    finally:
        for process in started:
            process.kill()
            process.wait()


def test_a_scheduler_killed_in_mid_batch(processes, fragile, backends, tmp_path):
    address, number = processes
    mark = tmp_path / "killed"
    backend = backends(
        address=address, backend="fragile", trouble="kill", mark=str(mark), process=number, shards=4, timeout=60.0
    )
    np.testing.assert_allclose(extractor(backend)(angles(4)), extractor("statevector")(angles(4)), rtol=0, atol=EXACT)
    with pytest.warns(FallbackWarning, match="backend 'dask' failed"):
        values = extractor(backend, fallback="auto")(fatal_batch())
    assert mark.exists()
    np.testing.assert_allclose(values, extractor("statevector")(fatal_batch()), rtol=0, atol=EXACT)


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="no SIGSTOP")
def test_a_scheduler_that_does_not_answer(processes, backends):
    address, number = processes
    backend = backends(address=address, timeout=60.0)
    layer, x = extractor(backend, fallback="auto"), angles(4)
    wanted = layer(x)
    backend._link.timeout = 0.5  # it did start
    os.kill(number, signal.SIGSTOP)
    with pytest.warns(FallbackWarning, match=r"within 0\.5 s: TimeoutError"):
        np.testing.assert_allclose(layer(x), wanted, rtol=0, atol=EXACT)
    backend.close()  # does not wait for it either
    os.kill(number, signal.SIGCONT)
    backend._link.timeout = 60.0
    np.testing.assert_allclose(extractor(backend)(x), wanted, rtol=0, atol=EXACT)


# -- resources and options --------------------------------------------------------------------------------------------


def test_close_leaves_no_thread_and_the_next_call_opens_again(client, backends, threads):
    backend = backends(address=client.scheduler.address)
    layer, x = extractor(backend), angles(4)
    first = layer(x)
    assert threads()
    backend.close()
    assert not threads()
    np.testing.assert_array_equal(layer(x), first)
    backend.close()
    backend.close()
    assert not threads()


LEFT_OPEN = """
import os, sys
import numpy as np
from qstore_core import QuantumFeatureExtractor, get_backend
layer = QuantumFeatureExtractor(2, backend=get_backend("dask", address=sys.argv[1]), fallback=None, seed=0)
first = layer(np.ones((3, 4)))
child = os.fork()
same = np.array_equal(layer(np.ones((3, 4))), first)
if child:
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert same
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_forked_children_and_exit(client):
    """A child has a connection of its own; both end without a word, though neither calls close()."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", LEFT_OPEN, client.scheduler.address],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "needs one of address="),
        ({"address": NOWHERE, "client": object()}, "needs one of address="),
        ({"client": object()}, "synchronous distributed.Client"),
        ({"address": "smoke://signals"}, "address= of a Dask scheduler"),
        ({"address": NOWHERE, "backend": "dask"}, "names what computes on the workers"),
        ({"address": NOWHERE, "backend": None}, "names what computes on the workers"),
        ({"address": NOWHERE, "shards": 0}, "shards is a whole number"),
        ({"address": NOWHERE, "timeout": 0}, "timeout is a number of seconds"),
        ({"address": NOWHERE, "mehtod": "x"}, "no option .mehtod."),
        ({"address": NOWHERE, "noise": threading.Lock()}, "do not pickle"),
    ],
)
def test_options(options, message):
    with pytest.raises(OptionError, match=message):
        get_backend("dask", **options)


def test_the_users_client_stays_open(client):
    backend = get_backend("dask", client=client)
    extractor(backend)(angles(2))
    backend.close()
    assert client.status == "running"
