"""What is of a wrong kind is refused by a named error, wherever it is handed in, and not by what it meets inside."""

from __future__ import annotations

import numpy as np
import pytest

from qstore_core import Circuit, Pauli, QstoreError, QuantumLayer, lower, register_backend
from qstore_core.analysis import beta_init, expressibility, gradient_variance, natural_gradient


def circuit():
    c = Circuit(2)
    c.ry(c.inputs(1)[0] + c.weights(1)[0], 0)
    return c


@pytest.mark.parametrize(
    ("attempt", "message"),
    [
        (lambda: circuit().compose(3), "with a Circuit, received 3"),
        (lambda: circuit().map_inputs(3), "takes a function"),
        (lambda: circuit().extend(3), "expected a sequence, received 3"),
        (lambda: circuit().extend([3]), "takes operations.* received 3"),
        (lambda: circuit().draw("wide"), "width is a whole number"),
        (lambda: circuit().draw(-1), "width is a whole number of at least 1"),
        (lambda: lower(3, Pauli("Z")), "Circuit and a Measurement"),
        (lambda: lower(circuit(), 3), "Circuit and a Measurement"),
        (lambda: QuantumLayer(circuit(), Pauli("ZZ")).compute_output_shape(3), "input_shape"),
        (lambda: QuantumLayer(circuit(), Pauli("ZZ")).compute_output_shape(None), "input_shape"),
        (lambda: QuantumLayer(circuit(), Pauli("ZZ")).draw("wide"), "width"),
        (lambda: register_backend(3, dict), "received 3"),
        (lambda: natural_gradient(np.eye(2), np.zeros(3)), r"received \(2, 2\) and \(3,\)"),
        (lambda: natural_gradient(3, 3), r"\(W, W\)"),
        (lambda: natural_gradient("metric", [1.0]), "arrays of real numbers"),
        (lambda: natural_gradient(np.eye(2), [np.nan, 0.0]), "not finite"),
        (lambda: expressibility(QuantumLayer(circuit(), Pauli("ZZ")), samples=0), "samples is a whole number"),
        (lambda: gradient_variance(2, [1]), "qubits"),
        (lambda: beta_init("features"), "finite numbers"),
    ],
)
def test_a_wrong_argument_is_named(attempt, message):
    with pytest.raises(QstoreError, match=message):
        attempt()


@pytest.mark.parametrize("other", [None, "Z", [1]])
def test_an_observable_leaves_what_it_does_not_know_to_python(other):
    for attempt in (lambda: Pauli("Z") + other, lambda: Pauli("Z") - other, lambda: other - Pauli("Z")):
        with pytest.raises(TypeError, match="Observable"):
            attempt()
