"""Encodings: exact gate sequences, unit rows, and names."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qstore_core import IQP, ZZ, Amplitude, AngleEncoding, Basis, Circuit, Encoding, SpecError
from qstore_core.circuit.spec.encoding import as_encoding, unit_rows
from qstore_core.engines.arrays.numpy_ops import NumpyOps
from tests.support import reference
from tests.support.tolerances import EXACT, FLOAT32_SUM


def gates(encoding, n_qubits):
    circuit = Circuit(n_qubits, amplitudes=encoding.is_amplitude)
    encoding.append(circuit, circuit.inputs(0 if encoding.is_amplitude else n_qubits))
    return [str(op) for op in circuit.operations]


@pytest.mark.parametrize("axis", ["x", "y", "z"])
def test_angle_encoding_turns_each_qubit_by_its_feature(axis):
    assert gates(AngleEncoding(axis), 3) == [f"r{axis}(x0) 0", f"r{axis}(x1) 1", f"r{axis}(x2) 2"]


def test_angle_encoding_is_ry_by_default():
    assert as_encoding("angle") == AngleEncoding("y")


def test_basis_encoding_applies_x_for_a_bit():
    assert gates(Basis(), 2) == [f"rx({math.pi:.6g}*x0) 0", f"rx({math.pi:.6g}*x1) 1"]
    assert not Basis().differentiable


def test_amplitude_encoding_has_no_gates():
    assert gates(Amplitude(), 2) == []
    assert Amplitude().n_features(3) == 8


def test_iqp_is_hadamards_then_turns_then_pairs():
    block = ["h 0", "rz(x0) 0", "h 1", "rz(x1) 1", "h 2", "rz(x2) 2", "rzz(x0*x1) 0 1", "rzz(x0*x2) 0 2",
             "rzz(x1*x2) 1 2"]  # fmt: skip
    assert gates(IQP(), 3) == block
    assert gates(IQP(2), 3) == 2 * block


def test_zz_is_the_feature_map_of_havlicek():
    circuit = Circuit(2)
    x = circuit.inputs(2)
    ZZ(1).append(circuit, x)
    assert [(op.gate, op.qubits) for op in circuit.operations] == [
        ("h", (0,)), ("p", (0,)), ("h", (1,)), ("p", (1,)), ("cnot", (0, 1)), ("p", (1,)), ("cnot", (0, 1)),
    ]  # fmt: skip
    first, second, pair = (op.params[0] for op in circuit.operations if op.gate == "p")
    point = [0.3, -1.1]
    assert first.value([], point) == pytest.approx(0.6)
    assert second.value([], point) == pytest.approx(-2.2)
    assert pair.value([], point) == pytest.approx(2 * (math.pi - 0.3) * (math.pi + 1.1))
    assert len(gates(ZZ(), 2)) == 2 * len(circuit.operations)  # two repeats, as in Qiskit


@pytest.mark.parametrize("name", ["amplitude", "angle", "basis", "iqp", "zz"])
def test_names_and_objects(name):
    encoding = as_encoding(name)
    assert encoding.name == name
    assert as_encoding(encoding) is encoding
    assert hash(as_encoding(name)) == hash(encoding)


@pytest.mark.parametrize(
    ("value", "message"),
    [("amplitdue", r"Did you mean 'amplitude'\?"), ("angel", r"Did you mean 'angle'\?"), (None, "Known"), (3, "Known")],
)
def test_unknown_encodings(value, message):
    with pytest.raises(SpecError, match=message) as caught:
        as_encoding(value)
    assert caught.value.argument == "encoding"


@pytest.mark.parametrize("make", [lambda: AngleEncoding("w"), lambda: IQP(0), lambda: ZZ(1.5), lambda: IQP(True)])
def test_bad_arguments(make):
    with pytest.raises(SpecError, match=r"axis|repeats"):
        make()


# -- amplitude encoding in an array namespace -------------------------------------------------------------------------


@given(st.integers(1, 8), st.integers(1, 4), st.integers(0, 99), st.sampled_from((1e-150, 1e-3, 1.0, 1e150)))
def test_unit_rows_are_normalised_and_padded(features, rows, seed, scale):
    x = np.random.default_rng(seed).normal(size=(rows, features)) * scale
    np.testing.assert_allclose(unit_rows(NumpyOps(), x, 8), reference.unit_rows(x, 8), rtol=0, atol=EXACT)


@pytest.mark.parametrize("scale", [1e-37, 1e-30, 1.0, 1e30, 1e37])
def test_unit_rows_survive_tiny_and_huge_features_in_float32(scale):
    x = (np.array([[3.0, 4.0, 0.0], [-1.0, 1.0, 1.0]]) * scale).astype(np.float32)
    units = unit_rows(NumpyOps(), x, 4)
    assert units.dtype == np.float32
    np.testing.assert_allclose(units, reference.unit_rows(x, 4), rtol=0, atol=FLOAT32_SUM)


def test_a_zero_row_is_the_first_basis_state():
    np.testing.assert_array_equal(unit_rows(NumpyOps(), np.zeros((2, 3)), 4), [[1, 0, 0, 0]] * 2)


def test_what_eager_calls_refuse_must_be_nan_in_graphs():
    with pytest.raises(SpecError, match="Define nan_where_invalid"):

        class Positive(Encoding):
            name = "positive"

            def validate(self, rows, name):
                super().validate(rows, name)
