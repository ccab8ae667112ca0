"""What does not fit is refused before it is taken, by every engine, under the limits of this process."""

from __future__ import annotations

import importlib.util
import itertools
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from qstore_core import (
    Capabilities,
    Circuit,
    Expectation,
    MemoryLimitError,
    Observable,
    Pauli,
    Probabilities,
    QuantumKernel,
    QuantumLayer,
    Samples,
    get_backend,
)
from qstore_core.engines import memory
from qstore_core.runtime.narrow import check_narrow_memory

ROOT = Path(__file__).parents[3]
NEEDS = {"numba": "numba", "statevector": "numpy", "torch": "torch", "tensorflow": "tensorflow"}

LIMITED = """
import resource, sys, time
import numpy as np
from qstore_core import Circuit, Expectation, MemoryLimitError, get_backend
name, n = sys.argv[1], int(sys.argv[2])
backend = get_backend(name)
small = backend.compile(Circuit(2), Expectation("Z"))
small.forward(np.zeros(0, "float32"), np.zeros((1, 0), "float32"))
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
# What importing the framework has reserved does not count against the limit.
resource.setrlimit(resource.RLIMIT_AS, (used + (6 << 30), resource.RLIM_INFINITY))
begin = time.process_time()
try:
    backend.compile(Circuit(n), Expectation("Z"))
except MemoryLimitError as error:
    assert time.process_time() - begin < 1.0  # refused, not tried
    assert error.needed_bytes > error.available_bytes > 5 << 30
    print("refused")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of Linux")
@pytest.mark.parametrize("n", [26, 28])
@pytest.mark.parametrize("engine", NEEDS)
def test_a_limit_of_the_process_is_known(engine, n):
    if importlib.util.find_spec(NEEDS[engine]) is None:
        pytest.skip(f"needs {NEEDS[engine]}")
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, engine, str(n)], capture_output=True, text=True, check=False, cwd=ROOT,
        timeout=300,
    )  # fmt: skip
    assert done.stdout.strip() == "refused", done.stderr


def test_the_least_of_all_limits_counts(monkeypatch):
    monkeypatch.setattr(memory, "_group_limit", lambda: 8 << 30)
    monkeypatch.setattr(memory, "_physical_memory", lambda: 1 << 40)
    assert memory.available_memory() < 8 << 30
    memory.check_memory(20)
    with pytest.raises(MemoryLimitError, match="a state of 27 qubits cannot be simulated here"):
        memory.check_memory(27)


def test_a_batch_counts_where_it_is_held_at_once(monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 4 << 30)

    def check(**declared):
        capabilities = Capabilities(vjp=True, embedded=True, **declared)
        backend = SimpleNamespace(name="theirs", capabilities=capabilities)
        check_narrow_memory(Circuit(12), Expectation("Z"), backend, 100_000, "float32")

    with pytest.raises(
        MemoryLimitError, match="100000 states of 12 qubits cannot be simulated here by backend 'theirs'"
    ):
        check()
    check(rows_at_once=64)  # computed in chunks, as by numba
    assert get_backend("numba").capabilities.rows_at_once == 64


def test_small_circuits_are_not_looked_at(monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 0)
    memory.check_memory(12, rows=16)


def test_a_control_group_is_read(monkeypatch, tmp_path):
    """Whatever the version, the least of the group and of those it is in."""
    for number, (line, file) in enumerate(
        (("0::/a/b", "a/memory.max"), ("4:memory:/a/b", "memory/a/memory.limit_in_bytes"))
    ):
        root = tmp_path / str(number)
        (root / file).parent.mkdir(parents=True)
        (root / file).write_text("123456\n")
        (root / "cgroup").write_text(line + "\n")
        monkeypatch.setattr(
            memory, "Path", lambda p, root=root: root / str(p).replace("/sys/fs/cgroup", ".").replace("/proc/self/", "")
        )
        memory._group_limit.cache_clear()
        assert memory._group_limit() == 123456
    monkeypatch.undo()
    memory._group_limit.cache_clear()


def noisy(n_qubits, gates=0):
    """Layers of RY of inputs and CNOTs, with a channel and readout errors."""
    circuit = Circuit(n_qubits)
    x = circuit.inputs(n_qubits)
    for _ in range(gates):
        for q in range(n_qubits):
            circuit.ry(x[q], q)
        circuit.cnot(0, 1)
    circuit.depolarizing(0.1, 0)
    return circuit


def words(count, n_qubits, letters):
    return ["".join(word) for word in itertools.islice(itertools.product(letters, repeat=n_qubits), count)]


def layer_of(circuit, measurement, backend, rows=1, **arguments):
    return QuantumLayer(circuit, measurement, backend=backend, **arguments)(np.zeros((rows, circuit.n_inputs)))


def misread(n_qubits):
    circuit = Circuit(n_qubits)
    for q in range(n_qubits):
        circuit.readout_error(0.1, 0.2, q)
    return circuit


def crossing():
    """Strings of many kinds on qubits that are all entangled."""
    circuit = Circuit(16)
    for _ in range(4):
        for q in range(16):
            circuit.ry(0.3, q), circuit.cnot(q, (q + 3) % 16), circuit.rx(0.2, q)
    return circuit


LARGE = {
    "many rows of a density matrix": lambda: layer_of(noisy(2, 100), Expectation(), "density", 20_000),
    "many rows of trajectories": lambda: layer_of(noisy(2, 100), Expectation(), "trajectories", 20_000, shots=1),
    "many trajectories": lambda: layer_of(noisy(4), Expectation(), "trajectories", shots=10_000_000),
    "outcomes of many rows": lambda: layer_of(noisy(20), Probabilities(), "trajectories", 2_000, shots=10_000),
    "many observables": lambda: layer_of(
        Circuit(6), Expectation(observables=tuple(map(Pauli, words(3_000, 6, "IXYZ")))), "statevector"
    ),
    "observables of mixed states": lambda: layer_of(
        noisy(6), Expectation(observables=tuple(map(Pauli, words(3_000, 6, "IXYZ")))), "density"
    ),
    "observables of samples": lambda: layer_of(
        noisy(6), Expectation(observables=tuple(map(Pauli, words(3_000, 6, "IXYZ")))), "trajectories", shots=1
    ),
    "strings that are misread": lambda: layer_of(
        misread(10), Observable([(word, 1.0) for word in words(600, 10, "ZXY")]), "density"
    ),
    "strings of many kinds": lambda: layer_of(
        crossing(), Observable([(word, 1.0) for word in words(200, 16, "XZ")]), "statevector"
    ),
    "samples in order": lambda: layer_of(Circuit(8), Samples(2_000_000), "statevector"),
    "labels of a kernel": lambda: QuantumKernel("angle", n_qubits=2).alignment(np.zeros((2_000, 2)), range(2_000)),
}


@pytest.mark.parametrize("case", LARGE)
def test_what_is_large_without_many_qubits_is_asked_for_too(case, monkeypatch):
    """Each of these ran into a MemoryError, some after 20 s."""
    monkeypatch.setattr(memory, "available_memory", lambda: 20 << 20)
    with pytest.raises(MemoryLimitError) as refused:
        LARGE[case]()
    assert len(str(refused.value)) < 300
