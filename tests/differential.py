"""Random circuits on every engine, backend and framework, against PennyLane and Qiskit.

    python -m tests.differential --circuits 500

Values and both gradients of exact circuits, values of noisy ones (Kraus operators by hand on `default.mixed`), means of
sampled ones. Prints the worst error per subject and dtype, with the seed that gave it; `--seed S --circuits 1` repeats
one circuit.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from types import SimpleNamespace

import numpy as np

from qstore_core import (
    Amplitudes,
    Capabilities,
    Circuit,
    Covariance,
    DensityMatrix,
    Expectation,
    Fidelity,
    Pauli,
    Probabilities,
    Purity,
    QuantumLayer,
    State,
    Variance,
    get_backend,
    lower,
)
from qstore_core.circuit.gates.table import GATES
from qstore_core.engines.arrays.adjoint import value_and_vjp
from qstore_core.engines.arrays.numpy_ops import NumpyOps
from qstore_core.engines.arrays.planes import PlanesOps
from qstore_core.engines.arrays.program import ArrayProgram
from tests.support.tolerances import (
    FLOAT32_SUM,
    GRADIENT,
    NOISY,
    SIGMAS,
    SQUARED,
    SUM,
    SUM_GRADIENT,
    VALUE,
    allow,
    angle_stretch,
)

SHOTS = 4096
SAMPLED_EVERY, NOISY_EVERY, DEVICES_EVERY = 10, 10, 5
KERAS_EVERY, JAX_EVERY = 10, 100  # their operations are compiled one by one for every circuit
NUMPY = ("numba", "statevector", "density", "planes")
ENGINES = {"torch": "torch", "tensorflow": "tensorflow", "jax": "jax"}
DEVICES = ("aer", "pennylane")


def has(module):
    return importlib.util.find_spec(module) is not None


def random_layer(seed):
    """`(circuit, measurement, theta, features (3, F), cotangents)` of one to six qubits, all gates of the table."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 7))
    circuit = Circuit(n, amplitudes=bool(rng.random() < 0.4))
    w, x = circuit.weights(int(rng.integers(1, 7))), circuit.inputs(int(rng.integers(1, 4)))
    slots = [*w, *x]
    fitting = [name for name in GATES if GATES[name].n_qubits <= n]
    for name in rng.choice(fitting, size=int(rng.integers(1, 25))):
        qubits = rng.permutation(n)[: GATES[name].n_qubits].tolist()
        params = rng.uniform(-3, 3, GATES[name].n_params).tolist()
        if rng.random() < 0.8:  # PennyLane takes no mixture of numbers and tensors
            pairs = rng.integers(len(slots), size=(len(params), 2))
            params = [
                [a, 2 * a, a * b, a - 0.5 * b][rng.integers(4)] for a, b in (map(slots.__getitem__, p) for p in pairs)
            ]
        circuit.append(str(name), qubits, params)
    qubits = tuple(rng.permutation(n)[: int(rng.integers(1, n + 1))].tolist())
    strings = ["".join(rng.choice(list("IXYZ"), n)) for _ in range(3)]
    vector = rng.normal(size=(2, 1 << n)).T @ (1, 1j)
    some = qubits[:2]
    measurement = [
        Expectation(tuple(rng.permutation(list("XYZ"))[: int(rng.integers(1, 4))])),
        Expectation(observables=(Pauli(strings[0]) + 0.5 * Pauli(strings[1]), -1.5 * Pauli(strings[2]))),
        Probabilities(qubits),
        Probabilities(n_classes=int(rng.integers(1, (1 << n) + 1))),
        Variance(Pauli(strings[0]) + 0.5 * Pauli(strings[1])),
        Covariance(Pauli(strings[0]), Pauli(strings[1]) - 0.5 * Pauli(strings[2])),
        DensityMatrix(some),
        Purity(some),
        Fidelity(vector / np.linalg.norm(vector)),
        State(),
    ][rng.integers(10)]  # fmt: skip
    features = rng.normal(size=(3, circuit.n_amplitudes + circuit.n_inputs))
    return circuit, measurement, rng.normal(size=circuit.n_weights), features, rng


