"""The libraries that are measured, each written as its documentation recommends for speed.

A subject is a function from a `Problem` to a `Running`: `forward()` gives outputs, `step(cotangents)` gives
outputs and the gradients of Σ cotangents · outputs for weights and features. Both return when the values are
there. Data is converted to the library's own tensors beforehand; normalising the features is part of what is
measured.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .problem import Problem


@dataclass
class Running:
    """A library set up for one problem."""

    forward: Callable[[], Any]
    step: Callable[
        [Any], tuple[Any, Any, Any]
    ]  # (outputs, d_theta in the order (depth, qubit, RY/RZ), d_inputs or None)
    native: Callable[[np.ndarray], Any]
    info: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Subject:
    """A library and how it is called here."""

    name: str
    label: str
    build: Callable[[Problem], Running]
    distribution: str
    imports: tuple[str, ...]
    peer: bool = True
    note: str = ""
    most_qubits: int = 99
    computes: bool = True  # False: there is nothing to compare with the reference


def to_numpy(value: Any) -> np.ndarray:
    """A NumPy array of a tensor of any framework."""
    return value.detach().numpy() if hasattr(value, "detach") else np.asarray(value)


# -- qstore --------------------------------------------------------------------------------------------------


def _definition(problem: Problem, backend: str) -> dict[str, Any]:
    return {
        "n_qubits": problem.n_qubits,
        "depth": problem.depth,
        "measurement_bases": tuple(problem.bases),
        "backend": backend,
    }


def qstore_numpy(backend: str) -> Callable[[Problem], Running]:
    """The layer on NumPy arrays."""

    def build(problem: Problem) -> Running:
        from qstore_core import QuantumFeatureExtractor

        layer = QuantumFeatureExtractor(**_definition(problem, backend))
        layer.theta = problem.angles().ravel()
        x, program = problem.features(), layer._program

        def step(cotangents: np.ndarray) -> tuple[Any, Any, Any]:
            outputs, pull = program.value_and_vjp(layer.theta, x)
            return outputs, *pull(cotangents)

        return Running(lambda: layer(x), step, np.asarray, {"backend": layer.backend_name})

    return build


def qstore_engine(backend: str) -> Callable[[Problem], Running]:
    """The compiled circuit by itself: unit rows in, no layer around it."""

    def build(problem: Problem) -> Running:
        from qstore_core import LayerSpec, QuantumFeatureExtractor, get_backend  # noqa: F401

        spec = QuantumFeatureExtractor(**_definition(problem, backend)).spec
        executable = get_backend(backend).compile(spec.circuit, spec.measurement, dtype="float32")
        theta, x = problem.angles().ravel(), problem.features()
        x /= np.linalg.norm(x, axis=1, keepdims=True)

        def step(cotangents: np.ndarray) -> tuple[Any, Any, Any]:
            outputs, pull = executable.value_and_vjp(theta, x)
            return outputs, *pull(cotangents)

        return Running(lambda: executable.forward(theta, x), step, np.asarray, {"backend": backend, "unit": True})

    return build


def qstore_torch(backend: str) -> Callable[[Problem], Running]:
    """The PyTorch layer, through autograd."""

    def build(problem: Problem) -> Running:
        import torch

        from qstore_torch import QuantumFeatureExtractor

        layer = QuantumFeatureExtractor(**_definition(problem, backend))
        with torch.no_grad():
            layer.theta.copy_(torch.from_numpy(problem.angles().ravel()))
        running = _torch_module(layer, layer.theta, problem)
        running.info["backend"] = layer.backend_name
        return running

    return build


def _torch_module(module: Any, theta: Any, problem: Problem) -> Running:
    """A module of features whose weights are one parameter."""
    import torch

    x = torch.from_numpy(problem.features())
    leaf = x.clone().requires_grad_()

    def forward() -> Any:
        with torch.no_grad():
            return module(x)

    def step(cotangents: Any) -> tuple[Any, Any, Any]:
        theta.grad = leaf.grad = None
        outputs = module(leaf)
        outputs.backward(cotangents.to(outputs.dtype))
        return outputs, theta.grad, leaf.grad

    return Running(forward, step, torch.from_numpy)


def qstore_keras(backend: str, jit_compile: bool) -> Callable[[Problem], Running]:
    """The Keras layer in a compiled step."""

    def build(problem: Problem) -> Running:
        import tensorflow as tf

        from qstore_tf import QuantumFeatureExtractor

        layer = QuantumFeatureExtractor(**_definition(problem, backend))
        x = tf.constant(problem.features())
        layer.build(x.shape)
        layer.theta.assign(problem.angles().ravel())
        jit = jit_compile and layer.supports_jit

        @tf.function(jit_compile=jit)
        def forward(features: Any) -> Any:
            return layer(features)

        @tf.function(jit_compile=jit)
        def step(features: Any, cotangents: Any) -> tuple[Any, Any, Any]:
            with tf.GradientTape() as tape:
                tape.watch(features)
                outputs = layer(features, training=True)  # as in fit(); inference stays in TensorFlow operations
                loss = tf.reduce_sum(outputs * cotangents)
            return outputs, *tape.gradient(loss, [layer.theta.value, features])

        info = {"backend": layer.backend_name, "xla": jit}
        return Running(lambda: forward(x), lambda cotangents: step(x, cotangents), tf.constant, info)

    return build


# -- nothing: what a framework takes for a call by itself ------------------------------------------------------


def nothing_torch(problem: Problem) -> Running:
    """An autograd function that returns tensors of the layer's shapes without writing to them."""
    import torch

    class Nothing(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, theta: Any, x: Any) -> Any:
            ctx.save_for_backward(theta, x)
            return x.new_empty(problem.batch, problem.n_outputs)

        @staticmethod
        def backward(ctx: Any, gradient: Any) -> tuple[Any, Any]:
            theta, x = ctx.saved_tensors
            return torch.empty_like(theta), torch.empty_like(x)

    class Module(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.theta = torch.nn.Parameter(torch.from_numpy(problem.angles().ravel()))

        def forward(self, x: Any) -> Any:
            return Nothing.apply(self.theta, x)

    module = Module()
    return _torch_module(module, module.theta, problem)


def nothing_keras(problem: Problem) -> Running:
    """A `tf.function` that adds one to each of its arguments."""
    import tensorflow as tf

    x, theta = tf.constant(problem.features()), tf.Variable(problem.angles().ravel())
    forward = tf.function(lambda features: features + 1.0)
    step = tf.function(lambda features, cotangents: (cotangents + 1.0, theta + 1.0, features + 1.0))
    return Running(lambda: forward(x), lambda cotangents: step(x, cotangents), tf.constant)


def nothing_jax(problem: Problem) -> Running:
    """A jitted function that adds one to each of its arguments."""
    import jax

    theta, x = jax.numpy.asarray(problem.angles()), jax.numpy.asarray(problem.features())
    forward = jax.jit(lambda theta, x: x + 1.0)
    step = jax.jit(lambda theta, x, cotangents: (cotangents + 1.0, theta + 1.0, x + 1.0))
    return Running(
        lambda: jax.block_until_ready(forward(theta, x)),
        lambda cotangents: jax.block_until_ready(step(theta, x, cotangents)),
        jax.numpy.asarray,
    )


# -- PennyLane -----------------------------------------------------------------------------------------------


def pennylane(device: str, diff_method: str) -> Callable[[Problem], Running]:
    """`qml.qnn.TorchLayer`, the batch by parameter broadcasting."""

    def build(problem: Problem) -> Running:
        import pennylane as qml
        import torch

        n = problem.n_qubits
        options = {"c_dtype": np.complex64} if device == "lightning.qubit" else {}
        basis = {"Z": qml.PauliZ, "X": qml.PauliX, "Y": qml.PauliY}

        @qml.qnode(qml.device(device, wires=n, **options), interface="torch", diff_method=diff_method)
        def circuit(inputs: Any, weights: Any) -> Any:
            qml.AmplitudeEmbedding(inputs, wires=range(n), normalize=True)
            for level in range(problem.depth):
                for q in range(n):
                    qml.RY(weights[level, q, 0], wires=q)
                    qml.RZ(weights[level, q, 1], wires=q)
                for pair in problem.pairs():
                    qml.CNOT(wires=pair)
            return [qml.expval(basis[letter](q)) for letter in problem.bases for q in range(n)]

        layer = qml.qnn.TorchLayer(circuit, {"weights": (problem.depth, n, 2)})
        with torch.no_grad():
            layer.weights.copy_(torch.from_numpy(problem.angles()))
        return _torch_module(layer, layer.weights, problem)

    return build


# -- JAX: TensorCircuit-NG and qujax -------------------------------------------------------------------------


def _jax_running(batched: Callable[[Any, Any], Any], problem: Problem) -> Running:
    import jax

    def step(theta: Any, x: Any, cotangents: Any) -> tuple[Any, Any, Any]:
        outputs, pull = jax.vjp(batched, theta, x)
        return outputs, *pull(cotangents)

    theta, x = jax.numpy.asarray(problem.angles()), jax.numpy.asarray(problem.features())
    forward, step = jax.jit(batched), jax.jit(step)
    return Running(
        lambda: jax.block_until_ready(forward(theta, x)),
        lambda cotangents: jax.block_until_ready(step(theta, x, cotangents)),
        jax.numpy.asarray,
    )


def tensorcircuit(contractor: str | None, by_probability: bool) -> Callable[[Problem], Running]:
    """TensorCircuit-NG on JAX: jit of vmap of a circuit with `inputs`.

    By default as in its documentation; `by_probability` reads all ⟨Z⟩ from one vector of probabilities.
    """

    def build(problem: Problem) -> Running:
        import tensorcircuit as tc

        _only_z(problem)
        n = problem.n_qubits
        backend = tc.set_backend("jax")
        tc.set_dtype("complex64")
        if contractor is not None:
            tc.set_contractor(contractor)
        bits = (np.arange(1 << n)[:, None] >> np.arange(n)[::-1]) & 1
        signs = (1 - 2 * bits).astype(np.float32)

        def one(theta: Any, x: Any) -> Any:
            state = backend.cast(x / backend.norm(x), "complex64")
            c = tc.Circuit(n, inputs=state)
            for level in range(problem.depth):
                for q in range(n):
                    c.ry(q, theta=theta[level, q, 0])
                    c.rz(q, theta=theta[level, q, 1])
                for pair in problem.pairs():
                    c.cnot(*pair)
            if by_probability:
                return backend.real(c.probability()) @ signs
            return backend.real(backend.stack([c.expectation_ps(z=[q]) for q in range(n)]))

        return _jax_running(backend.vmap(one, vectorized_argnums=1), problem)

    return build


def qujax_(problem: Problem) -> Running:
    """qujax: jit of vmap of the state function and one expectation function per qubit."""
    import jax
    import qujax
    from jax import numpy as jnp

    _only_z(problem)
    n = problem.n_qubits
    gates: list[str] = []
    qubits: list[list[int]] = []
    slots: list[list[int]] = []
    for level in range(problem.depth):
        for q in range(n):
            for k, gate in enumerate(("Ry", "Rz")):
                gates.append(gate)
                qubits.append([q])
                slots.append([2 * (level * n + q) + k])
        for pair in problem.pairs():
            gates.append("CX")
            qubits.append(list(pair))
            slots.append([])
    state = qujax.get_params_to_statetensor_func(gates, qubits, slots, n)
    read = [qujax.get_statetensor_to_expectation_func([["Z"]], [[q]], [1.0]) for q in range(n)]

    def one(theta: Any, x: Any) -> Any:
        start = (x / jnp.linalg.norm(x)).astype(jnp.complex64).reshape((2,) * n)
        final = state(theta.ravel() / jnp.pi, start)  # qujax counts angles in units of π
        return jnp.stack([expectation(final) for expectation in read])

    return _jax_running(jax.vmap(one, in_axes=(None, 0)), problem)


# -- PyTorch: DeepQuantum and pyqtorch -----------------------------------------------------------------------


def deepquantum(problem: Problem) -> Running:
    """DeepQuantum: a `QubitCircuit` on a batch of states, its gates' own parameters trained."""
    import deepquantum as dq
    import torch

    _only_z(problem)
    n = problem.n_qubits
    circuit = dq.QubitCircuit(n)
    for _ in range(problem.depth):
        for q in range(n):
            circuit.ry(q)
            circuit.rz(q)
        for pair in problem.pairs():
            circuit.cnot(*pair)
    for q in range(n):
        circuit.observable(q)
    parameters = list(circuit.parameters())
    with torch.no_grad():
        for parameter, angle in zip(parameters, problem.angles().ravel(), strict=True):
            parameter.fill_(float(angle))
    x = torch.from_numpy(problem.features())
    leaf = x.clone().requires_grad_()

    def run(features: Any) -> Any:
        circuit(state=dq.amplitude_encoding(features, n))
        return circuit.expectation().reshape(problem.batch, n)

    def forward() -> Any:
        with torch.no_grad():
            return run(x)

    def step(cotangents: Any) -> tuple[Any, Any, Any]:
        leaf.grad = None
        for parameter in parameters:
            parameter.grad = None
        outputs = run(leaf)
        outputs.backward(cotangents)
        return outputs, torch.stack([p.grad.reshape(()) for p in parameters]), leaf.grad

    return Running(forward, step, torch.from_numpy)


def pyqtorch_(problem: Problem) -> Running:
    """pyqtorch: `expectation` in the mode AD, one observable per qubit."""
    import pyqtorch as pyq
    import torch

    _only_z(problem)
    n = problem.n_qubits
    operations: list[Any] = []
    for level in range(problem.depth):
        for q in range(n):
            operations += [pyq.RY(q, f"y{level}_{q}"), pyq.RZ(q, f"z{level}_{q}")]
        operations += [pyq.CNOT(*pair) for pair in problem.pairs()]
    circuit = pyq.QuantumCircuit(n, operations).to(dtype=torch.complex64)
    observables = [pyq.Observable(pyq.Z(q)).to(dtype=torch.complex64) for q in range(n)]
    theta = torch.from_numpy(problem.angles()).requires_grad_()
    x = torch.from_numpy(problem.features())
    leaf = x.clone().requires_grad_()

    def run(features: Any) -> Any:
        unit = torch.nn.functional.normalize(features, dim=1).to(torch.complex64)
        flat = theta.reshape(-1, 2).unbind()
        names = [(level, q) for level in range(problem.depth) for q in range(n)]
        values = {}
        for (level, q), pair in zip(names, flat, strict=True):
            values[f"y{level}_{q}"], values[f"z{level}_{q}"] = pair.reshape(2, 1).unbind()
        state = pyq.run(circuit, unit.T.reshape([2] * n + [len(features)]), values)
        return torch.stack([o.expectation(state) for o in observables], dim=1)

    def forward() -> Any:
        with torch.no_grad():
            return run(x)

    def step(cotangents: Any) -> tuple[Any, Any, Any]:
        leaf.grad = theta.grad = None
        outputs = run(leaf)
        outputs.backward(cotangents)
        return outputs, theta.grad, leaf.grad

    return Running(forward, step, torch.from_numpy)


# -- Qiskit Machine Learning ---------------------------------------------------------------------------------


def qiskit(problem: Problem) -> Running:
    """`EstimatorQNN` in a `TorchConnector` on the exact estimator. Its amplitude encoding has no gradient."""
    import torch
    from qiskit.circuit import ParameterVector, QuantumCircuit
    from qiskit.primitives import StatevectorEstimator
    from qiskit.quantum_info import SparsePauliOp
    from qiskit_machine_learning.circuit.library import raw_feature_vector
    from qiskit_machine_learning.connectors import TorchConnector
    from qiskit_machine_learning.gradients import ParamShiftEstimatorGradient
    from qiskit_machine_learning.neural_networks import EstimatorQNN

    _only_z(problem)

    class Gradient(ParamShiftEstimatorGradient):  # as it comes it refuses circuits with an amplitude encoding
        SUPPORTED_GATES = (*ParamShiftEstimatorGradient.SUPPORTED_GATES, "ParameterizedInitialize")

    n = problem.n_qubits
    estimator = StatevectorEstimator()
    encoder = raw_feature_vector(1 << n)
    weights = ParameterVector("w", problem.n_weights)
    circuit = QuantumCircuit(n)
    # Qiskit's qubit 0 is the least significant bit: qubit q here is its qubit n - 1 - q.
    circuit.compose(encoder, inplace=True)
    for level in range(problem.depth):
        for q in range(n):
            circuit.ry(weights[2 * (level * n + q)], n - 1 - q)
            circuit.rz(weights[2 * (level * n + q) + 1], n - 1 - q)
        for control, target in problem.pairs():
            circuit.cx(n - 1 - control, n - 1 - target)
    observables = [SparsePauliOp.from_sparse_list([("Z", [n - 1 - q], 1.0)], n) for q in range(n)]
    network = EstimatorQNN(
        circuit=circuit,
        estimator=estimator,
        gradient=Gradient(estimator),
        observables=observables,
        input_params=list(encoder.parameters),
        weight_params=list(weights),
        input_gradients=False,
        default_precision=0.0,
    )
    module = TorchConnector(network, initial_weights=problem.angles().ravel())
    x = torch.from_numpy(problem.features())  # the circuit normalises

    def forward() -> Any:
        with torch.no_grad():
            return module(x)

    def step(cotangents: Any) -> tuple[Any, Any, Any]:
        module.weight.grad = None
        outputs = module(x)
        outputs.backward(cotangents)
        return outputs, module.weight.grad, None

    return Running(forward, step, torch.from_numpy)


def _only_z(problem: Problem) -> None:
    if problem.bases != "Z":
        raise NotImplementedError("measured in the basis Z only")


warnings.filterwarnings("ignore")

SUBJECTS = {
    s.name: s
    for s in (
        Subject(
            "torch-auto",
            "qstore torch",
            qstore_torch("auto"),
            "qstore",
            ("torch", "qstore_torch"),
            peer=False,
            note='`qstore_torch` layer, backend="auto", through autograd',
        ),
        Subject(
            "torch-engine",
            "qstore torch ops",
            qstore_torch("torch"),
            "qstore",
            ("torch", "qstore_torch"),
            peer=False,
            note='`qstore_torch` layer, backend="torch"',
        ),
        Subject(
            "torch-numba",
            "qstore torch numba",
            qstore_torch("numba"),
            "qstore",
            ("torch", "qstore_torch", "numba"),
            peer=False,
            note='`qstore_torch` layer, backend="numba"',
        ),
        Subject(
            "keras-auto",
            "qstore Keras",
            qstore_keras("auto", False),
            "qstore",
            ("qstore_tf",),
            peer=False,
            note='`qstore_tf` layer, backend="auto", in a `tf.function`: host calls when training only',
        ),
        Subject(
            "keras-xla",
            "qstore Keras XLA",
            qstore_keras("tensorflow", True),
            "qstore",
            ("qstore_tf",),
            peer=False,
            note='`qstore_tf` layer, backend="tensorflow", in a `tf.function` under XLA',
        ),
        Subject(
            "numpy-numba",
            "qstore numba",
            qstore_numpy("numba"),
            "qstore",
            ("qstore_core", "numba"),
            peer=False,
            note='`qstore_core` layer on NumPy arrays, backend="numba"',
        ),
        Subject(
            "numpy",
            "qstore NumPy",
            qstore_numpy("statevector"),
            "qstore",
            ("qstore_core",),
            peer=False,
            note='`qstore_core` layer on NumPy arrays, backend="statevector"',
        ),
        Subject(
            "pennylane",
            "PennyLane",
            pennylane("default.qubit", "backprop"),
            "pennylane",
            ("torch", "pennylane"),
            note="`qml.qnn.TorchLayer`, default.qubit, backprop, parameter broadcasting",
        ),
        Subject(
            "pennylane-lightning",
            "PL lightning",
            pennylane("lightning.qubit", "adjoint"),
            "pennylane-lightning",
            ("torch", "pennylane"),
            note="`qml.qnn.TorchLayer`, lightning.qubit (complex64), adjoint",
        ),
        Subject(
            "tensorcircuit",
            "TensorCircuit",
            tensorcircuit(None, False),
            "tensorcircuit-ng",
            ("jax", "tensorcircuit"),
            note="TensorCircuit-NG, JAX backend, jit of vmap, complex64, `expectation_ps` per qubit",
        ),
        Subject(
            "tensorcircuit-plain",
            "TC plain",
            tensorcircuit("plain", True),
            "tensorcircuit-ng",
            ("jax", "tensorcircuit"),
            note='the same with `set_contractor("plain")` and ⟨Z⟩ from `probability()`, up to 12 qubits',
            most_qubits=12,
        ),
        Subject(
            "qujax",
            "qujax",
            qujax_,
            "qujax",
            ("jax", "qujax"),
            note="jit of vmap, complex64",
        ),
        Subject(
            "deepquantum",
            "DeepQuantum",
            deepquantum,
            "deepquantum",
            ("torch", "deepquantum"),
            note="`QubitCircuit` on a batch of states, PyTorch autograd",
        ),
        Subject(
            "pyqtorch",
            "pyqtorch",
            pyqtorch_,
            "pyqtorch",
            ("torch", "pyqtorch"),
            note="`QuantumCircuit` and `Observable`, mode AD, complex64",
        ),
        Subject(
            "qiskit",
            "Qiskit ML",
            qiskit,
            "qiskit-machine-learning",
            ("torch", "qiskit_machine_learning"),
            note="`EstimatorQNN` in a `TorchConnector`, `StatevectorEstimator`; no gradient for the "
            "features, whose amplitude encoding it cannot differentiate: it does less than the others",
        ),
        Subject(
            "nothing-torch",
            "PyTorch",
            nothing_torch,
            "torch",
            ("torch",),
            peer=False,
            note="an autograd function that does nothing",
            computes=False,
        ),
        Subject(
            "nothing-keras",
            "TensorFlow",
            nothing_keras,
            "tensorflow",
            ("tensorflow",),
            peer=False,
            note="a `tf.function` that adds one to its arguments",
            computes=False,
        ),
        Subject(
            "nothing-jax",
            "JAX",
            nothing_jax,
            "jax",
            ("jax",),
            peer=False,
            note="a jitted function that adds one to its arguments",
            computes=False,
        ),
        Subject(
            "engine-numba",
            "numba engine",
            qstore_engine("numba"),
            "qstore",
            ("numba", "qstore_core"),
            peer=False,
        ),
        Subject(
            "engine-numpy",
            "NumPy engine",
            qstore_engine("statevector"),
            "qstore",
            ("qstore_core",),
            peer=False,
        ),
    )
}

OURS = ("torch-auto", "torch-engine", "keras-auto", "keras-xla", "numpy-numba", "numpy")
NOTHING = tuple(s.name for s in SUBJECTS.values() if not s.computes)
PEERS = tuple(s.name for s in SUBJECTS.values() if s.peer)
