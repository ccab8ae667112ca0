"""A measurement from outside: the variance of Z on each qubit, 1 - ⟨Z⟩², and their mean."""

from dataclasses import dataclass

import numpy as np

from qstore_core import Expectation, Measurement, register_measurement


@register_measurement
@dataclass(frozen=True)
class Variances(Measurement):
    name = "variances"
    basis: str = "Z"

    def n_outputs(self, n_qubits):
        return n_qubits + 1

    def primitive(self, n_qubits):
        return Expectation(self.basis)

    def postprocess(self, ops, values, resolution):
        variances = 1.0 - values * values
        return ops.concat([variances, ops.sum(variances, -1, True) / values.shape[-1]])

    def postprocess_vjp(self, values, cotangents, resolution):
        n = values.shape[-1]
        return -2 * values * (cotangents[..., :n] + cotangents[..., n:] / np.asarray(n, values.dtype))