_VALUES = {"float64": VALUE["float64"], "float32": SUM}
_GRADIENTS = {"float64": GRADIENT["float64"], "float32": SUM_GRADIENT}


@dataclass
class Table:
    """Worst errors by subject, dtype and quantity, as parts of what is allowed."""

    worst: dict[tuple[str, str, str], tuple[float, float, int]] = field(default_factory=dict)
    counts: dict[tuple[str, str], int] = field(default_factory=dict)

    def add(self, subject, dtype, quantity, received, expected, allowed, seed):
        received, expected = (np.ascontiguousarray(array) for array in (received, expected))
        assert received.dtype.kind == expected.dtype.kind, (subject, quantity, received.dtype, seed)
        if expected.dtype.kind == "c":
            received, expected = received.astype(complex).view(float), expected.astype(complex).view(float)
        assert received.shape == expected.shape, (subject, quantity, received.shape, expected.shape, seed)
        error = float(np.abs(received - expected).max(initial=0.0))
        error = error if np.isfinite(error) else np.inf
        key = subject, dtype, quantity
        if error / allowed >= self.worst.get(key, (-1.0, 0.0, 0))[0]:
            self.worst[key] = error / allowed, error, seed
        if quantity in ("values", "samples"):
            self.counts[subject, dtype] = self.counts.get((subject, dtype), 0) + 1

    @property
    def failures(self):
        return [f"{' '.join(key)}: {e:.1e}, seed {s}" for key, (part, e, s) in self.worst.items() if not part <= 1.0]

    def __str__(self):
        names = ("values", "d theta", "d features", "samples")
        lines = [f"{'subject':<28}{'dtype':<9}{'circuits':>8}" + "".join(f"{name:>24}" for name in names)]
        for subject, dtype in self.counts:
            cells = []
            for name in names:
                part, error, seed = self.worst.get((subject, dtype, name), (None, 0.0, 0))
                cells.append("" if part is None else f"{error:.1e} (seed {seed})")
            count = self.counts[subject, dtype]
            lines.append(f"{subject:<32}{dtype:<9}{count:>8}" + "".join(f"{cell:>24}" for cell in cells))
        return "\n".join(lines)


def reference(layer, theta, features, cotangents):
    """Values and both gradients by PennyLane, in float64."""
    import torch

    from tests.backends.test_reference_libraries import by_pennylane

    tensors = [torch.from_numpy(np.array(array, float)).requires_grad_() for array in (theta, features)]
    values = by_pennylane(primitive(layer), *tensors)
    if layer.spec.postprocesses:
        from qstore_torch.engine import OPS

        values = layer.spec.measurement.postprocess(OPS, values, 2.0**-52)
    if values.requires_grad:
        values.backward(torch.from_numpy(cotangents))
    gradients = [np.zeros(t.shape) if t.grad is None else t.grad.numpy() for t in tensors]
    return values.detach().numpy(), *gradients


def primitive(layer):
    """The layer of what backends compute."""
    return QuantumLayer(layer.spec.primitive.circuit, layer.spec.primitive.measurement, backend="statevector", seed=0)


class Planes:
    """The engine on pairs of real numbers, as a backend."""

    name = "planes"
    capabilities = Capabilities(vjp=True, embedded=True, amplitudes=True)

    def compile(self, circuit, measurement, *, dtype="float32", shots=None):
        program, ops = ArrayProgram(lower(circuit, measurement)), PlanesOps(NumpyOps(), double=True)
        return SimpleNamespace(
            forward=lambda theta, inputs: program.forward(ops, theta, inputs),
            value_and_vjp=lambda theta, inputs: value_and_vjp(program, ops, theta, inputs),
        )


