"""Wide circuits on few qubits at a time: equal to the full state, closed forms where there is none."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qstore_core import (
    Circuit,
    Expectation,
    InputError,
    MemoryLimitError,
    Pauli,
    Probabilities,
    QuantumFeatureExtractor,
    QuantumLayer,
    cache_clear,
    cache_info,
    get_backend,
)
from qstore_core.circuit.lowering import light_cone
from qstore_core.circuit.lowering.window import window
from qstore_core.engines.arrays.numpy_ops import NumpyOps
from qstore_core.runtime.cache import Recipe
from qstore_core.runtime.narrow import _InCones, _InWindow
from tests.support.strategies import circuits
from tests.support.tolerances import EXACT, EXACT_GRADIENT, FINITE_DIFFERENCE, SUM, SUM_GRADIENT, allow

MEASUREMENTS = (
    Expectation("Z"),
    Expectation(("X", "Y", "Z")),
    Expectation(observables=(Pauli("ZZI") - 0.5 * Pauli("XIY"), Pauli("III", 2.0), Pauli("YYY"))),
    Probabilities((2, 0)),
    Probabilities(None, 2),
    Probabilities(None, 3),
)


def both(circuit, measurement, dtype="float64", backend="statevector"):
    """Executables by cones and in a window, whatever they cost."""
    recipe, ops = Recipe(circuit, measurement, get_backend(backend), dtype), NumpyOps()
    strings, combine = light_cone._strings_of(measurement, circuit.n_qubits)
    items, kept = light_cone._absorb(light_cone.decompose(circuit), strings)
    signs = np.array([[string.sign] for string in kept], float)
    found = window(items, kept, 1 << 40)
    yield _InWindow(light_cone.Narrowing(window=found, combine=(combine * signs)[list(found.strings)]), recipe, ops)
    if cones := light_cone._cones(circuit, strings)[0]:
        order = [number for cone in cones for number in cone.strings]
        yield _InCones(light_cone.Narrowing(cones=cones, combine=combine[order]), recipe, ops)


def assert_equals_full(circuit, measurement, seed):
    rng = np.random.default_rng(seed)
    theta, x = rng.normal(size=circuit.n_weights), rng.normal(size=(3, circuit.n_inputs))
    full = get_backend("statevector").compile(circuit, measurement, dtype="float64")
    values, pull = full.value_and_vjp(theta, x)
    cotangents = rng.normal(size=values.shape)
    d_theta, d_x = pull(cotangents)
    for narrow in both(circuit, measurement):
        got, vjp_fn = narrow.value_and_vjp(theta, x)
        own_theta, own_x = vjp_fn(cotangents)
        np.testing.assert_allclose(got, values, rtol=0, atol=EXACT)
        np.testing.assert_allclose(narrow.forward(theta, x), values, rtol=0, atol=EXACT)
        np.testing.assert_allclose(own_theta, d_theta, rtol=0, atol=allow(d_theta, EXACT_GRADIENT))
        np.testing.assert_allclose(own_x, d_x, rtol=0, atol=allow(d_x, EXACT_GRADIENT))


@settings(max_examples=40)
@given(circuits(min_qubits=3, max_qubits=3, amplitudes=False), st.sampled_from(MEASUREMENTS), st.integers(0, 99))
def test_any_circuit_equals_the_full_state(circuit, measurement, seed):
    assert_equals_full(circuit, measurement, seed)


@pytest.mark.parametrize(
    "arguments",
    [
        {"entanglement": "linear", "reuploading": True, "depth": 3},
        {"entanglement": "circular"},
        {"entanglement": [(0, 4), (1, 5), (2, 6), (3, 7)]},
        {"ansatz": "strongly_entangling"},
        {"encoding": "zz", "entanglement": "linear"},
        {"encoding": "iqp", "entanglement": "none"},
    ],
)
def test_layers_equal_the_full_state(arguments):
    spec = QuantumFeatureExtractor(8, **({"encoding": "angle", "measurement_bases": ("Z", "X")} | arguments)).spec
    assert_equals_full(spec.circuit, spec.measurement, seed=1)


def chain_by_hand(theta, x):
    """⟨Z_q⟩ of RY(x) · RY RZ · CNOTs in a row · RY RZ · CNOTs in a row, by transfer matrices between two sites.

    The last CNOTs make ⟨Z_q⟩ the mean of Z_0 … Z_q; RZ before them is not seen. Between, every site has
    m = R†ZR = cos b Z - sin b X, and the first CNOTs write amplitude a_q(s_q ⊕ s_{q-1}) for bit s_q.
    """
    n = len(x)
    first, second = theta.reshape(2, n, 2)
    values, left = [], np.array([[1.0, 0], [0, 0]], complex)  # of (s_{q-1}, s'_{q-1}): the bit before the first is 0
    for q in range(n):
        half = (x[q] + first[q, 0]) / 2
        a = np.array([np.cos(half) * np.exp(-0.5j * first[q, 1]), np.sin(half) * np.exp(0.5j * first[q, 1])])
        b = second[q, 0]
        m = np.array([[np.cos(b), -np.sin(b)], [-np.sin(b), -np.cos(b)]])
        amplitude = np.array([[a[s ^ before] for s in (0, 1)] for before in (0, 1)])
        left = np.einsum("ij,ik,jl,kl->kl", left, amplitude, amplitude.conj(), m.T)
        # What follows has norm 1 for each pair of bits only after the next site: CNOT takes bit s_q along.
        after = np.ones((2, 2)) if q == n - 1 else _next_overlap(x, first, q + 1)
        values.append((left * after).sum().real)
    return np.array(values)


def _next_overlap(x, first, q):
    """Σ over the next bit of a(s ⊕ t) a*(s' ⊕ t); all sites behind that add up to 1."""
    half = (x[q] + first[q, 0]) / 2
    a = np.array([np.cos(half) * np.exp(-0.5j * first[q, 1]), np.sin(half) * np.exp(0.5j * first[q, 1])])
    return np.array([[sum(a[s ^ t] * a[r ^ t].conj() for t in (0, 1)) for r in (0, 1)] for s in (0, 1)])


@pytest.mark.parametrize("n", [6, 40, 100])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_chain_of_depth_2_equals_transfer_matrices(n, dtype):
    layer = QuantumFeatureExtractor(n, depth=2, encoding="angle", entanglement="linear", init="uniform", seed=n)
    x = np.random.default_rng(n).normal(size=(2, n)).astype(dtype)
    expected = [chain_by_hand(layer.theta, row) for row in x.astype(float)]
    atol = {"float32": SUM, "float64": EXACT}[dtype]
    np.testing.assert_allclose(layer(x), expected, rtol=0, atol=atol)


def test_gradients_of_a_chain_equal_differences_of_transfer_matrices():
    n, h = 40, 1e-6
    layer = QuantumFeatureExtractor(n, depth=2, encoding="angle", entanglement="linear", init="uniform", seed=3)
    rng = np.random.default_rng(3)
    x, along, cotangents = rng.normal(size=(3, n))
    direction = rng.normal(size=layer.theta.shape)
    d_theta, d_x = layer.vjp(x[None], cotangents[None])
    ends = [chain_by_hand(layer.theta + s * h * direction, x + s * h * along) @ cotangents for s in (1, -1)]
    slope = (ends[0] - ends[1]) / (2 * h)
    assert d_theta @ direction + d_x[0] @ along == pytest.approx(slope, abs=allow(slope, FINITE_DIFFERENCE))


def test_a_row_of_rotations_has_the_closed_form_at_any_width():
    """Depth 1, all to all: ⟨Z_q⟩ is a product of cosines."""
    layer = QuantumFeatureExtractor(60, depth=1, encoding="angle", entanglement="linear", init="zeros")
    x = np.random.default_rng(0).normal(size=(3, 60))
    np.testing.assert_allclose(layer(x), np.cumprod(np.cos(x), axis=1), rtol=0, atol=EXACT)


@pytest.mark.parametrize("backend", ["statevector", "numba"])
def test_blocks_are_cones_that_share_one_compiled_circuit(backend):
    pairs = [(10 * block + a, 10 * block + b) for block in range(4) for a in range(10) for b in range(a + 1, 10)]
    arguments = {"depth": 3, "encoding": "angle", "backend": backend, "init": "uniform", "seed": 2}
    layer = QuantumFeatureExtractor(40, entanglement=pairs, **arguments)
    cache_clear()
    x = np.random.default_rng(0).normal(size=(2, 40))
    values = layer(x)
    assert cache_info().circuits == 1
    assert "light cones of at most 10 qubits, 1 of them different" in layer.explain()
    block = QuantumFeatureExtractor(10, entanglement="full", **arguments)
    theta = layer.theta.reshape(3, 40, 2)
    d_theta, d_x = layer.vjp(x, np.ones_like(values))
    for k in range(4):
        own = slice(10 * k, 10 * k + 10)
        block.theta = theta[:, own].ravel()
        np.testing.assert_allclose(values[:, own], block(x[:, own]), rtol=0, atol=EXACT)
        by_theta, by_x = block.vjp(x[:, own], np.ones((2, 10)))
        np.testing.assert_allclose(d_theta.reshape(3, 40, 2)[:, own].ravel(), by_theta, rtol=0, atol=EXACT_GRADIENT)
        np.testing.assert_allclose(d_x[:, own], by_x, rtol=0, atol=EXACT_GRADIENT)


def test_a_batch_that_is_kept_in_parts_has_the_same_gradients(monkeypatch):
    layer = QuantumFeatureExtractor(20, depth=2, encoding="angle", entanglement="linear", seed=0)
    x, cotangents = np.random.default_rng(0).normal(size=(2, 7, 20))
    whole = layer(x), *layer.vjp(x, cotangents)
    monkeypatch.setattr("qstore_core.runtime.narrow._KEEP_BYTES", 1 << 14)
    again = QuantumFeatureExtractor(20, depth=2, encoding="angle", entanglement="linear", seed=0)
    for got, expected in zip((again(x), *again.vjp(x, cotangents)), whole, strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=EXACT_GRADIENT)


def test_what_is_not_finite_is_refused_also_where_few_outputs_depend_on_it():
    layer = QuantumFeatureExtractor(40, depth=1, encoding="angle", entanglement="none")
    x = np.zeros((3, 40))
    x[1, 7] = np.nan
    with pytest.raises(InputError, match="row 1"):
        layer(x)


def test_bits_have_no_gradient_and_are_checked():
    layer = QuantumFeatureExtractor(40, depth=1, encoding="basis", entanglement="linear", init="zeros")
    bits = np.random.default_rng(0).integers(0, 2, (2, 40))
    np.testing.assert_allclose(layer(bits.astype(float)), 1.0 - 2.0 * (np.cumsum(bits, axis=1) % 2), atol=EXACT)
    with pytest.raises(InputError, match="bits"):
        layer(np.full((1, 40), 0.5))


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"encoding": "angle", "entanglement": "full"}, "the light cone of an output has 40 qubits"),
        ({"encoding": "iqp"}, "the light cone of an output has 40 qubits"),
        ({"encoding": "amplitude"}, "amplitudes as inputs"),
    ],
)
def test_what_is_too_wide_is_refused_with_the_width_of_its_cone(arguments, why):
    with pytest.raises(MemoryLimitError, match=why):
        QuantumFeatureExtractor(40, **arguments)


