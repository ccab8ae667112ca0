"""Faults of what a backend declares and refuses: methods, limits, options, names, features, pickling."""

from __future__ import annotations

import numpy as np

from qstore_core import Capabilities, InputError

from .backend import QulacsBackend, QulacsExecutable
from .faults import fault, faulty

KIND = "structure"


def declaring(**changes):
    return {"capabilities": Capabilities(**{"exact": True, "shots": True, "vjp": True, "max_qubits": 16, **changes})}


def without_vjp(self, circuit, measurement, *, dtype="float32", shots=None):
    whole = QulacsExecutable(circuit, measurement, dtype, shots)

    class Bare:
        forward, value_and_report = whole.forward, whole.value_and_report

    return Bare()


faulty(KIND, "vjp declared and not there", "backend: parts", backend={"compile": without_vjp})
faulty(KIND, "max_qubits not kept", "backend: max_qubits", only=True, backend={"check": lambda self, circuit: None})
faulty(
    KIND,
    "max_qubits promised and not there",
    "values: qubits",
    only=False,
    backend={"check": lambda self, circuit: too_many(circuit)},
)


def too_many(circuit):
    if circuit.n_qubits > 11:
        raise MemoryError(f"{circuit.n_qubits} qubits")


def deaf(self, circuit, measurement, *, dtype="float32", shots=None):
    self.check(circuit)
    return QulacsExecutable(circuit, measurement, dtype, None)


faulty(
    KIND,
    "shots taken without being declared",
    "backend: shots refused",
    only=True,
    backend={"compile": deaf, **declaring(shots=False)},
)
faulty(
    KIND,
    "neither exact nor shots",
    "backend: parts",
    only=False,
    backend=declaring(exact=False, shots=False),
)


faulty(KIND, "embedded and remote", "backend: parts", backend=declaring(embedded=True, remote=True))
faulty(KIND, "an explanation that is no text", "backend: parts", only=True, backend={"explain": lambda self, n: None})
faulty(KIND, "a size as text", "backend: parts", only=True, nbytes="64 kB")


class Named(QulacsBackend):
    """It goes by another name than that under which it is installed."""

    name = "qulacs_of_mine"


fault(KIND, "another name than that it is installed under", "backend: parts", Named, only=True, installed=True)


class Careless(QulacsBackend):
    """It takes any option."""

    name = "kit_fault"

    def __init__(self, **options):
        self.options = options


fault(KIND, "unknown options taken", "backend: options", Careless, only=True, installed=True)


class RawExecutable(QulacsExecutable):
    """It takes features as they are."""

    def encode(self, inputs):
        columns = inputs.shape[1] - self.circuit.n_inputs
        raw, angles = inputs[:, :columns], inputs[:, columns:]
        norms = np.linalg.norm(raw, axis=1, keepdims=True)
        start = np.zeros((len(inputs), self.start_width))
        start[:, :columns] = raw / np.where(norms == 0, 1.0, norms)
        start[:, :1] += norms == 0
        return np.concatenate([start, angles], axis=1), norms, columns

    def finite(self, theta, inputs):
        if not (np.isfinite(theta).all() and np.isfinite(inputs).all()):
            raise InputError("theta or features are not finite.")

    def value_and_report(self, theta, inputs, *, seed=None):
        self.finite(theta, inputs)
        encoded = self.encode(inputs)[0] if self.start_width else inputs
        return QulacsExecutable.value_and_report(self, theta, encoded, seed=seed)

    def value_and_vjp(self, theta, inputs):
        if not self.start_width:
            return QulacsExecutable.value_and_vjp(self, theta, inputs)
        encoded, norms, columns = self.encode(inputs)
        outputs, vjp_fn = QulacsExecutable.value_and_vjp(self, theta, encoded)

        def vjp(cotangents):
            d_theta, d = vjp_fn(cotangents)
            d_start, start = d[:, : self.start_width], encoded[:, : self.start_width]
            d_start = d_start - (d_start * start).sum(axis=1, keepdims=True) * start
            d_raw = self.raw(d_start[:, :columns], norms)
            return d_theta, np.concatenate([d_raw, d[:, self.start_width :]], axis=1).astype(self.dtype)

        return outputs, vjp

    def raw(self, d_start, norms):
        return d_start / np.where(norms == 0, 1.0, norms) * (norms > 0)


def raw(name, only=True, **methods):
    def make():
        backend = QulacsBackend()
        backend.capabilities = Capabilities(exact=True, shots=True, vjp=True, features=True, max_qubits=16)
        executable = type("FaultyRaw", (RawExecutable,), methods)
        backend.compile = lambda circuit, measurement, *, dtype="float32", shots=None: (
            backend.check(circuit) or executable(circuit, measurement, dtype, shots)
        )
        return backend

    fault(KIND, name, "features", make, only=only)


def unsigned(self, theta, inputs, *, seed=None):
    """Samples of amplitudes without their signs."""
    sampled = self.shots is not None and self.start_width
    return RawExecutable.value_and_report(self, theta, np.abs(inputs) if sampled else inputs, seed=seed)


raw("signs of features lost under shots", only=False, value_and_report=unsigned)
raw("features without their norm in gradients", raw=lambda self, d_start, norms: d_start * (norms > 0))
raw("features that are not finite", finite=lambda self, theta, inputs: None)
raw("rows of zeros with a gradient", raw=lambda self, d_start, norms: d_start / np.where(norms == 0, 1.0, norms))


class Forgetful(QulacsBackend):
    """Its copy computes something else."""

    def __init__(self, factor=1.0):
        self.factor = factor

    def compile(self, circuit, measurement, *, dtype="float32", shots=None):
        self.check(circuit)
        executable = QulacsExecutable(circuit, measurement, dtype, shots)
        measure = executable.measure
        executable.measure = lambda state: [self.factor * v for v in measure(state)]
        return executable

    def __reduce__(self):
        return Forgetful, (0.5,)


fault(KIND, "another backend after pickling", "layers", Forgetful, only=True)