def by_numpy(name, arguments, theta, features, cotangents):
    layer = QuantumLayer(*arguments, backend=Planes() if name == "planes" else name, seed=0)
    layer.theta = theta
    return layer(features), *layer.vjp(features, cotangents)


def by_torch(name, arguments, theta, features, cotangents):
    import torch

    import qstore_torch

    layer = qstore_torch.QuantumLayer(*arguments, backend=name, seed=0).to(getattr(torch, str(theta.dtype)))
    with torch.no_grad():
        layer.theta.copy_(torch.from_numpy(theta))
    x = torch.from_numpy(features).requires_grad_()
    values = layer(x)
    values.backward(torch.from_numpy(cotangents))
    gradients = [t.new_zeros(t.shape) if t.grad is None else t.grad for t in (layer.theta, x)]
    return values.detach().numpy(), *(g.numpy() for g in gradients)


def by_tensorflow(name, arguments, theta, features, cotangents):
    import tensorflow as tf

    import qstore_tf

    layer = qstore_tf.QuantumLayer(*arguments, backend=name, seed=0, dtype=str(theta.dtype))
    layer.build(features.shape)
    layer.theta.assign(theta)
    x = tf.constant(features)
    with tf.GradientTape() as tape:
        tape.watch(x)
        values = layer(x, training=True)
    gradients = tape.gradient(values, [layer.theta.value, x], cotangents, unconnected_gradients="zero")
    return values.numpy(), *(g.numpy() for g in gradients)


def by_jax(name, arguments, theta, features, cotangents):
    import jax
    import jax.numpy as jnp

    import qstore_jax

    layer = qstore_jax.QuantumLayer(*arguments, backend=name, seed=0)
    with jax.enable_x64(theta.dtype == np.float64):
        values, vjp_fn = jax.vjp(layer.apply, jnp.asarray(theta), jnp.asarray(features))
        return np.asarray(values), *(np.asarray(g) for g in vjp_fn(jnp.asarray(cotangents.conj())))


def subjects(index, measurement):
    """`(name, function, backend)` of what computes circuit number `index`: eager Keras and JAX now and then."""
    chosen = [(name, by_numpy, name) for name in NUMPY if name != "numba" or has("numba")]
    if isinstance(measurement, State):
        chosen = [one for one in chosen if one[2] in ("statevector", "planes")]
    if has("torch"):
        chosen += [("torch layer, torch engine", by_torch, "torch")]
        chosen += [("torch layer, auto", by_torch, "auto")]
    if has("tensorflow") and index % KERAS_EVERY == 0:
        chosen += [
            ("keras layer, tensorflow", by_tensorflow, "tensorflow"),
            ("keras layer, auto", by_tensorflow, "auto"),
        ]
    if has("jax") and has("qstore_jax") and index % JAX_EVERY == 0:
        chosen += [("jax layer, jax engine", by_jax, "jax")]
    return chosen


def compare(table, seed, index):
    """One exact circuit on everything."""
    circuit, measurement, theta, features, rng = random_layer(seed)
    arguments = circuit, measurement
    layer = QuantumLayer(circuit, measurement, seed=0)
    shape, kind = (len(features), *layer.spec.sample_shape), measurement.output_dtype("float64")
    cotangents = rng.normal(size=shape)
    if kind == "complex128":
        cotangents = cotangents + 1j * rng.normal(size=shape)
    # Every dtype is judged at the numbers that it holds; features of unit size, so that gradients are too.
    width = circuit.n_amplitudes
    if width:
        features[:, :width] /= np.linalg.norm(features[:, :width], axis=1, keepdims=True)
    for dtype in ("float64", "float32"):
        rounded = [theta.astype(dtype), features.astype(dtype), cotangents.astype(measurement.output_dtype(dtype))]
        expected = reference(layer, *(array.astype(float) for array in rounded[:2]), rounded[2].astype(kind))
        scale = largest_sum(measurement, circuit.n_qubits)
        for name, function, backend in subjects(index, measurement):
            tolerances = _VALUES[dtype], _GRADIENTS[dtype], _GRADIENTS[dtype]
            stretch = scale
            if dtype == "float32" and "jax" in name:
                tolerances = FLOAT32_SUM, GRADIENT[dtype], GRADIENT[dtype]
                stretch = scale * angle_stretch(layer.spec, rounded[0], rounded[1])
            limits = [allow(e, tolerance) * stretch for e, tolerance in zip(expected, tolerances, strict=True)]
            received = function(backend, arguments, *rounded)
            for quantity, r, e, limit in zip(
                ("values", "d theta", "d features"), received, expected, limits, strict=True
            ):
                table.add(name, dtype, quantity, r, e, limit, seed)
        if dtype == "float64" and index % DEVICES_EVERY == 0:
            compare_devices(table, seed, primitive(layer), rounded)