def test_observables_and_probabilities_of_few_qubits():
    circuit = Circuit(30)
    w = circuit.weights(30)
    for q in range(30):
        circuit.ry(w[q], q)
    for q in range(29):
        circuit.cz(q, q + 1)
    theta = np.random.default_rng(0).uniform(0, 3, 30)
    ends = QuantumLayer(circuit, Pauli("Z" + "I" * 28 + "Z"))
    ends.theta = theta
    np.testing.assert_allclose(ends(np.zeros((1, 0))), [[np.cos(theta[0]) * np.cos(theta[29])]], atol=EXACT)
    marginal = QuantumLayer(circuit, Probabilities((29, 3)))
    marginal.theta = theta
    one = np.sin(theta / 2) ** 2
    expected = np.kron([1 - one[29], one[29]], [1 - one[3], one[3]])
    np.testing.assert_allclose(marginal(np.zeros((1, 0))), [expected], atol=EXACT)


def test_shift_rules_run_on_narrow_circuits_too():
    arguments = {"depth": 1, "encoding": "angle", "entanglement": "linear", "seed": 4}
    exact = QuantumFeatureExtractor(14, **arguments)
    shifted = QuantumFeatureExtractor(14, gradient="parameter-shift", **arguments)
    assert "window" in shifted.explain()
    x, cotangents = np.random.default_rng(0).normal(size=(2, 2, 14))
    for got, expected in zip(shifted.vjp(x, cotangents), exact.vjp(x, cotangents), strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=SUM_GRADIENT)
