"""Measures of layers against closed forms and published values."""

from __future__ import annotations

import math

import numpy as np
import pytest

from qstore_core import (
    Circuit,
    Expectation,
    Pauli,
    Probabilities,
    QuantumFeatureExtractor,
    QuantumLayer,
    QuantumReadout,
    ShapeError,
    SpecError,
)
from qstore_core.analysis import (
    beta_init,
    effective_dimension,
    entangling_capability,
    expressibility,
    fourier_spectrum,
    gradient_variance,
    plot_fourier_spectrum,
    plot_gradient_variance,
)
from tests.support.tolerances import EXACT, SIGMAS

SAMPLES = 2000


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_the_variance_of_a_global_observable_of_a_product_state_halves_with_each_qubit(n):
    """L = Π cos w_q: every slope is sin w_k times the other cosines, with variance 2⁻ⁿ."""
    found = gradient_variance(
        [n], [1], ansatz="real_amplitudes", entanglement="none", observable=lambda n: Pauli("Z" * n), samples=SAMPLES
    )
    # RealAmplitudes has a level of RY before and after the (absent) entanglers: two weights with one sum per qubit.
    fourth_moment = (3 / 8) ** n
    sigma = math.sqrt((fourth_moment - 0.25**n) / SAMPLES)
    assert abs(found[0].mean - 0.5**n) < SIGMAS * sigma


def test_a_local_observable_of_a_product_state_has_no_plateau():
    found = gradient_variance([2, 6], [1], ansatz="real_amplitudes", entanglement="none", samples=SAMPLES)
    assert [entry.largest for entry in found] == pytest.approx([0.5, 0.5], abs=SIGMAS * math.sqrt(0.125 / SAMPLES))


def test_deep_random_circuits_have_a_barren_plateau():
    """The exponential decay of McClean et al."""
    random = gradient_variance([2, 4, 6], [8], samples=100)
    assert random[0].mean > 3 * random[1].mean > 9 * random[2].mean


def test_expressibility_of_a_single_angle_is_the_published_one():
    """H then RZ on one qubit: D = 0.2 with these bins (figure 1 of Sim et al. shows 0.2); idle: log of the last bin."""
    circuit = Circuit(1)
    (w,) = circuit.weights(1)
    circuit.h(0)
    circuit.rz(w, 0)
    assert expressibility(QuantumLayer(circuit, Expectation("Z")), samples=5000) == pytest.approx(0.22, abs=0.04)
    idle = Circuit(1)
    (w,) = idle.weights(1)
    idle.rz(w, 0)
    assert expressibility(QuantumLayer(idle, Expectation("Z")), samples=100) == pytest.approx(math.log(75))


def test_entanglement_of_a_bell_pair_is_one():
    circuit = Circuit(2)
    (w,) = circuit.weights(1)
    circuit.h(0)
    circuit.cnot(0, 1)
    circuit.rz(w, 0)
    assert entangling_capability(QuantumLayer(circuit, Expectation("Z")), samples=5) == pytest.approx(1.0, abs=EXACT)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_every_encoding_adds_a_frequency(depth):
    layer = QuantumFeatureExtractor(1, depth, encoding="angle", reuploading=True, init="uniform", seed=3)
    sizes = np.abs(fourier_spectrum(layer, frequencies=5)[:, 0])
    assert sizes[5 + depth] > EXACT
    assert (sizes[5 + depth + 1 :] < EXACT).all()
    assert sizes == pytest.approx(sizes[::-1], abs=EXACT)  # outputs are real


def test_a_weight_that_changes_nothing_has_no_dimension():
    """One RY of two weights that only add up, and an RZ before Z: the Fisher matrix has rank one."""
    circuit = Circuit(1)
    a, b, c = circuit.weights(3)
    (x,) = circuit.inputs(1)
    circuit.ry(a + b + x, 0)
    circuit.rz(c, 0)
    layer = QuantumLayer(circuit, Probabilities(), seed=0)
    rows = np.linspace(-1, 1, 3)[:, None]
    # F = [[1, 1], [1, 1]] exactly, normalised to trace 3: log(1 + 3κ)/log κ at any size of the data.
    for data in (1000, 10**6):
        kappa = data / (2 * math.pi * math.log(data))
        expected = math.log(1 + 3 * kappa) / math.log(kappa)
        assert effective_dimension(layer, rows, data=data, samples=5) == pytest.approx(expected, rel=1e-9)