def largest_sum(measurement, n_qubits):
    """The scale of rounding: the largest Σ|coefficient| measured, where above 1, also where terms cancel."""
    observables = getattr(measurement.primitive(n_qubits), "observables", ())
    largest = max([1.0, *(sum(abs(c) for _, c in o.terms) for o in observables)])
    return largest * (SQUARED if measurement.primitive(n_qubits) != measurement else 1.0)


def compare_devices(table, seed, layer, rounded):
    """Other simulators, and Qiskit as a second judge, of what layers are computed from."""
    from tests.backends.test_reference_libraries import append_to_qiskit, by_aer, by_pennylane, operator

    theta, features, _ = rounded
    if isinstance(layer.spec.measurement, Amplitudes):
        return
    layer.theta = theta
    values = layer(features)
    if has("qiskit_aer"):
        table.add("Qiskit itself", "float64", "values", by_aer(layer, theta, features), values, NOISY, seed)
    for name in DEVICES:
        if has("qiskit_aer" if name == "aer" else "pennylane"):
            run = get_backend(name).compile(layer.circuit, layer.spec.measurement, dtype="float64")
            table.add(f"{name} backend", "float64", "values", run.forward(theta, features), values, NOISY, seed)
    if has("pennylane") and has("torch"):
        import torch

        tensors = [torch.from_numpy(np.array(array, float)) for array in (theta, features)]
        found = by_pennylane(layer, *tensors, device="qstore.qubit", diff_method="device").numpy()
        table.add("under PennyLane, qstore.qubit", "float64", "values", found, values, VALUE["float64"], seed)
    if has("qiskit") and isinstance(layer.spec.measurement, Expectation) and not layer.circuit.n_amplitudes:
        from qiskit import QuantumCircuit
        from qstore_plugins.qiskit_primitives import Estimator

        operators, pubs = [operator(o) for o in layer.spec.measurement.as_observables(layer.circuit.n_qubits)], []
        known = [k for k, o in enumerate(operators) if o.simplify().coeffs.any()]  # Qiskit refuses a sum that is zero
        operators = [operators[k] for k in known]
        for row in features:
            program = QuantumCircuit(layer.circuit.n_qubits)
            append_to_qiskit(program, layer.circuit, theta, row)
            pubs.append((program, operators))
        if not known:
            return
        found = np.array([result.data.evs for result in Estimator().run(pubs).result()])
        limit = VALUE["float64"] * largest_sum(layer.spec.measurement, layer.circuit.n_qubits)
        table.add("under Qiskit, Estimator", "float64", "values", found, values[:, known], limit, seed)


