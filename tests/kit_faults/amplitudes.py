"""Faults of states, in a backend that computes amplitudes; and of many observables."""

from __future__ import annotations

import numpy as np
from qulacs import QuantumState

from qstore_core import Amplitudes, Capabilities

from .backend import QulacsBackend, QulacsExecutable
from .faults import fault, faulty

KIND = "structure"


class StateExecutable(QulacsExecutable):
    """It computes amplitudes as well."""

    def strings(self):
        return () if self.reads_state else QulacsExecutable.strings(self)

    @property
    def reads_state(self):
        return isinstance(self.measurement, Amplitudes)

    def vector(self, state):
        return state.get_vector()

    def measure(self, state):
        if not self.reads_state:
            return QulacsExecutable.measure(self, state)
        vector = self.vector(state)
        return np.concatenate([vector.real, vector.imag])

    def direction(self, cotangent):
        return (cotangent[: 1 << self.n] + 1j * cotangent[1 << self.n :]) / 2

    def pulled(self, state, cotangent):
        if not self.reads_state:
            return QulacsExecutable.pulled(self, state, cotangent)
        out = QuantumState(self.n)
        out.load(self.direction(cotangent))
        return out


class StateBackend(QulacsBackend):
    """It declares that it computes amplitudes."""

    capabilities = Capabilities(exact=True, shots=True, vjp=True, max_qubits=16, amplitudes=True)
    executable = StateExecutable

    def compile(self, circuit, measurement, *, dtype="float32", shots=None):
        self.check(circuit)
        return self.executable(circuit, measurement, dtype, shots)


def wrong_states(name, refused_by, **methods):
    executable = type("FaultyStates", (StateExecutable,), methods)
    fault(KIND, name, refused_by, type("FaultyStateBackend", (StateBackend,), {"executable": executable}), only=True)


def without_phase(self, state):
    vector = state.get_vector()
    return vector * np.exp(-1j * np.angle(vector[np.argmax(np.abs(vector))]))


wrong_states("states up to a global phase", "values: states", vector=without_phase)
wrong_states(
    "gradients of imaginary parts with the wrong sign",
    "gradient: states",
    direction=lambda self, cotangent: StateExecutable.direction(self, cotangent).conj(),
)
faulty(
    KIND,
    "at most 48 observables",
    "values: many observables",
    only=True,
    measure=lambda self, state: (
        [v if k < 48 else 0.0 for k, v in enumerate(QulacsExecutable.measure(self, state))]
        if not self.is_born
        else QulacsExecutable.measure(self, state)
    ),
)