def test_effective_dimension_is_at_most_the_number_of_weights():
    layer = QuantumReadout(2, n_classes=2, depth=2, encoding="angle", seed=0)
    found = effective_dimension(layer, np.zeros((1, 2)) + 0.3, data=10**9, samples=5)
    assert 0 < found < layer.spec.n_weights


def test_plots_show_what_was_found():
    ax = plot_gradient_variance(gradient_variance([1, 2], [1, 2], samples=5))
    assert [line.get_label() for line in ax.get_lines()] == ["depth 1", "depth 2"]
    layer = QuantumFeatureExtractor(2, 1, encoding="angle", seed=0)
    assert len(plot_fourier_spectrum(fourier_spectrum(layer, frequencies=2)).patches) == 10


@pytest.mark.parametrize(
    "call",
    [
        lambda: gradient_variance([2], samples=1),
        lambda: gradient_variance([2], [0]),
        lambda: expressibility(QuantumFeatureExtractor(7)),
        lambda: expressibility("layer"),
        lambda: fourier_spectrum(QuantumFeatureExtractor(2, encoding="angle"), feature=2),
        lambda: effective_dimension(QuantumReadout(2, 2), np.ones((1, 4)), data=5),
    ],
)
def test_bad_arguments_are_named(call):
    with pytest.raises(SpecError):
        call()


def test_what_a_measure_is_not_defined_for_is_refused():
    noisy = Circuit(2)
    noisy.ry(noisy.weights(1)[0], 0), noisy.depolarizing(0.1, 0)
    for measure in (expressibility, entangling_capability):
        with pytest.raises(SpecError, match="has channels"):
            measure(QuantumLayer(noisy, Expectation("Z")), samples=5)
    layer = QuantumFeatureExtractor(2, encoding="angle")
    with pytest.raises(SpecError, match="one of probabilities"):
        effective_dimension(layer, np.ones((1, 2)), data=1000, samples=1)
    layer.theta = np.stack([layer.theta] * 3)
    with pytest.raises(ShapeError, match="an ensemble of shape"):
        fourier_spectrum(layer)


def test_identity_blocks_keep_gradients_where_random_angles_lose_them():
    """⟨X⟩ of one qubit: |0…0⟩, in which they begin, is no extremum of that."""
    measured = {"observable": lambda n: Pauli("X" + "I" * (n - 1)), "samples": 20}
    [random] = gradient_variance([8], [20], **measured)
    [blocks] = gradient_variance([8], [10], ansatz="identity_blocks", init="identity_blocks", **measured)
    assert blocks.slope > 5 * random.slope


@pytest.mark.parametrize(("alpha", "beta"), [(2.0, 5.0), (1.0, 1.0), (0.5, 0.5)])
def test_beta_init_finds_the_distribution(alpha, beta):
    """Moments of angles drawn by the init are those of the features, scaled to [0, 1]."""
    x = np.random.default_rng(0).beta(alpha, beta, 4000)
    drawn = beta_init(3.0 * x - 7.0)(np.random.default_rng(1), 4000)
    error = 5 * x.std() / np.sqrt(len(x))  # five standard errors
    assert abs(drawn.mean() - (x.mean() - x.min()) / np.ptp(x)) < error
    assert abs(drawn.std() - x.std() / np.ptp(x)) < error


@pytest.mark.parametrize("features", [[1.0], [2.0, 2.0], [np.nan, 1.0], []])
def test_beta_init_needs_a_spread(features):
    with pytest.raises(SpecError, match="beta_init"):
        beta_init(features)