def compare_noisy(table, seed):
    """Noise put behind gates by hand, against the noise models of both simulators; and samples of Aer."""
    from tests.plugins.noisy import expected, noisy_circuit
    from tests.plugins.test_noise import SMALL, core_model, on_aer, on_pennylane

    small = noisy_circuit(seed, gates=SMALL)
    density = get_backend("density", noise_model=core_model(small))
    for dtype in ("float64", "float32"):
        for measurement in small.measurements[:2]:
            run = density.compile(small.circuit, measurement, dtype=dtype)
            point = [array.astype(dtype) for array in (small.theta, small.inputs)]
            values = expected(small, measurement)
            table.add("density, noisy", dtype, "values", run.forward(*point), values, NOISY, seed)
    shots = get_backend("trajectories", noise_model=core_model(small))
    for measurement in small.measurements[:1]:
        run = shots.compile(small.circuit, measurement, dtype="float64", shots=SHOTS)
        add_samples(table, "trajectories, noisy", run, small, expected(small, measurement), seed)
    problem = noisy_circuit(seed)
    unread = noisy_circuit(seed, readout=False)
    for name, backend, case in (
        ("aer, noisy", on_aer(problem), problem),
        ("pennylane, noisy", on_pennylane(unread), unread),
    ):
        for measurement in case.measurements[:2]:
            values = expected(case, measurement)
            run = backend.compile(case.circuit, measurement, dtype="float64")
            table.add(name, "float64", "values", run.forward(case.theta, case.inputs), values, NOISY, seed)
    sampled = on_aer(problem).compile(problem.circuit, problem.measurements[0], dtype="float64", shots=SHOTS)
    add_samples(table, "aer, noisy, sampled", sampled, problem, expected(problem, problem.measurements[0]), seed)


def compare_sampled(table, seed):
    """Means of samples, within five standard deviations of a bit."""
    circuit, _, theta, features, _ = random_layer(seed)
    width = circuit.n_amplitudes
    if width:
        features[:, :width] /= np.linalg.norm(features[:, :width], axis=1, keepdims=True)
    measurement = Expectation(("Z", "X"))
    exact = get_backend("statevector").compile(circuit, measurement, dtype="float64").forward(theta, features)
    for name in DEVICES:
        run = get_backend(name).compile(circuit, measurement, dtype="float64", shots=SHOTS)
        values = run.forward(theta, features, seed=seed)
        table.add(f"{name}, sampled", "float64", "samples", values, exact, SIGMAS / np.sqrt(SHOTS), seed)


def add_samples(table, name, run, problem, exact, seed):
    values = run.forward(problem.theta, problem.inputs, seed=seed)
    table.add(name, "float64", "samples", values, exact, SIGMAS / np.sqrt(SHOTS), seed)


def compare_all(first, circuits, part=0, parts=1):
    """The table of circuits with the seeds `first`, `first + 1`, …: every `parts`-th of them."""
    table = Table()
    devices = has("qiskit_aer") and has("pennylane")
    for index in range(part, circuits, parts):
        seed = first + index
        compare(table, seed, index)
        if devices and index % NOISY_EVERY == 0:
            compare_noisy(table, seed)
        if devices and index % SAMPLED_EVERY == 0:
            compare_sampled(table, seed)
    return table


def compare_in_parallel(first, circuits, jobs):
    """The same by several processes."""
    table = Table()
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_quiet) as pool:
        for done in [pool.submit(compare_all, first, circuits, part, jobs) for part in range(jobs)]:
            other = done.result()
            for key, worst in other.worst.items():
                table.worst[key] = max(worst, table.worst.get(key, worst))
            for key, count in other.counts.items():
                table.counts[key] = table.counts.get(key, 0) + count
    return table


def _quiet():
    warnings.simplefilter("ignore")
    if has("torch"):
        import torch

        torch.set_num_threads(1)  # as many processes as cores


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.differential", description=__doc__.split("\n")[0])
    parser.add_argument("--circuits", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0, help="of the first circuit; the next ones follow")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    arguments = parser.parse_args()
    begin = time.monotonic()
    table, count = compare_in_parallel(arguments.seed, arguments.circuits, arguments.jobs), arguments.circuits
    print(f"{count} circuits, seeds {arguments.seed} to {arguments.seed + count - 1}, {time.monotonic() - begin:.0f} s")
    print(table)
    for failure in table.failures:
        print("beyond its tolerance:", failure)
    return 1 if table.failures else 0


if __name__ == "__main__":
    sys.exit(main())
